"""Decoding and resizing: images/s of our pipeline, a PyTorch DataLoader and SPDL.

    python -m memejax.bench.input_pipeline
    python -m memejax.bench.input_pipeline --peer spdl

Both sides read the same files (made by this program: smooth noise with edges, sizes
like those of the Hateful Memes), decode with Pillow, resize to a square with the same
filter and yield uint8 batches in a shuffled order. The peer is a DataLoader with as
many persistent worker processes as we have threads, or SPDL with as many threads
(`pip install spdl`, and FFmpeg's libraries), which decodes and resizes in its own way.
Without the peer only our side runs.
`memejax.bench.input_study` measures training, for batch sizes and numbers of workers.
"""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata

import numpy as np

from memejax.bench import pairs
from memejax.bench.command_line import Parser
from memejax.command_line import prepare
from memejax.errors import command


def make_files(folder: pathlib.Path, count: int, extension: str) -> list[str]:
    """Write pictures with structure at several scales, 400 to 800 pixels wide."""
    from PIL import Image, ImageFilter

    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        width, height = int(rng.integers(400, 801)), int(rng.integers(265, 700))
        coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
        picture = Image.fromarray(coarse).resize(
            (width, height), Image.Resampling.NEAREST
        )
        picture = picture.filter(ImageFilter.GaussianBlur(2))
        grain = rng.normal(0, 6, (height, width, 3))
        pixels = np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)
        path = folder / f"{number:05}.{extension}"
        Image.fromarray(pixels).save(path, quality=90)
        paths.append(str(path))
    return paths


def our_epoch(
    paths: list[str], *, size: int, batch: int, workers: int
) -> Callable[[], float]:
    """Return a function that runs one epoch of ours and returns images/s."""
    from memejax.data import pipeline, plans

    source = pipeline.image_columns(
        paths,
        size=size,
        resize="square",
        max_pixels=10**8,
        cache="none",
        folder="",
        threads=workers,
    )
    seeds = iter(range(10**6))

    def epoch() -> float:
        steps = len(paths) // batch
        plan = plans.shuffled(len(paths), batch=batch, steps=steps, seed=next(seeds))
        began, seen = time.perf_counter(), 0
        for data in pipeline.stream(source, plan, threads=workers, prefetch=2):
            seen += len(data["image"])
        return seen / (time.perf_counter() - began)

    return epoch


def torch_epoch(
    paths: list[str], *, size: int, batch: int, workers: int
) -> Callable[[], float]:
    """Return a function that runs one epoch of a DataLoader and returns images/s."""
    import torch
    from PIL import Image

    class Files(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int):
            with Image.open(paths[index]) as image:
                image = image.convert("RGB").resize(
                    (size, size), Image.Resampling.BILINEAR
                )
            return torch.from_numpy(np.array(image))

    loader = torch.utils.data.DataLoader(
        Files(),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        prefetch_factor=2,
    )

    def epoch() -> float:
        began, seen = time.perf_counter(), 0
        for data in loader:
            seen += len(data)
        return seen / (time.perf_counter() - began)

    return epoch


def spdl_epoch(
    paths: list[str], *, size: int, batch: int, workers: int
) -> Callable[[], float]:
    """Return a function that runs one epoch of a pipeline of SPDL: images/s."""
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    rng = np.random.default_rng(0)

    def batches() -> Iterator[list[str]]:
        order = rng.permutation(len(paths))
        for begin in range(0, len(paths) - batch + 1, batch):
            yield [paths[index] for index in order[begin : begin + batch]]

    def load(names: list[str]) -> np.ndarray:
        found = spdl.io.load_image_batch(
            names, width=size, height=size, pix_fmt="rgb24"
        )
        return spdl.io.to_numpy(found)

    def epoch() -> float:
        began, seen = time.perf_counter(), 0
        builder = PipelineBuilder().add_source(batches())
        loader = builder.pipe(load, concurrency=workers).add_sink(2)
        built = loader.build(num_threads=workers)
        with built.auto_stop():
            for data in built:
                seen += len(data)
        return seen / (time.perf_counter() - began)

    return epoch


# Peer, a package -> its epoch.
PEERS = {"torch": torch_epoch, "spdl": spdl_epoch}


def _options() -> argparse.Namespace:
    parser = Parser("input_pipeline", __doc__, pairs=9)
    parser.add_argument(
        "--peer", choices=PEERS, default="torch", help="the package to compare with"
    )
    parser.number("--workers", 2, text="our threads, and the peer's processes")
    parser.add_argument(
        "--format", choices=("jpeg", "png"), default="jpeg", help="format of the files"
    )
    parser.number("--size", 224, text="side of the square to resize to, in pixels")
    parser.number("--batch", 32, text="images per batch")
    parser.number("--images", 640, text="files, each read once in a run of a side")
    return parser.parse_args()


@command
def main() -> None:
    """Run the benchmark."""
    options = _options()
    prepare()
    settings = dict(size=options.size, batch=options.batch, workers=options.workers)
    with tempfile.TemporaryDirectory() as folder:
        paths = make_files(pathlib.Path(folder), options.images, options.format)
        ours = our_epoch(paths, **settings)
        if importlib.util.find_spec(options.peer) is None:
            print(f"{options.peer} cannot be imported: timing only our side")
            ours()
            figures = {"ours": [ours() for _ in range(options.pairs)], "peer": None}
        else:
            theirs = PEERS[options.peer](paths, **settings)
            figures = pairs.in_turn(ours, theirs, pairs=options.pairs)
            figures["peer is"] = f"{options.peer} {metadata.version(options.peer)}"
    pairs.write(
        "input_pipeline",
        {"unit": "images/s", "format": options.format, **settings, **figures},
        options.out,
    )


if __name__ == "__main__":
    main()
