"""Profilers' times of a training step by class of operation, of both sides.

Ours are joined to modules by `memejax.profile`, the peer's are torch.profiler's self
times. Both are scaled to the wall time of a step without a profiler, as one counts
threads together and the other the calling thread.
"""

from __future__ import annotations

import itertools
import pathlib
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from memejax.bench.train_step import ours
from memejax.profile import runner, table

# In the order of a table.
CLASSES: tuple[str, ...] = (
    "convolution",
    "linear",
    "attention",
    "normalisation",
    "elementwise",
    "optimizer",
    "other",
)
# Beginnings of PyTorch's names, the first that fits.
_PEER = {
    "aten::mkldnn_convolution": "convolution",
    "aten::convolution_backward": "convolution",
    "aten::_conv": "convolution",
    "aten::conv": "convolution",
    "aten::max_pool2d": "other",
    "aten::_scaled_dot_product": "attention",
    "aten::scaled_dot_product": "attention",
    "aten::bmm": "attention",
    "aten::baddbmm": "attention",
    "aten::_softmax": "attention",
    "aten::addmm": "linear",
    "aten::mm": "linear",
    "aten::linear": "linear",
    "aten::native_layer_norm": "normalisation",
    "aten::native_batch_norm": "normalisation",
    "aten::batch_norm": "normalisation",
    "aten::_batch_norm": "normalisation",
    "aten::layer_norm": "normalisation",
    "aten::_fused_adamw_": "optimizer",
    "Optimizer": "optimizer",
    **dict.fromkeys(
        (
            "aten::gelu",
            "aten::relu",
            "aten::threshold",
            "aten::native_dropout",
            "aten::dropout",
            "aten::bernoulli",
            "aten::add",
            "aten::mul",
            "aten::div",
            "aten::sub",
            "aten::clamp",
        ),
        "elementwise",
    ),
}


def peer_class(name: str) -> str:
    """Return the class of one of PyTorch's operations.

    >>> peer_class("aten::native_layer_norm_backward")
    'normalisation'
    """
    return next(
        (kind for start, kind in _PEER.items() if name.startswith(start)), "other"
    )


def our_class(row: table.Row) -> str:
    """Return the class of one of our operations, by its kind and module."""
    module = row.module.lower()
    if row.kind == "convolution":
        return "convolution"
    if "norm" in module.rpartition("/")[2]:
        return "normalisation"
    if module.split("/")[0] == "optimizer":
        return "optimizer"
    last = module.rpartition("/")[2]
    if "attention" in last:
        return "attention"
    if row.kind == "matmul":
        return "linear"
    return row.kind if row.kind in CLASSES else "other"


def scaled(seconds: Iterable[tuple[str, float]], step: float) -> dict[str, float]:
    """Sum seconds by class, and scale them to milliseconds of a step.

    Args:
        seconds: class and seconds.
        step: seconds of a step.
    """
    found: dict[str, float] = dict.fromkeys(CLASSES, 0.0)
    for kind, value in seconds:
        found[kind] += value
    total = sum(found.values())
    return {kind: 1e3 * step * value / total for kind, value in found.items()}


def of_ours(trainer: ours.Trainer, *, steps: int) -> dict[str, float]:
    """Profile our step: class -> milliseconds.

    Args:
        trainer: of the case.
        steps: traced steps.
    """
    step, state, batch = trainer.parts()
    with tempfile.TemporaryDirectory() as folder:
        found = runner.measure(
            step,
            state,
            chunks=itertools.repeat((1, batch)),
            folder=pathlib.Path(folder),
            steps=steps,
        )
    rows = ((our_class(row), row.seconds) for row in found.warm.rows)
    return scaled(rows, found.seconds)


def of_peer(trainer: Any, *, steps: int) -> dict[str, float]:
    """Profile the peer's step: class -> milliseconds.

    Args:
        trainer: a `peer.Trainer`, warmed up.
        steps: traced steps.
    """
    from torch.profiler import ProfilerActivity, profile

    speed = trainer.run(steps)
    with profile(activities=[ProfilerActivity.CPU]) as traced:
        trainer.run(steps)
    rows = (
        (peer_class(event.key), float(event.self_cpu_time_total))
        for event in traced.key_averages()
    )
    return scaled(rows, trainer.batch / speed)


def table_of(figures: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return milliseconds by class as rows, one column per side."""
    rows = [
        {"class": kind, **{side: f"{ms[kind]:.1f}" for side, ms in figures.items()}}
        for kind in CLASSES
    ]
    total = {side: f"{sum(ms.values()):.1f}" for side, ms in figures.items()}
    return [*rows, {"class": "step", **total}]
