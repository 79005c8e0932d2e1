"""Files that hold only arrays: .safetensors and .npz.

A .safetensors is 8 bytes with the length of the header (little-endian), the header,
JSON with dtype, shape and place of every tensor, and the tensors' bytes one after
another. The arrays are views on a memory map: only the header is read at once, the
bytes of a value on access. A view need not be aligned, as the tensors follow a header
of any length and each other without gaps; numpy and jax's transfer support that.

References:
    https://github.com/huggingface/safetensors
"""

import math
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from memejax import strict_json

DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}

# Longest header accepted, as in the format's own library.
LONGEST_HEADER = 100_000_000


class Entry(NamedTuple):
    """A tensor in the header: its bytes are [begin, end) after the header."""

    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Map a .safetensors file.

    Args:
        path: the file.

    Returns:
        Read-only arrays by name, in the header's order.

    Raises:
        ValueError: if the file violates the format, or its length does not match its
            header.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, LONGEST_HEADER):
            raise ValueError(
                f"{path}: got {size} bytes, expected a header of {length} bytes after "
                "the first 8: the file is truncated or not safetensors; download it "
                "again"
            )
        header = file.read(length)
    try:
        entries = _entries(header)
        end = _check_places(entries)
    except ValueError as error:
        raise ValueError(
            f"{path} is not a valid safetensors file: {error}; download it again"
        ) from error
    expected = 8 + length + end
    if size != expected:
        raise ValueError(
            f"{path}: got {size} bytes, expected {expected} bytes by its header "
            f"({'truncated' if size < expected else 'too long'}): download it again"
        )
    data = np.memmap(path, np.uint8, mode="r").view(np.ndarray)[8 + length :]
    return {
        name: data[entry.begin : entry.end].view(entry.dtype).reshape(entry.shape)
        for name, entry in entries.items()
    }


def _entries(header: bytes) -> dict[str, Entry]:
    """Parse the tensors of the header, checking their dtypes and numbers of bytes."""
    if not header.startswith(b"{"):
        raise ValueError(f"the header starts with {header[:8]!r}, expected '{{'")
    parsed = strict_json.loads(header.decode("utf-8"))
    metadata = parsed.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise ValueError(f"__metadata__ is {metadata!r:.80}, expected texts by name")
    return {name: _entry(name, fields) for name, fields in parsed.items()}


def _entry(name: str, fields: Any) -> Entry:
    """Parse the fields of one tensor, checked against each other."""
    if not isinstance(fields, dict) or not {"dtype", "shape", "data_offsets"} <= set(
        fields
    ):
        raise ValueError(
            f"{name} is {fields!r:.80}, expected dtype, shape and data_offsets"
        )
    shape, offsets = fields["shape"], fields["data_offsets"]
    if not isinstance(fields["dtype"], str) or fields["dtype"] not in DTYPES:
        raise ValueError(
            f"{name} has dtype {fields['dtype']!r:.80}, expected one of "
            f"{', '.join(DTYPES)}"
        )
    if not _counts(shape):
        raise ValueError(f"{name} has shape {shape!r:.80}, expected counts")
    if not _counts(offsets) or len(offsets) != 2:
        raise ValueError(f"{name} has offsets {offsets!r:.80}, expected two counts")
    dtype = DTYPES[fields["dtype"]]
    begin, end = offsets
    wanted = math.prod(shape) * dtype.itemsize
    if end - begin != wanted:
        raise ValueError(
            f"{name} has offsets {offsets}, expected the {wanted} bytes of "
            f"{fields['dtype']} {shape}"
        )
    try:
        # numpy's limits on axes and lengths; no memory is touched.
        np.broadcast_to(np.zeros((), dtype), shape)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name} has shape {shape!r:.80}: {error}") from error
    return Entry(dtype, tuple(shape), begin, end)


def _counts(value: Any) -> bool:
    """Whether a value is a list of non-negative integers."""
    return isinstance(value, list) and all(type(x) is int and x >= 0 for x in value)


def _check_places(entries: dict[str, Entry]) -> int:
    """Raise ValueError for holes or overlaps; return the end of the last tensor."""
    end = 0
    for name in sorted(entries, key=lambda name: entries[name][2:]):
        if entries[name].begin != end:
            kind = "a hole before it" if entries[name].begin > end else "an overlap"
            raise ValueError(
                f"{name} begins at byte {entries[name].begin}, expected {end}: {kind}"
            )
        end = entries[name].end
    return end


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read a .npz file.

    Args:
        path: the file.

    Returns:
        Read-only arrays by name, in the file's order; bfloat16 for numpy's unnamed
        dtype of two bytes.

    Raises:
        ValueError: if it is damaged, or holds pickled objects.
    """
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} ({size} bytes) is truncated or not .npz: download it again"
        )
    tensors: dict[str, np.ndarray] = {}
    name = ""
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                array = file[name]
                # numpy saves bfloat16 as V2.
                if array.dtype == np.dtype("V2"):
                    array = array.view(DTYPES["BF16"])
                array.flags.writeable = False
                tensors[name] = array
    except Exception as error:  # of zipfile, zlib and numpy
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{path} has a pickle in {name}, which could run code and was refused: "
                "expected arrays of numbers"
            ) from error
        raise ValueError(
            f"{path} ({size} bytes) is damaged at {name or 'its start'} "
            f"({type(error).__name__}: {error}): download it again"
        ) from error
    return tensors
