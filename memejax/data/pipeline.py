"""From a source and a plan to a stream of batches, through grain.

A *source* is a dict of columns, each indexable by an int array: numpy arrays,
memory maps, or `ImageColumn`, which decodes files on access. One element of the
stream is one whole batch, so the position in the stream is the step and a stream can
start at any step.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Protocol

import numpy as np

from memejax.data import images
from memejax.data.plans import Plan

# Where decoded pictures are kept.
CACHES = ("memory", "disk", "none")


class Column(Protocol):
    """A column of a source: rows by an array of indices."""

    def __getitem__(self, index: np.ndarray, /) -> np.ndarray: ...

    def __len__(self) -> int: ...


Source = Mapping[str, Column]


@dataclasses.dataclass(frozen=True)
class LoadBatch:
    """Step -> batch; picklable, so that worker processes can run it."""

    source: Source
    plan: Plan

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """Return the rows of the columns and of the plan."""
        row = self.plan.row(step)
        batch = {name: column[row["index"]] for name, column in self.source.items()}
        return batch | row


def stream(
    source: Source,
    plan: Plan,
    *,
    start: int = 0,
    stop: int | None = None,
    threads: int = 2,
    workers: int = 0,
    prefetch: int = 2,
) -> Iterator[dict[str, np.ndarray]]:
    """Iterate over the batches of the plan's steps in [start, stop), in order.

    Args:
        source: columns; see the module's docstring.
        plan: the order.
        start: the first step.
        stop: the step to end before; the end of the plan if None.
        threads: reading threads (per worker process, if `workers` is not 0).
        workers: worker processes; 0 reads in threads of this process. Decoding and
            resizing release the interpreter's lock, so threads serve local disks well;
            processes help if Python itself is the limit. They need absl's flags
            parsed (`flags.FLAGS.mark_as_parsed()` outside `absl.app`).
        prefetch: batches read ahead (per worker process, if there are any).

    Returns:
        An iterator over dicts of numpy arrays with leading axis `plan.batch`.

    Raises:
        ValueError: if the steps lie outside the plan, or a column is too short.
    """
    stop = len(plan) if stop is None else stop
    if not 0 <= start <= stop <= len(plan):
        raise ValueError(
            f"expected 0 <= start <= stop <= {len(plan)}, got {start} and {stop}"
        )
    needed = int(plan.index.max()) + 1
    short = {name: len(c) for name, c in source.items() if len(c) < needed}
    if short:
        raise ValueError(f"the plan needs {needed} examples, got columns of {short}")
    # Imported here: its quarter of a second is for those who stream.
    import grain

    load = LoadBatch(source, plan)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    dataset = grain.MapDataset.range(start, stop).map(load)
    batches = dataset.to_iter_dataset(options)
    if workers:
        batches = batches.mp_prefetch(
            grain.MultiprocessingOptions(
                num_workers=workers, per_worker_buffer_size=prefetch
            )
        )
    return iter(batches)


@dataclasses.dataclass(frozen=True)
class ImageColumn:
    """Pictures decoded on access: uint8 [b, size, size, 3]."""

    files: images.LazyImages

    def __getitem__(self, index: np.ndarray, /) -> np.ndarray:
        return self.files.load(index)[0]

    def __len__(self) -> int:
        return len(self.files)


def image_columns(
    paths: Sequence[str],
    *,
    size: int,
    resize: str,
    max_pixels: int,
    cache: str,
    folder: str | os.PathLike[str],
    threads: int,
) -> Source:
    """Make the column `image`, decoded now or on access.

    Args:
        paths: one file per example; a path that occurs twice is decoded once.
        size: side of the decoded square, in pixels.
        resize: see `images.decode`.
        max_pixels: larger files are refused.
        cache: "memory" and "disk" decode every file now, into an array in memory or a
            file in `folder` that later runs with the same files reuse; "none" decodes
            at every access.
        folder: cache folder of "disk".
        threads: number of decoding threads.

    Returns:
        `{"image": column}`.

    Raises:
        ValueError: for an unknown cache, or a picture that cannot be decoded.
    """
    if cache == "none":
        files = images.LazyImages(
            paths, size=size, resize=resize, max_pixels=max_pixels
        )
        return {"image": ImageColumn(files)}
    if cache not in CACHES:
        raise ValueError(f"got cache {cache!r}, expected one of {', '.join(CACHES)}")
    distinct = sorted(set(paths))
    place = {path: i for i, path in enumerate(distinct)}
    rows = np.array([place[path] for path in paths])
    shape = (len(distinct), size, size, 3)
    if cache == "memory":
        pixels = np.empty(shape, np.uint8)
        _decode_into(pixels, distinct, size, resize, max_pixels, threads)
    else:
        name = f"{_fingerprint(distinct, size, resize)}.npy"
        file = pathlib.Path(folder) / name
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".part{os.getpid()}")
            pixels = np.lib.format.open_memmap(
                part, mode="w+", dtype=np.uint8, shape=shape
            )
            _decode_into(pixels, distinct, size, resize, max_pixels, threads)
            pixels.flush()
            # Renamed when complete: a killed run leaves no half-filled cache.
            part.rename(file)
        pixels = np.load(file, mmap_mode="r")
    return {"image": Rows(pixels, rows)}


@dataclasses.dataclass(frozen=True)
class Rows:
    """Some rows of a column, in any order and possibly repeated."""

    values: Column
    rows: np.ndarray

    def __getitem__(self, index: np.ndarray, /) -> np.ndarray:
        return self.values[self.rows[index]]

    def __len__(self) -> int:
        return len(self.rows)


def loaded(column: Column, *, threads: int) -> np.ndarray:
    """Read a whole column into memory, by several threads."""
    parts = np.array_split(np.arange(len(column)), max(1, len(column) // 64))
    with futures.ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(column.__getitem__, parts)))


def _decode_into(pixels, paths, size, resize, max_pixels, threads) -> None:
    _, _, errors = images.decode_all(
        paths,
        size=size,
        resize=resize,
        max_pixels=max_pixels,
        threads=threads,
        into=pixels,
    )
    if errors:
        raise next(iter(errors.values()))


def _fingerprint(paths: Sequence[str], size: int, resize: str) -> str:
    """Digest of the paths, lengths and modification times of files."""
    digest = hashlib.sha256(f"{size} {resize}".encode())
    for path in paths:
        stat = os.stat(path)
        digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]
