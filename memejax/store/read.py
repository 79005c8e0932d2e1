"""A feature store: features of memes, computed once and read by graphs.

    FOLDER/store.json                  facts: key, columns and their shapes, splits
    FOLDER/memes.jsonl                 {"id", "split", "caption", "label", "image"} per
                                       line, split after split
    FOLDER/shards/00000.safetensors    columns of the first `chunk` memes, see shards.py

`python -m memejax.extract` makes one. A shard is renamed to its final name when it is
complete, so that every existing shard is whole, and an interrupted extraction resumes
with the missing ones. A store has a key: digests of everything that its values depend
on, so that values of another model, other data or other settings are never mixed in.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np

from memejax.errors import UserError
from memejax.graphs.features import MemeFeatures
from memejax.store.shards import Column, check_finite, read_shard

VERSION = 1
FACTS, MEMES, SHARDS = "store.json", "memes.jsonl", "shards"
DIGITS = 16
# In store.json: its own digest, and that of memes.jsonl.
SEAL, MEMES_DIGEST = "digest", "memes_digest"
# Columns of MemeFeatures.
FEATURES = tuple(field.name for field in dataclasses.fields(MemeFeatures))
RERUN = "run its extraction again, which computes only what is missing"


class DamagedStoreError(UserError):
    """A file of a store that is not as it was written; the message names it."""


def store_key(parts: Mapping[str, Any]) -> str:
    """Return the key of a store: digests of everything that its values depend on.

    Args:
        parts: by name, JSON; large ones as digests themselves.

    Returns:
        "name:digest" for each part, joined by spaces; 64 bits of its SHA-256 each.
    """
    return " ".join(
        f"{name}:{hashlib.sha256(_canonical(part)).hexdigest()[:DIGITS]}"
        for name, part in parts.items()
    )


def different_parts(one: str, other: str) -> list[str]:
    """Return the names of the parts in which two keys differ."""
    a, b = (dict(part.split(":", 1) for part in key.split()) for key in (one, other))
    return [name for name in {**a, **b} if a.get(name) != b.get(name)]


@dataclasses.dataclass(frozen=True)
class SplitFeatures:
    """Stored features of the n memes of one split, in its order.

    Attributes:
        name: of the split.
        ids: of the memes.
        captions: their texts.
        images: paths of the pictures, relative to the data folder.
        labels: int32 `[n]` in {0, 1}; -1 if unknown.
        parts: mapped shards, each with the range (start, stop) of its rows that belong
            to this split.
    """

    name: str
    ids: tuple[str, ...]
    captions: tuple[str, ...]
    images: tuple[str, ...]
    labels: np.ndarray
    parts: tuple[tuple[Mapping[str, np.ndarray], int, int], ...]

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, name: str) -> np.ndarray:
        """Return a column, checked: `[n, ...]`, features as float32.

        A view on the file if the split lies in one shard and is stored in float32,
        otherwise a copy in memory.

        Raises:
            ValueError: if the store has no such column, or a value is not finite.
        """
        if name not in self.parts[0][0]:
            raise ValueError(
                f"the store has no column {name!r}, it has "
                f"{', '.join(sorted(self.parts[0][0]))}"
            )
        pieces = [shard[name][start:stop] for shard, start, stop in self.parts]
        values = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        check_finite(f"{name} of {self.name}", values, ids=self.ids)
        return values.astype(np.float32) if values.dtype == np.float16 else values

    @functools.cached_property
    def features(self) -> MemeFeatures:
        """Features to make graphs from; read on first access."""
        names = [name for name in FEATURES if name in self.parts[0][0]]
        return MemeFeatures(**{name: self.column(name) for name in names})

    @functools.cached_property
    def hashes(self) -> np.ndarray:
        """Perceptual hashes of the pictures, uint64 `[n]`."""
        return self.column("hash")

    @functools.cached_property
    def masks(self) -> np.ndarray | None:
        """Masks uint8 `[n, k, 28, 28]` over the box, 255 in the entity, or None."""
        return self.column("masks") if "masks" in self.parts[0][0] else None

    @functools.cached_property
    def box_features(self) -> np.ndarray | None:
        """Detector features of the boxes, float32 `[n, k, d]`, or None."""
        stored = "box_features" in self.parts[0][0]
        return self.column("box_features") if stored else None


@dataclasses.dataclass(frozen=True)
class Store:
    """An open feature store.

    Attributes:
        folder: of the store.
        facts: content of store.json: `version`, `key`, `parts` (of the key), `chunk`
            (memes per shard), `splits` (memes of each), `columns` (dtype and shape of
            each), and further facts of the extraction.
        splits: by name, in the store's order.
    """

    folder: Path
    facts: Mapping[str, Any]
    splits: Mapping[str, SplitFeatures]

    @property
    def key(self) -> str:
        """Key of the store."""
        return self.facts["key"]


def open_store(folder: str | os.PathLike[str], *, key: str | None = None) -> Store:
    """Open a complete store, and verify that nothing in it is damaged.

    Args:
        folder: of the store.
        key: expected key, see `store_key`; any if None.

    Returns:
        The store.

    Raises:
        ValueError: if there is no store, it has another version or key, or a shard is
            missing, damaged or from another store; with advice.
    """
    folder = Path(folder)
    facts = read_facts(folder)
    if facts is None:
        raise ValueError(
            f"no feature store in {folder}: there is no {FACTS}; "
            "`python -m memejax.extract` makes one"
        )
    if key is not None and key != facts["key"]:
        raise ValueError(
            f"the store in {folder} has other "
            f"{' and '.join(different_parts(facts['key'], key))}:\n"
            f"  its key is   {facts['key']}\n"
            f"  expected key {key}\n"
            "open the one that was made for these, or extract to another folder"
        )
    memes = _read_memes(folder, facts)

    def read(shard: int) -> dict[str, np.ndarray] | ValueError:
        try:
            return read_whole(folder, facts, shard)
        except ValueError as error:
            return error

    # Digests read every shard; several at once hide the latency of the disk.
    with futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, range(count_shards(facts))))
    shards = [shard for shard in found if not isinstance(shard, ValueError)]
    broken = [str(shard) for shard in found if isinstance(shard, ValueError)]
    if broken:
        raise ValueError(
            f"the store in {folder} is not complete, {len(broken)} of "
            f"{count_shards(facts)} shards are missing or broken: {RERUN}\n  "
            + "\n  ".join(broken[:5])
        )
    splits, start = {}, 0
    for name, n in facts["splits"].items():
        rows = memes[start : start + n]
        splits[name] = SplitFeatures(
            name=name,
            ids=tuple(row["id"] for row in rows),
            captions=tuple(row["caption"] for row in rows),
            images=tuple(row["image"] for row in rows),
            labels=np.array([row["label"] for row in rows], np.int32),
            parts=_parts(shards, start, start + n, chunk=facts["chunk"]),
        )
        start += n
    return Store(folder, facts, splits)


def read_facts(folder: Path) -> dict[str, Any] | None:
    """Return the content of store.json, or None if there is none.

    Raises:
        ValueError: if it is damaged or has another version.
    """
    path = folder / FACTS
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text("utf-8"))
        version = facts["version"]
        # Absent in a store of an earlier version of memejax.
        if version == VERSION and facts.get(SEAL) not in (None, seal(facts)):
            raise ValueError("it does not match its digest")
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedStoreError(f"{path} is damaged ({error}): {RERUN}") from error
    if version != VERSION:
        raise ValueError(
            f"{path} has version {version}, expected {VERSION}: extract to another "
            "folder"
        )
    return facts


def seal(facts: Mapping[str, Any]) -> str:
    """Return the digest of store.json's content without the digest itself."""
    rest = {name: value for name, value in facts.items() if name != SEAL}
    return hashlib.sha256(_canonical(rest)).hexdigest()


def count_shards(facts: Mapping[str, Any]) -> int:
    """Return the number of shards of a store."""
    return -(-sum(facts["splits"].values()) // facts["chunk"])


def shard_rows(facts: Mapping[str, Any], shard: int) -> range:
    """Return the memes of a shard, as lines of memes.jsonl."""
    start = shard * facts["chunk"]
    return range(start, min(start + facts["chunk"], sum(facts["splits"].values())))


def shard_path(folder: Path, shard: int) -> Path:
    """Return the path of a shard."""
    return folder / SHARDS / f"{shard:05}.safetensors"


def expected_columns(facts: Mapping[str, Any]) -> dict[str, Column]:
    """Return the columns of a store's shards."""
    return {
        name: Column(dtype, tuple(shape))
        for name, (dtype, shape) in facts["columns"].items()
    }


def read_whole(
    folder: Path, facts: Mapping[str, Any], shard: int
) -> dict[str, np.ndarray]:
    """Map a shard, or raise ValueError; see `read_shard`."""
    return read_shard(
        shard_path(folder, shard),
        expected=expected_columns(facts),
        memes=len(shard_rows(facts, shard)),
        key=facts["key"],
    )


def _parts(
    shards: Sequence[Mapping[str, np.ndarray]], start: int, stop: int, *, chunk: int
) -> tuple[tuple[Mapping[str, np.ndarray], int, int], ...]:
    """Shards, and rows in them, of the memes [start, stop)."""
    return tuple(
        (shards[i], max(start - i * chunk, 0), min(stop - i * chunk, chunk))
        for i in range(start // chunk, -(-stop // chunk))
    )


def _read_memes(folder: Path, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read memes.jsonl, one line for each meme of the splits."""
    path = folder / MEMES
    try:
        # Not splitlines: a caption may contain other line separators than \n.
        text = path.read_text("utf-8")
        if facts.get(MEMES_DIGEST) not in (None, digest_of(text)):
            raise ValueError("it does not match its digest")
        lines = text.split("\n")
        memes = [json.loads(line) for line in lines if line]
        names = [name for name, n in facts["splits"].items() for _ in range(n)]
        if [meme["split"] for meme in memes] != names:
            raise ValueError(f"{len(memes)} memes are not those of {FACTS}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedStoreError(f"{path} is damaged ({error}): {RERUN}") from error
    return memes


def digest_of(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
