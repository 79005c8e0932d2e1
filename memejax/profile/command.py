"""Profiling of one stage of an experiment, on its data and devices."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from memejax import folder, logs
from memejax.profile import files, runner
from memejax.stage import Stage
from memejax.stages import STAGES
from memejax.stages.parts.pretrained import adopt


def run(
    config: ConfigDict,
    out: str | os.PathLike[str],
    *,
    stage: str | None = None,
    steps: int = 5,
) -> runner.Profile:
    """Profile the steps of a stage, and write traces and tables.

    The stage starts as in a run, from scratch or from the checkpoints named in the
    config; no run's folder is read or written. Curricula are ignored: they determine
    which examples are used, not the cost of a step.

    Args:
        config: config of an experiment.
        out: output folder of `cold/` and `warm/` (for TensorBoard), profile.md, .csv
            and .json, and built-in memes in `data/`.
        stage: one of the config's trained stages; the first if None.
        steps: number of steps in the traced window.

    Raises:
        ValueError: if the config has no such stage, or steps is less than 1.
    """
    trained = [name for name in config.stages if STAGES[name].make is not None]
    if stage is None and trained:
        stage = trained[0]
    if stage is None or stage not in trained:
        raise ValueError(
            f"got stage {stage!r}, expected one of the config's: {trained}"
        )
    if steps < 1:
        raise ValueError(f"got steps={steps}, expected at least 1")
    path = pathlib.Path(out).absolute()
    path.mkdir(parents=True, exist_ok=True)
    config = adopt(config)
    made, dtype = _make(config, stage, path), config.model.dtype
    logs.say(f"{config.name}, preset {config.preset}: compiling the step of {stage}")
    profile = runner.measure(
        made.run_chunk,
        made.init(),
        chunks=_endless(made.feeder),
        folder=path,
        steps=steps,
        dtype=dtype,
    )
    written = files.write(
        profile,
        path,
        title=f"Profile of {config.name}, preset {config.preset}, stage {stage}",
        facts=_environment(made.feeder.plan.batch, dtype),
    )
    # The long tables are only in the file.
    logs.say(written[0].read_text("utf-8").partition("## By operation")[0])
    logs.say("\n".join(str(file) for file in written))
    logs.say(f"the traces, with the extra [profile]: tensorboard --logdir={path}")
    return profile


def _make(config: ConfigDict, name: str, path: pathlib.Path) -> Stage:
    """Make a stage on its data and devices, as the first of a run."""
    kind = STAGES[name]
    if kind.make is None:
        raise ValueError(f"the stage {name} trains nothing")
    (path / "data").mkdir(exist_ok=True)
    data, mesh = kind.load(config, path / "data"), kind.devices(config)
    return kind.make(config, data, seed=config.seed, mesh=mesh)


def _endless(feeder: Any) -> Iterator[tuple[int, Any]]:
    """Repeat a feeder's chunks: a demo may have fewer than a profile takes."""
    while True:
        yield from feeder.chunks(0)


def _environment(batch: int, dtype: str) -> dict[str, Any]:
    environment = folder.environment()
    names = ("memejax", "jax", "jaxlib", "flax")
    return {
        "batch": batch,
        "dtype": dtype,
        "devices": ", ".join(environment["devices"]),
        "cores": environment["cores"],
        "versions": ", ".join(
            f"{name} {environment['packages'][name]}" for name in names
        ),
    }
