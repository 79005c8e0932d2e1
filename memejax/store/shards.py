"""Shards of a feature store: files of columns, some hundred memes each.

A shard is a .safetensors file: one file, so that a rename completes it atomically,
mapped by numpy without a copy, and without a further dependency. Columns are arrays
`[n, ...]`, n the memes of the shard, k entities and t tokens each:

    image         float [n, d_i]         features of the picture
    text          float [n, d_t]         features of the caption
    entities      float [n, k, d_e]      features of the crops of the entities
    where         bool [n, k]            mask of real entities; others are 0
    boxes         float32 [n, k, 4]      (x1, y1, x2, y2), pixels of the picture
    sizes         int32 [n, 2]           height and width of the picture
    classes       int32 [n, k]           of the detector
    scores        float32 [n, k]         of the detector, in [0, 1]
    hash          uint64 [n]             perceptual, `graphs.difference_hash`
    image_shared  float [n, e]           optional: of the picture, in the space that the
    text_shared   float [n, e]           towers of a CLIP share; and of the caption
    tokens        float [n, t, d]        optional: features of the caption's tokens
    token_where   bool [n, t]            mask of real tokens, with `tokens` only
    box_features  float [n, k, d_b]      optional: of the detector
    masks         uint8 [n, k, 28, 28]   optional: over the box, 255 in the entity

"float" is float32 or float16. A shard also holds the key of its store, and a digest of
all its arrays, which is verified when it is read.
"""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save

from memejax import atomic
from memejax.weights.formats import read_safetensors

# Name of the array with the store's key, as bytes of the text.
KEY = "key"
# Name of the array with the SHA-256 of the others.
DIGEST = "digest"
FLOATS = ("float32", "float16")
MASK = 28
# At most this many memes are named in an error.
SHOWN = 5


class Column(NamedTuple):
    """A column: numpy's name of its dtype, and its shape per meme."""

    dtype: str
    shape: tuple[int, ...]


def columns(
    *,
    image: int,
    text: int,
    entities: int,
    k: int,
    dtype: str = "float32",
    shared: int = 0,
    tokens: tuple[int, int] | None = None,
    box_features: int | None = None,
    masks: bool = False,
) -> dict[str, Column]:
    """Return the columns of a store.

    Args:
        image: d_i.
        text: d_t.
        entities: d_e.
        k: entities per meme, at least 0.
        dtype: of features, "float32" or "float16".
        shared: e, or 0 without a shared space.
        tokens: t and d, or None without them.
        box_features: d_b, or None without them.
        masks: whether there are masks.

    Returns:
        Columns by name.

    Raises:
        ValueError: for another dtype.
    """
    if dtype not in FLOATS:
        raise ValueError(f"got dtype {dtype!r}, expected one of {', '.join(FLOATS)}")
    made = {
        "image": Column(dtype, (image,)),
        "text": Column(dtype, (text,)),
        "entities": Column(dtype, (k, entities)),
        "where": Column("bool", (k,)),
        "boxes": Column("float32", (k, 4)),
        "sizes": Column("int32", (2,)),
        "classes": Column("int32", (k,)),
        "scores": Column("float32", (k,)),
        "hash": Column("uint64", ()),
    }
    if shared:
        made["image_shared"] = made["text_shared"] = Column(dtype, (shared,))
    if tokens is not None:
        made["tokens"] = Column(dtype, tokens)
        made["token_where"] = Column("bool", tokens[:1])
    if box_features is not None:
        made["box_features"] = Column(dtype, (k, box_features))
    if masks:
        made["masks"] = Column("uint8", (k, MASK, MASK))
    return made


def write_shard(
    path: Path,
    values: Mapping[str, np.ndarray],
    *,
    expected: Mapping[str, Column],
    ids: Sequence[str],
    key: str,
) -> None:
    """Write a shard atomically.

    Args:
        path: of the file; an existing one is replaced.
        values: columns; those of features may have another float dtype.
        expected: the required columns.
        ids: of the n memes, for errors.
        key: of the store.

    Raises:
        ValueError: if columns are missing or unexpected, have another shape or dtype,
            or values that are not finite once stored.
    """
    if values.keys() != expected.keys():
        raise ValueError(
            f"got columns {', '.join(sorted(values))}, expected "
            f"{', '.join(sorted(expected))}"
        )
    stored = {KEY: np.frombuffer(key.encode(), np.uint8)}
    for name, column in expected.items():
        array = np.asarray(values[name])
        shape = (len(ids), *column.shape)
        floats = column.dtype in FLOATS and array.dtype.kind == "f"
        if array.shape != shape or not (floats or array.dtype == column.dtype):
            raise ValueError(
                f"got column {name} {array.dtype} {array.shape}, expected "
                f"{column.dtype} {shape}"
            )
        # Values that do not fit into float16 raise below.
        with np.errstate(over="ignore"):
            stored[name] = np.ascontiguousarray(array, column.dtype)
        check_finite(name, stored[name], ids=ids)
    stored[DIGEST] = np.frombuffer(digest_of(stored), np.uint8)
    with atomic.replacing(path) as file:
        file.write(save(stored))


def read_shard(
    path: Path, *, expected: Mapping[str, Column], memes: int, key: str
) -> dict[str, np.ndarray]:
    """Map a shard after verifying its digest.

    A shard that an earlier version of memejax wrote has none, and is read with a
    warning.

    Args:
        path: the file.
        expected: the required columns.
        memes: n.
        key: of the store.

    Returns:
        Read-only arrays by name.

    Raises:
        ValueError: if it is missing, damaged, or from another store.
    """
    if not path.is_file():
        raise ValueError(f"no shard {path}")
    found = read_safetensors(path)
    digest = found.pop(DIGEST, None)
    if digest is None:
        warnings.warn(f"{path} has no digest, so damage goes unnoticed", stacklevel=2)
    elif digest.tobytes() != digest_of(found):
        raise ValueError(f"{path} is damaged: it does not match its digest")
    got = found.pop(KEY, np.zeros(0, np.uint8)).tobytes().decode(errors="replace")
    if got != key:
        raise ValueError(
            f"{path} is a shard of another store: its key is {got or 'missing'}"
        )
    wrong = [
        name
        for name in found.keys() | expected.keys()
        if name not in found
        or name not in expected
        or found[name].shape != (memes, *expected[name].shape)
        or found[name].dtype != expected[name].dtype
    ]
    if wrong:
        raise ValueError(
            f"{path} does not match its store.json in the columns "
            f"{', '.join(sorted(wrong))}"
        )
    return found


def digest_of(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the digest of a shard's other arrays: names, dtypes, shapes, values."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.digest()


def check_finite(name: str, values: np.ndarray, *, ids: Sequence[str]) -> None:
    """Raise ValueError naming the memes with values that are not finite.

    Args:
        name: of the column.
        values: `[n, ...]`; all but floats pass.
        ids: of the n memes.
    """
    if values.dtype.kind != "f" or not values.size:
        return
    # Both extremes propagate a NaN and need no memory, unlike a mask.
    with np.errstate(invalid="ignore"):
        if np.isfinite(values.min()) and np.isfinite(values.max()):
            return
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    bad = [ids[row] for row in np.flatnonzero(~finite).tolist()]
    more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    hint = " (or above 65504, float16's largest)" if values.dtype == np.float16 else ""
    raise ValueError(
        f"column {name} has NaN or infinity{hint} in {len(bad)} of {len(ids)} memes: "
        f"{', '.join(bad[:SHOWN])}{more}"
    )
