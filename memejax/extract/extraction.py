"""Extraction of the features of a data set, shard by shard."""

import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import datasets, frozen, logs, parallel
from memejax.extract import cutting, prompts
from memejax.extract.detector import load_detector, mask_rcnn
from memejax.extract.encoders import Encoders, make_encoders, tree_digest
from memejax.extract.entities import Finder, grid_entities, no_entities
from memejax.extract.features import Options, columns_of, expected_columns
from memejax.extract.memes import memes_digest, read_memes
from memejax.extract.sources import find_source
from memejax.stages.parts.choices import choose
from memejax.store.shards import FLOATS
from memejax.store.write import StoreWriter


def extract(config: ConfigDict, out: str | os.PathLike[str]) -> str:
    """Write the feature store that a config describes, or its missing shards.

    An interrupted extraction resumes with the shards that do not exist yet. Process i
    of n writes the shards whose number is i modulo n; when it returns, those of other
    processes may not exist yet.

    The store's key has these parts: `data` (splits, ids, captions, labels and the
    contents of the picture files), `image` and `text` (parameters, architecture,
    normalisation, tokenizer, sizes), `entities` (finder, crops, parameters of the
    detector), `prompts` (if there are any) and `layout` (columns, and memes per
    shard).

    Args:
        config: an experiment's, as in configs/graph.py, with the section `extract`.
        out: the store's folder, made if missing.

    Returns:
        The store's key, for `memejax.store.read.open_store`.

    Raises:
        OtherStoreError: if the folder holds a store with another key, naming the
            differences.
        BadRecordsError: naming every bad record of the data.
        ValueError: for any other misfit, with advice.
    """
    c = config.extract
    folder = pathlib.Path(out).absolute()
    options = options_of(config)
    mesh = parallel.mesh(config.parallel.devices, own=True)
    parallel.check_batch(mesh, c.batch)
    finder, facts = make_finder(
        config, mesh, masks=options.masks or options.crop == "mask"
    )
    folder.mkdir(parents=True, exist_ok=True)
    with parallel.first_before_others("memes"):
        local = config
        if not parallel.is_first():
            local = datasets.with_written_memes(config, folder)
        root, memes = read_memes(local, folder)
    training = [meme.text for meme in memes if meme.split == "train"]
    source = find_source(config, captions=training, folder=folder)
    encoders = make_encoders(source, mesh=mesh, batch=c.batch)
    _check_crop(options, encoders)
    # Only towers that share a space can compare a prompt with a picture.
    asked = prompts.listed(c.prompts) if encoders.shared_width else []
    parts = {"prompts": asked} if asked else {}
    digest = memes_digest(memes, threads=config.pipeline.threads)
    real_root = os.path.realpath(root)
    writer = StoreWriter(
        folder,
        parts={"data": {"memes": digest}, **encoders.parts, "entities": facts, **parts},
        columns=expected_columns(encoders, finder, options=options),
        chunk=c.chunk,
        memes=[
            {
                "id": meme.id,
                "split": meme.split,
                "caption": meme.text,
                "label": meme.label,
                "image": os.path.relpath(meme.image, real_root),
            }
            for meme in memes
        ],
        facts={
            "preset": config.preset,
            "root": root,
            "encoders": dict(encoders.names),
            "detector": config.weights.detector if c.entities == "detector" else None,
            "prompts": asked,
            "similarity": source.similarity,
        },
    )
    if parallel.is_first():
        if c.keep_encoders:
            frozen.keep(source.frozen(), folder)
        if asked:
            prompts.write(folder, encoders, asked, key=writer.facts["key"])
    _log_summary(config, writer, encoders)

    def compute(rows: range) -> dict[str, np.ndarray]:
        # In batches: the entities of a whole shard would take gigabytes.
        parts = [
            columns_of(
                memes[start : min(start + c.batch, rows.stop)],
                encoders,
                finder=finder,
                options=options,
                max_pixels=config.data.max_pixels,
                threads=config.pipeline.threads,
            )
            for start in range(rows.start, rows.stop, c.batch)
        ]
        return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}

    fill(writer, compute, process=jax.process_index(), of=jax.process_count())
    return writer.facts["key"]


def fill(
    writer: StoreWriter,
    compute: Callable[[range], Mapping[str, np.ndarray]],
    *,
    process: int = 0,
    of: int = 1,
) -> None:
    """Compute one process's share of the missing shards of a store.

    Args:
        writer: of the store.
        compute: range of memes -> their columns.
        process: number of this process, from 0.
        of: number of processes.

    Raises:
        ValueError: if columns do not match those of the store.
    """
    mine = [shard for shard in writer.missing() if shard % of == process]
    share = f" (process {process} of {of})" if of > 1 else ""
    total = sum(len(writer.rows(shard)) for shard in mine)
    done, start = 0, time.perf_counter()
    for shard in mine:
        rows = writer.rows(shard)
        writer.write(shard, compute(rows))
        done += len(rows)
        speed = done / max(time.perf_counter() - start, 1e-9)
        logs.say(
            f"extract{share} {done:>{len(str(total))}}/{total}  "
            f"{100 * done / total:3.0f}%  {speed:.1f} memes/s"
            f"  ETA {logs.clock((total - done) / speed)}"
        )
    left = len(writer.missing())
    other = f"; {left} of other processes are missing yet" if left else ""
    logs.say(
        f"{writer.count - left} of {writer.count} shards in {writer.folder}{other}"
    )


def options_of(config: ConfigDict) -> Options:
    """Return the options of the columns that a config describes.

    Raises:
        ValueError: for options that no entities but a detector's have.
    """
    c = config.extract
    choose(dict.fromkeys(cutting.CROPS), c.crop, "extract.crop")
    choose(dict.fromkeys(FLOATS), c.dtype, "extract.dtype")
    if c.entities != "detector" and (c.crop == "mask" or c.masks or c.box_features):
        raise ValueError(
            f"extract.entities={c.entities!r} has no masks and no features of its own: "
            "set extract.crop=box, extract.masks=False and extract.box_features=False, "
            "or extract.entities=detector"
        )
    return Options(
        crop=c.crop,
        tokens=c.tokens,
        box_features=c.box_features,
        masks=c.masks,
        dtype=c.dtype,
    )


def _check_crop(options: Options, encoders: Encoders) -> None:
    if options.crop == "mask" and encoders.resize != "square":
        raise ValueError(
            f"data.resize={encoders.resize!r}: extract.crop=mask needs 'square', as "
            "masks are applied to the stretched picture"
        )


def _detector(
    config: ConfigDict, mesh: Mesh, masks: bool
) -> tuple[Finder, dict[str, Any]]:
    c = config.extract
    if config.weights.detector is None:
        raise ValueError(
            "extract.entities='detector' needs weights.detector, torchvision's file of "
            "maskrcnn_resnet50_fpn; extract.entities=grid needs no detector"
        )
    detector = load_detector(config.weights.detector)
    settings = {
        "most": c.k,
        "score": c.score,
        "min_side": c.min_side,
        "max_side": c.max_side,
        "masks": masks,
    }
    finder = mask_rcnn(detector, mesh=mesh, batch=c.detector_batch, **settings)
    facts = {
        **settings,
        "crop": c.crop,
        "sizes": dict(detector.sizes),
        "parameters": tree_digest(detector.variables),
    }
    return finder, facts


def _grid(config: ConfigDict, mesh: Mesh, masks: bool) -> tuple[Finder, dict[str, Any]]:
    return grid_entities(config.extract.grid), {"grid": config.extract.grid}


def _none(config: ConfigDict, mesh: Mesh, masks: bool) -> tuple[Finder, dict[str, Any]]:
    return no_entities(), {}


FINDERS = {"detector": _detector, "grid": _grid, "none": _none}


def make_finder(
    config: ConfigDict, mesh: Mesh, *, masks: bool
) -> tuple[Finder, dict[str, Any]]:
    """Return the finder of a config, and everything its entities depend on.

    Args:
        config: with the section `extract`, and `weights.detector`.
        mesh: of the devices that a detector's batch is split over.
        masks: whether it has to find masks.

    Raises:
        ValueError: for an unknown finder, or a detector that cannot be loaded.
    """
    name = config.extract.entities
    finder, facts = choose(FINDERS, name, "extract.entities")(config, mesh, masks)
    return finder, {"by": name, **facts}


def _log_summary(config: ConfigDict, writer: StoreWriter, encoders: Encoders) -> None:
    """Log the splits, encoders and entities, and the number of existing shards."""
    facts = writer.facts
    sizes = ", ".join(f"{n} of {name}" for name, n in facts["splits"].items())
    logs.say(f"features of {sizes}; preset {config.preset}")
    for name in encoders.names.values():
        logs.say(f"  {name}")
    if any("RANDOM" in name for name in encoders.names.values()):
        logs.say(
            "  a random encoder has learnt nothing: --config.extract.run=RUN takes "
            "those of a finished run"
        )
    most = facts["columns"]["where"][1][0]
    logs.say(f"  entities: {config.extract.entities}, at most {most} per meme")
    existing = writer.count - len(writer.missing())
    if existing:
        logs.say(f"  {existing} of {writer.count} shards exist already")
