"""Figure 4: operations of one forward pass of multimodal CASS, cold and warm."""

from __future__ import annotations

import functools
import itertools
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from memejax import datasets, logs, parallel
from memejax.bench import pretraining
from memejax.profile import runner
from memejax.profile import table as profile_table
from memejax.reproduce.performance import published
from memejax.reproduce.performance.parts import Measured, clock, machine, share
from memejax.stages.parts import training
from memejax.stages.parts.models import fusion_arms
from memejax.stages.parts.variables import random_variables
from memejax.stages.parts.views import make_views, random_views

BATCH = 4
COLUMNS = (
    "class of operation",
    "calls",
    "GFLOP",
    "share of FLOPs",
    "share of time, cold",
    "share of time, warm",
    "published share of FLOPs",
    "published share of time (cold)",
)


def measure(preset: str, *, steps: int = 5) -> dict[str, Any]:
    """Profile the forward pass of both arms on a batch of 4, on one device.

    Args:
        preset: "demo" (small models), "full" (bfloat16) or "paper".
        steps: traced warm passes.

    Returns:
        JSON: seconds of a cold and a warm pass, of compiling, and for each class of
        operations its calls, FLOPs and seconds in both.
    """
    size = "tiny" if preset == "demo" else "paper"
    config = pretraining.cass(size, batch=BATCH, steps=1, memes=16)
    if preset == "full":
        config.model.dtype = "bfloat16"
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        data = datasets.load(config, folder)
        train, mesh = data.splits["train"], parallel.mesh(1)
        arms = fusion_arms(config, data.vocabulary)
        views = make_views(config, random_views(config.augment), independent=True)
        key = functools.partial(training.key_of, 0, 0)
        variables = jax.jit(
            random_variables(arms, train, views=views, key=key, method="project")
        )()
        ((_, batch), *_) = training.scoring(config, mesh, batch=BATCH)(
            train.take(np.arange(BATCH))
        ).chunks(0, 1)

        def forward(variables: Any, batch: Any) -> tuple[Any, Any]:
            inputs = views(None, batch, train=False)
            outputs = arms.apply(variables, inputs, train=False, method="project")
            return variables, outputs

        logs.say(f"figure4: profiling a forward pass of {BATCH} memes, cold and warm")
        profile = runner.measure(
            jax.jit(forward),
            variables,
            chunks=itertools.repeat((1, batch)),
            folder=folder / "profile",
            steps=steps,
            dtype=config.model.dtype,
        )
    return _figures(preset, profile)


def _figures(preset: str, profile: runner.Profile) -> dict[str, Any]:
    windows = {"cold": profile.cold, "warm": profile.warm}
    classes: dict[str, dict[str, Any]] = {}
    for name, window in windows.items():
        if window is None:
            raise ValueError("the first pass was not traced")
        for row in profile_table.by_class(window.rows):
            found = classes.setdefault(
                row.kind, {"calls": row.calls, "flops": row.flops}
            )
            found[name] = row.seconds
    device = jax.local_devices()[0]
    return {
        "preset": preset,
        "batch": BATCH,
        "dtype": profile.dtype,
        "platform": device.platform,
        "device": device.device_kind,
        "compile seconds": profile.compile_seconds,
        "seconds": {n: w.seconds for n, w in windows.items() if w is not None},
        "classes": classes,
    }


def tabulate(figures: Mapping[str, Any]) -> Measured:
    """Make the table of `measure`'s figures."""
    classes = figures["classes"]
    flops = sum(one["flops"] for one in classes.values())
    busy = {
        name: sum(one.get(name, 0.0) for one in classes.values())
        for name in ("cold", "warm")
    }

    def row(name: str, one: Mapping[str, Any]) -> list[str]:
        is_theirs = name == "convolution"
        return [
            name,
            f"{one['calls']:.0f}",
            f"{one['flops'] / 1e9:.4g}",
            share(one["flops"] / flops),
            *(share(one.get(n, 0.0) / busy[n]) for n in ("cold", "warm")),
            share(published.CONVOLUTION_FLOPS) if is_theirs else "-",
            share(published.CONVOLUTION_TIME) if is_theirs else "-",
        ]

    total = [
        "all",
        "",
        f"{flops / 1e9:.4g}",
        *(share(1.0),) * 3,
        *("-",) * 2,
    ]
    seconds = figures["seconds"]
    notes = [
        f"A cold pass took {clock(seconds['cold'])} of wall time, a warm one "
        f"{clock(seconds['warm'])}, compiling {clock(figures['compile seconds'])}. "
        "Cold is the first call of the compiled program.",
        "The published share of time is of one cold call: it has what libraries do "
        "once, such as choosing algorithms for convolutions. Its share of FLOPs is "
        "counted, and does not depend on the machine.",
        "Time: seconds of all operations of a class, summed over threads or streams.",
    ]
    if figures["preset"] == "demo":
        notes.append(
            "Preset demo: small models on small pictures, whose shares are not those "
            "of the paper's networks."
        )
    if figures["platform"] == "cpu":
        notes.append("A CPU's shares of time say nothing about a GPU's.")
    return Measured(
        name="figure4",
        title=published.TITLES["figure4"],
        preset=figures["preset"],
        protocol=(
            f"both arms of multimodal CASS on {figures['batch']} memes in evaluation, "
            f"{figures['dtype']}, one {figures['device']} device"
        ),
        columns=COLUMNS,
        rows=[*(row(name, one) for name, one in classes.items()), total],
        figures=figures,
        machine=machine(),
        notes=notes,
    )
