"""Labelled pictures stored as arrays: MNIST's idx files and CIFAR-10's batches.

Shape suffixes: n pictures, h and w rows and columns, c colour channels.
"""

from __future__ import annotations

import dataclasses
import gzip
import math
import os
import pathlib
import pickle
import struct
import zlib
from typing import Any

import numpy as np

from memejax.data.hateful_memes import MissingDataError

# Third byte of an idx file -> dtype of its numbers, big-endian.
IDX_DTYPES = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
CIFAR10_FILES = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
# Folders that the two archives unpack to.
CIFAR10_FOLDERS = ("", "cifar-10-batches-bin", "cifar-10-batches-py")

_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_PIXELS = 3 * 32 * 32
_GZIP = b"\x1f\x8b"


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Pictures of one size, each of one class.

    Attributes:
        images: uint8 [n, h, w, c], c 1 (grey) or 3 (red, green, blue).
        labels: int32 [n], at least 0.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        images, labels = self.images, self.labels
        if (
            images.dtype != np.uint8
            or images.ndim != 4
            or images.shape[-1]
            not in (
                1,
                3,
            )
        ):
            raise ValueError(
                "images must be uint8 [n, h, w, 1 or 3], got "
                f"{images.dtype} {list(images.shape)}"
            )
        if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"labels of {len(images)} images must be int32 [{len(images)}], got "
                f"{labels.dtype} {list(labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an idx file, plain or gzipped whatever its name.

    Two zero bytes, a byte for the type of the numbers, a byte for the number of axes;
    the length of each axis as four bytes; the numbers, last axis fastest. All of it is
    big-endian.

    Args:
        path: the file.

    Returns:
        An array with the shape and dtype of the file (uint8, int8, int16, int32,
        float32 or float64) in native byte order.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, if it is not an idx file, or its length does not
            match its header.
    """
    content = _content(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_DTYPES:
        known = ", ".join(f"{code:02x}" for code in IDX_DTYPES)
        raise ValueError(
            f"{path}: is not an idx file: got {content[:4].hex(' ') or 'nothing'}, "
            f"expected 00 00, one of {known}, and the number of axes"
        )
    dtype, axes = IDX_DTYPES[content[2]], content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise ValueError(
            f"{path}: truncated: {len(content)} bytes, but the lengths of {axes} axes "
            f"take {start}"
        )
    shape = struct.unpack(f">{axes}I", content[4:start])
    # math.prod: the product of a damaged header may exceed 64 bits.
    expected = start + dtype.itemsize * math.prod(shape)
    if len(content) != expected:
        what = "truncated" if len(content) < expected else "too long"
        raise ValueError(
            f"{path}: {what}: {len(content)} bytes, expected {expected} for "
            f"{dtype.name} {list(shape)}"
        )
    numbers = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return numbers.astype(dtype.newbyteorder("="))


def mnist(folder: str | os.PathLike[str]) -> dict[str, Labelled]:
    """Read MNIST, or a data set in its format (Fashion-MNIST, Kuzushiji-MNIST).

    Args:
        folder: holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same
            of `t10k`; each with or without `.gz`, and with `-` or `.` before `idx`.

    Returns:
        "train" and "test": images [n, 28, 28, 1], labels in 0..9.

    Raises:
        hateful_memes.MissingDataError: naming the missing files.
        ValueError: naming the file whose contents are not MNIST's.
    """
    splits = {}
    for split, names in MNIST_FILES.items():
        path, labels_path = (_find_idx(pathlib.Path(folder), name) for name in names)
        images, labels = read_idx(path), read_idx(labels_path)
        if images.dtype != np.uint8 or images.shape[1:] != (28, 28) or not len(images):
            raise ValueError(
                f"{path}: holds {images.dtype} {list(images.shape)}, expected "
                "uint8 [n, 28, 28]"
            )
        splits[split] = Labelled(
            images[..., None], _labels(labels, n=len(images), path=labels_path)
        )
    return splits


def cifar10(folder: str | os.PathLike[str]) -> dict[str, Labelled]:
    """Read CIFAR-10 from its binary batches, or else from its Python batches.

    The Python batches are pickles. They are read without calling any function that
    they reference, and one that references anything but numpy arrays is refused.

    Args:
        folder: holds `data_batch_1.bin` .. `data_batch_5.bin` and `test_batch.bin`, or
            the same without `.bin`; or the folder above them, as the archives unpack.

    Returns:
        "train" and "test": images [n, 32, 32, 3], rows from the top, red, green, blue;
        labels in 0..9.

    Raises:
        hateful_memes.MissingDataError: naming the missing files.
        ValueError: naming the file whose contents are not CIFAR-10's.
    """
    files, read = _find_cifar(pathlib.Path(folder))
    splits = {}
    for split, paths in files.items():
        batches = [read(path) for path in paths]
        pixels = np.concatenate([batch[0] for batch in batches])
        # Stored channel by channel.
        images_nhwc = pixels.reshape(-1, *_CIFAR_SHAPE).transpose(0, 2, 3, 1)
        splits[split] = Labelled(
            np.ascontiguousarray(images_nhwc),
            np.concatenate([batch[1] for batch in batches]),
        )
    return splits


def _content(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a file, decompressed if gzipped."""
    content = pathlib.Path(path).read_bytes()
    if not content.startswith(_GZIP):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: truncated or damaged gzip file: {error}") from error


def _labels(values: np.ndarray, *, n: int, path: pathlib.Path) -> np.ndarray:
    """Return labels of ten classes as int32 [n], checked."""
    if values.dtype.kind not in "iu" or values.shape != (n,):
        raise ValueError(
            f"{path}: holds labels {values.dtype} {list(values.shape)}, expected "
            f"integers [{n}], one for each image"
        )
    if values.min() < 0 or values.max() > 9:
        raise ValueError(
            f"{path}: holds labels from {values.min()} to {values.max()}, expected "
            "0 to 9"
        )
    return values.astype(np.int32)


def _find_idx(folder: pathlib.Path, name: str) -> pathlib.Path:
    names = [name, name.replace("-idx", ".idx")]
    names += [f"{name}.gz" for name in names]
    for candidate in names:
        if (folder / candidate).is_file():
            return folder / candidate
    raise MissingDataError(f"{folder} holds none of {', '.join(names)}")


def _find_cifar(folder: pathlib.Path):
    """Return the six files by split, and the function that reads one of them."""
    for suffix, read in ((".bin", _read_binary), ("", _read_pickle)):
        for below in CIFAR10_FOLDERS:
            files = {
                split: [folder / below / f"{name}{suffix}" for name in names]
                for split, names in CIFAR10_FILES.items()
            }
            every = [path for paths in files.values() for path in paths]
            missing = [str(path) for path in every if not path.is_file()]
            if not missing:
                return files, read
            if len(missing) < len(every):
                raise MissingDataError(f"missing of CIFAR-10: {', '.join(missing)}")
    raise MissingDataError(
        f"no CIFAR-10 in {folder}: searched it and its folders "
        f"{' and '.join(CIFAR10_FOLDERS[1:])} for data_batch_1.bin to "
        "data_batch_5.bin and test_batch.bin, then for the same without .bin"
    )


def _read_binary(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [n, 3072] and labels int32 [n] of a binary batch."""
    record = 1 + _CIFAR_PIXELS
    content = np.frombuffer(path.read_bytes(), np.uint8)
    if not len(content) or len(content) % record:
        raise ValueError(
            f"{path}: {len(content)} bytes, expected a positive multiple of {record}: "
            f"a label and {_CIFAR_PIXELS} pixels for each image"
        )
    records = content.reshape(-1, record)
    return records[:, 1:], _labels(records[:, 0], n=len(records), path=path)


def _read_pickle(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [n, 3072] and labels int32 [n] of a Python batch."""
    try:
        with path.open("rb") as file:
            batch = _ArrayUnpickler(file, encoding="bytes").load()
    # A damaged pickle raises almost anything: EOFError, IndexError, TypeError, ...
    except Exception as error:
        raise ValueError(
            f"{path}: is not a CIFAR-10 batch: {type(error).__name__}: {error}"
        ) from error
    batch = batch if isinstance(batch, dict) else {}
    # Python 2 wrote the keys as bytes, Python 3 writes text.
    pixels = _pixels(batch.get(b"data", batch.get("data")))
    labels = batch.get(b"labels", batch.get("labels"))
    if pixels is None or not (
        isinstance(labels, list) and all(isinstance(label, int) for label in labels)
    ):
        raise ValueError(
            f"{path}: expected a pickled dict of data, uint8 [n, {_CIFAR_PIXELS}], and "
            f"labels, a list of n integers; got one of {list(batch)}, or these of "
            "other types or shapes"
        )
    return pixels, _labels(np.array(labels), n=len(pixels), path=path)


def _pixels(array: Any) -> np.ndarray | None:
    """Return the uint8 [n, 3072] that a pickle describes, or None for anything else."""
    match array:
        # A version, the shape, the dtype, whether columns go first, the numbers.
        case _PickledArray(
            state=(
                1,
                (int(n), int(k)),
                _PickledArray(args=("u1" | b"u1", *_)),
                False,
                raw,
            )
        ) if isinstance(raw, bytes) and n > 0 and k == _CIFAR_PIXELS:
            if len(raw) == n * k:
                return np.frombuffer(raw, np.uint8).reshape(n, k)
    return None


class _PickledArray:
    """Arguments and state of a pickled array or dtype, which is not built."""

    args: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *args: Any):
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler of plain values, and of arrays as `_PickledArray`; calls nothing."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return the one allowed class, or raise UnpicklingError."""
        match module_name, global_name:
            # numpy 2 renamed the module; the published files have numpy.core.
            case "numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct":
                return _PickledArray
            case "numpy", "ndarray" | "dtype":
                return _PickledArray
        raise pickle.UnpicklingError(
            f"it references {module_name}.{global_name}, expected numpy arrays and "
            "plain values only"
        )
