"""The files of `torch.save`, read without torch and without running their code.

A pickle is a program that may call whatever it names. Here it may name an ordered dict,
the function that rebuilds a tensor, the kinds of storage, and a few objects that become
placeholders; anything else is refused before it is called.

A file is a zip with data.pkl and one entry for each storage, or, before torch 1.6, five
pickles (a magic number, a version, a description of the machine, the object, the keys
of its storages) and the storages, each after its number of elements.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
DTYPES: dict[str, Any] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class RefusedError(ValueError):
    """The file names something that it may not call."""


class _Storage(NamedTuple):
    """A storage by its key, which is read later."""

    key: str
    dtype: np.dtype
    count: int


class _Tensor(NamedTuple):
    """A tensor on a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: Path, *, placeholders: Mapping[str, Any]) -> Any:
    """Read a file of `torch.save`.

    Args:
        path: the file.
        placeholders: full name of a class -> what stands for it.

    Returns:
        The saved object, with read-only arrays instead of tensors.

    Raises:
        RefusedError: if it names anything else.
        ValueError, EOFError, KeyError, pickle.UnpicklingError and others of pickle: if
            it is damaged.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        if zipped:
            return _from_zip(path, placeholders)
        return _from_sequence(file, placeholders)


def _from_zip(path: Path, placeholders: Mapping[str, Any]) -> Any:
    with zipfile.ZipFile(path) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/data.pkl")]
        folder = name.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order).strip() != b"little":
            raise ValueError("its numbers are not little-endian")
        saved = _Reader(io.BytesIO(archive.read(name)), placeholders).load()

        def storage(wanted: _Storage) -> np.ndarray:
            data = archive.read(f"{folder}data/{wanted.key}")
            return np.frombuffer(data, wanted.dtype)

        return _resolved(saved, storage)


def _from_sequence(file: BinaryIO, placeholders: Mapping[str, Any]) -> Any:
    def load() -> Any:
        return _Reader(file, placeholders).load()

    if load() != MAGIC or load() != VERSION:
        raise ValueError("it does not begin as a file of torch")
    machine = load()
    if not machine.get("little_endian", True):
        raise ValueError("its numbers are not little-endian")
    saved, keys = load(), load()
    kinds: dict[str, _Storage] = {}
    _resolved(saved, lambda wanted: kinds.setdefault(wanted.key, wanted))
    arrays = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little", signed=True)
        if key not in kinds or count != kinds[key].count:
            raise ValueError(f"its storage {key} is not as its tensors say")
        data = file.read(count * kinds[key].dtype.itemsize)
        arrays[key] = np.frombuffer(data, kinds[key].dtype)
    return _resolved(saved, lambda wanted: arrays[wanted.key])


class _Reader(pickle.Unpickler):
    """An unpickler that calls nothing but what torch's own files need."""

    def __init__(self, file: Any, placeholders: Mapping[str, Any]):
        super().__init__(file)
        self._placeholders = placeholders

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for; never an imported attribute."""
        whole = f"{module}.{name}"
        if whole in self._placeholders:
            return self._placeholders[whole]
        if whole == "collections.OrderedDict":
            return OrderedDict
        if whole == "_codecs.encode":
            # Bytes of a number of numpy's, which becomes a placeholder.
            return _nothing
        if whole == "torch._utils._rebuild_tensor_v2":
            return _tensor
        if whole == "torch._utils._rebuild_parameter":
            return _parameter
        if module in ("torch", "torch.storage") and name in DTYPES:
            return np.dtype(DTYPES[name])
        raise RefusedError(whole)

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage that a tensor is on."""
        kind, dtype, key, _, count, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise ValueError(f"it has a {kind!r:.40} in place of a storage")
        return _Storage(str(key), dtype, int(count))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(size), tuple(stride))


def _nothing(*_: Any) -> None:
    return None


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _resolved(saved: Any, storage: Callable[[_Storage], Any]) -> Any:
    """Replace tensors in dicts and lists by arrays; or visit their storages."""
    if isinstance(saved, _Tensor):
        values = storage(saved.storage)
        return _array(saved, values) if isinstance(values, np.ndarray) else None
    if isinstance(saved, Mapping):
        return {name: _resolved(value, storage) for name, value in saved.items()}
    if isinstance(saved, Sequence) and not isinstance(saved, str | bytes):
        return [_resolved(value, storage) for value in saved]
    return saved


def _array(tensor: _Tensor, values: np.ndarray) -> np.ndarray:
    """View a tensor on its storage, checked to lie inside it."""
    steps = [s * (n - 1) for s, n in zip(tensor.strides, tensor.shape, strict=True)]
    numbers = (*tensor.shape, *tensor.strides, tensor.offset)
    if not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise ValueError(f"a tensor has shape {tensor.shape}")
    last = tensor.offset + sum(steps) if 0 not in tensor.shape else -1
    if len(values) != tensor.storage.count or last >= len(values):
        raise ValueError(
            f"a tensor {list(tensor.shape)} is not inside its storage of {len(values)}"
        )
    size = values.dtype.itemsize
    return np.lib.stride_tricks.as_strided(
        values[tensor.offset :],
        tensor.shape,
        [step * size for step in tensor.strides],
        writeable=False,
    )
