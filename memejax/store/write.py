"""Writer of a feature store: one key per folder, shard by shard, resumable."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memejax import atomic
from memejax.errors import UserError
from memejax.store.read import (
    FACTS,
    MEMES,
    MEMES_DIGEST,
    SEAL,
    SHARDS,
    VERSION,
    DamagedStoreError,
    count_shards,
    different_parts,
    digest_of,
    expected_columns,
    read_facts,
    read_whole,
    seal,
    shard_path,
    shard_rows,
    store_key,
)
from memejax.store.shards import Column, write_shard


class OtherStoreError(UserError):
    """The folder holds a store with another key."""


class StoreWriter:
    """Writer of the missing shards of a store.

    Attributes:
        folder: of the store.
        facts: content of its store.json.
        count: number of shards of the complete store.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        parts: Mapping[str, Any],
        columns: Mapping[str, Column],
        chunk: int,
        memes: Sequence[Mapping[str, Any]],
        facts: Mapping[str, Any],
    ):
        """Create a store in a folder, or resume one with the same key.

        Several processes may do so at once, as long as each writes its own shards.

        Args:
            folder: made if missing.
            parts: everything the values depend on, by name, for `store_key`; the chunk
                and the columns are added to them.
            columns: of the shards.
            chunk: memes per shard, at least 1.
            memes: `id`, `split`, `caption`, `label` and `image` of each, contiguous by
                split.
            facts: further facts for store.json, JSON.

        Raises:
            OtherStoreError: if the folder holds a store with another key, naming the
                parts that differ.
            ValueError: if there are no memes, the chunk is below 1, or the memes of a
                split are not contiguous.
        """
        splits = _splits(memes)
        if chunk < 1 or not memes:
            raise ValueError(
                f"got {len(memes)} memes in shards of {chunk}, expected at least 1"
            )
        self.folder = Path(folder)
        layout = {
            "chunk": chunk,
            "columns": {name: [c.dtype, list(c.shape)] for name, c in columns.items()},
        }
        parts = json.loads(json.dumps({**parts, "layout": layout}))
        self.facts = {
            **facts,
            **layout,
            "version": VERSION,
            "key": store_key(parts),
            "parts": parts,
            "splits": splits,
        }
        self.count = count_shards(self.facts)
        self._ids = [str(meme["id"]) for meme in memes]
        (self.folder / SHARDS).mkdir(parents=True, exist_ok=True)
        atomic.remove_stale(self.folder)
        atomic.remove_stale(self.folder / SHARDS)
        try:
            existing = read_facts(self.folder)
        except DamagedStoreError:
            # Written again; the shards have digests, and the key, of their own.
            existing = None
        if existing is not None:
            _check_same(self.folder, existing, self.facts)
        lines = "".join(json.dumps(meme, ensure_ascii=False) + "\n" for meme in memes)
        self.facts[MEMES_DIGEST] = digest_of(lines)
        self.facts[SEAL] = seal(json.loads(json.dumps(self.facts)))
        atomic.write_text(self.folder / MEMES, lines)
        atomic.write_text(self.folder / FACTS, json.dumps(self.facts, indent=1) + "\n")

    def rows(self, shard: int) -> range:
        """Return the memes of a shard."""
        return shard_rows(self.facts, shard)

    def missing(self) -> list[int]:
        """Return the shards that are missing or incomplete."""
        return [shard for shard in range(self.count) if not self._is_complete(shard)]

    def write(self, shard: int, values: Mapping[str, np.ndarray]) -> None:
        """Write the columns of a shard atomically.

        Args:
            shard: its number.
            values: `[memes of the shard, ...]` by name of the column.

        Raises:
            ValueError: see `write_shard`.
        """
        rows = self.rows(shard)
        write_shard(
            shard_path(self.folder, shard),
            values,
            expected=expected_columns(self.facts),
            ids=self._ids[rows.start : rows.stop],
            key=self.facts["key"],
        )

    def _is_complete(self, shard: int) -> bool:
        try:
            read_whole(self.folder, self.facts, shard)
        except ValueError:
            return False
        return True


def _splits(memes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Number of memes of each split, in order."""
    splits: dict[str, int] = {}
    last = None
    for meme in memes:
        name = meme["split"]
        if name != last and name in splits:
            raise ValueError(f"memes of the split {name!r} are not contiguous")
        splits[name] = splits.get(name, 0) + 1
        last = name
    return splits


def _check_same(
    folder: Path, existing: Mapping[str, Any], requested: Mapping[str, Any]
) -> None:
    """Raise OtherStoreError if the keys of two stores differ."""
    if existing["key"] == requested["key"]:
        return
    lines = []
    for name in different_parts(existing["key"], requested["key"]):
        old, new = existing["parts"].get(name), requested["parts"].get(name)
        if not (isinstance(old, dict) and isinstance(new, dict)):
            lines.append(f"  {name}: {old} there, {new} requested")
            continue
        lines += [
            f"  {name}.{leaf}: {old.get(leaf)} there, {new.get(leaf)} requested"
            for leaf in {**old, **new}
            if old.get(leaf) != new.get(leaf)
        ]
    raise OtherStoreError(
        f"{folder} holds features of something else:\n"
        + "\n".join(lines)
        + "\nchoose another folder, or remove that one"
    )
