"""Files of a checkpoint, and their tensors.

`find` resolves a name (a file, a folder, a package, a name on the hub) to a Source;
`read` returns its tensors by name. Files are mapped where possible: the arrays are
read-only, and those of a .safetensors cost no memory until their values are read.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from memejax import strict_json
from memejax.weights import formats, hub, installed, pickles

# At most this many names are listed in an error.
LISTED = 20

# Keys of the weights in the files of training scripts, the first one present wins.
# DINO's authors evaluate the teacher.
WRAPPERS = ("teacher", "student", "state_dict", "model")

# Deeper than training scripts nest; a pickled dict may contain itself.
DEPTH = 3

# DINO's projection, beside the encoder's "backbone.".
PROJECTION = ("head.mlp.", "head.last_layer.")

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class Source(NamedTuple):
    """Files of a checkpoint.

    Attributes:
        weights: one file, or all shards of one checkpoint.
        config: config.json beside them.
        folder: of the files, and of preprocessor_config.json, tokenizer.json and
            vocab.txt if they exist.
    """

    weights: tuple[Path, ...]
    config: Path | None
    folder: Path | None


def find(name: str | os.PathLike[str]) -> Source:
    """Find a checkpoint by path, package or hub name.

    "pip:NAME" is the checkpoint inside an installed package, see `installed.find`.
    The search for other names: a file .safetensors, .bin, .pt, .pth or .npz; a folder
    with model.safetensors, its index of shards, pytorch_model.bin, its index, or a
    single .safetensors, .pth, .pt or .npz; a repository on the hub, or in its cache.

    Args:
        name: a path, "pip:NAME", or "name" or "owner/name" on the hub, with "@revision"
            for another than the main branch.

    Returns:
        The files, of which only an index of shards has been read.

    Raises:
        ValueError: if there are no usable files, with the places searched and advice.
    """
    text = os.path.expanduser(os.fspath(name))
    if text.startswith("pip:"):
        return find(installed.find(text.removeprefix("pip:")))
    path = Path(text)
    if not text:
        raise ValueError("got an empty name, expected a file, a folder or a hub name")
    if path.is_file():
        if path.suffix not in READERS:
            raise ValueError(
                f"got the file {path}, expected one that ends in {', '.join(READERS)}"
            )
        return _source(path.parent, (path,))
    if path.is_dir():
        return _in_folder(path)
    at, _, revision = text.partition("@")
    # A hub name is "name" or "owner/name" and starts with neither of these.
    if (
        text.startswith(("/", ".", "~"))
        or at.count("/") > 1
        or "\\" in text
        or path.suffix in READERS
    ):
        raise ValueError(
            f"no weights {text!r}: there is no such folder or file; looked for it in "
            f"{os.getcwd()}"
        )
    try:
        folder = hub.download(at, revision=revision or None)
    except ValueError as error:
        raise ValueError(
            f"looked for a folder or file {text!r} in {os.getcwd()}, then for a model "
            f"of that name on the hub: {error}"
        ) from error
    return _in_folder(folder)


def _source(folder: Path, weights: tuple[Path, ...]) -> Source:
    config = folder / "config.json"
    return Source(weights, config if config.is_file() else None, folder)


def _in_folder(folder: Path) -> Source:
    """Find the checkpoint in a folder, in the order of `find`."""
    for stem in ("model.safetensors", "pytorch_model.bin"):
        if (folder / stem).is_file():
            return _source(folder, (folder / stem,))
        if (folder / f"{stem}.index.json").is_file():
            return _source(folder, _shards(folder / f"{stem}.index.json"))
    for suffix in (".safetensors", ".pth", ".pt", ".npz"):
        found = sorted(folder.glob(f"*{suffix}"))
        if len(found) == 1:
            return _source(folder, (found[0],))
        if found:
            raise ValueError(
                f"{folder} has several weights, {_listed(f.name for f in found)}: "
                "give the path of one"
            )
    names = sorted(f.name for f in folder.iterdir()) if folder.is_dir() else []
    raise ValueError(
        f"no weights in {folder}, which holds {_listed(names) or 'nothing'}: expected "
        "model.safetensors or pytorch_model.bin, whole or in shards with their "
        "index.json, or a single .safetensors, .pth, .pt or .npz"
    )


def _shards(index: Path) -> tuple[Path, ...]:
    """Return the files named by an index of shards, all of which must exist."""
    try:
        names = set(strict_json.loads(index.read_text("utf-8"))["weight_map"].values())
        # A path could lead anywhere.
        if not names or any(Path(n).name != n or "\\" in n for n in names):
            raise ValueError(f"got files {sorted(names)}, expected plain names")
        # model.safetensors.index.json names .safetensors, and nothing else.
        suffix = Path(index.name.removesuffix(".index.json")).suffix
        if any(not n.endswith(suffix) for n in names):
            raise ValueError(f"got files {sorted(names)}, expected *{suffix}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{index} is not an index of shards ({type(error).__name__}: {error}): "
            "download it again"
        ) from error
    missing = sorted(n for n in names if not (index.parent / n).is_file())
    if missing:
        raise ValueError(
            f"{index} names {len(names)} files, of which {len(missing)} are missing: "
            f"{_listed(missing)}; download them too"
        )
    return tuple(index.parent / n for n in sorted(names))


def read(source: Source) -> dict[str, np.ndarray]:
    """Read all tensors of a checkpoint.

    Args:
        source: the files, from `find`.

    Returns:
        Read-only arrays by name, see `unwrap`: views on memory maps for .safetensors
        and files of torch 1.6 or newer.

    Raises:
        ValueError: for a file that is damaged, truncated or misnamed, or a pickle that
            tries to run code (which is not run).
    """
    saved: dict[str, Any] = {}
    for path in source.weights:
        _check_content(path)
        content = READERS[path.suffix](path)
        if not isinstance(content, Mapping):
            raise ValueError(
                f"{path} holds a {type(content).__name__}, expected tensors by name"
            )
        twice = sorted(str(name) for name in saved.keys() & content.keys())
        if twice:
            raise ValueError(
                f"{path} has tensors that another shard has too: {_listed(twice)}"
            )
        saved |= content
    try:
        return unwrap(saved)
    except ValueError as error:
        raise ValueError(f"{source.weights[0]}: {error}") from error


def _check_content(path: Path) -> None:
    """Raise ValueError for contents that are often found in place of weights."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    with path.open("rb") as file:
        start = file.read(1024)
    if not start:
        raise ValueError(f"{path} is empty: download it again")
    if start.startswith(b"version https://git-lfs"):
        size = re.search(rb"\nsize (\d+)", start)
        real = f" of {int(size[1])} bytes" if size else ""
        raise ValueError(
            f"{path} is a Git LFS pointer, not the file{real} that it stands for: run "
            "`git lfs pull` in its folder, or download the file itself"
        )
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise ValueError(
            f"{path} is a web page saved under that name, not weights: download the "
            "file itself, not the page that shows it"
        )


READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": formats.read_safetensors,
    ".bin": pickles.read,
    ".pt": pickles.read,
    ".pth": pickles.read,
    ".npz": formats.read_npz,
}


def unwrap(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Extract the tensors by name from the wrappers of a training script.

    A dict under "teacher", "student", "state_dict" or "model" (the first one present)
    replaces the whole, so that other entries (epoch, optimizer) are ignored. The
    prefixes "module." and then "backbone." are removed if every name has them; beside
    "backbone.", DINO's projection (`head.mlp`, `head.last_layer`) is dropped.

    Args:
        tensors: arrays by name, or dicts of them.

    Returns:
        Arrays by name, in the given order; not copied.

    Raises:
        ValueError: listing entries that are not arrays of numbers, or if there are no
            tensors.
    """
    inner: Mapping[str, Any] = tensors
    for _ in range(DEPTH):
        for wrapper in WRAPPERS:
            if isinstance(inner.get(wrapper), Mapping):
                inner = inner[wrapper]
                break
    others = [
        f"{name} ({_kind(value)})"
        for name, value in inner.items()
        if not isinstance(name, str) or not _is_numbers(value)
    ]
    if others:
        raise ValueError(
            "got entries that are not arrays of numbers, expected only tensors by "
            f"name: {_listed(others)}"
        )
    if not inner:
        raise ValueError("got no tensors")
    arrays = _without_prefix(inner, "module.") or dict(inner)
    encoder = {n: a for n, a in arrays.items() if not n.startswith(PROJECTION)}
    return _without_prefix(encoder, "backbone.") or arrays


def _without_prefix(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any] | None:
    """Remove the prefix from all names, or return None if one lacks it."""
    if not tensors or not all(name.startswith(prefix) for name in tensors):
        return None
    return {name.removeprefix(prefix): array for name, array in tensors.items()}


def _is_numbers(value: Any) -> bool:
    return isinstance(value, np.ndarray) and (
        value.dtype.kind in "biuf" or value.dtype == BFLOAT16
    )


def _kind(value: Any) -> str:
    dtype = f" of {value.dtype}" if hasattr(value, "dtype") else ""
    return f"{type(value).__name__}{dtype}"


def check_finite(tensors: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError if any tensor has a NaN or an infinity.

    Args:
        tensors: arrays by name; those of integers are skipped.

    Raises:
        ValueError: listing every such tensor.
    """
    bad = []
    for name, array in tensors.items():
        if not array.size or array.dtype.kind in "biu":
            continue
        # Both extremes propagate a NaN and need no memory, unlike a mask.
        with np.errstate(invalid="ignore"):
            extremes = array.min(), array.max()
        if not all(np.isfinite(extreme) for extreme in extremes):
            bad.append(name)
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(tensors)} tensors have NaN or infinity, expected "
            f"finite values: {', '.join(bad)}"
        )


def _listed(names: Any) -> str:
    """Join the first names, and the number of the others."""
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
