"""Meanings of the names that a config uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from memejax import parallel

# Sections of a config that do not change what is computed: a run may be resumed with
# other values for them. Every other leaf is part of the run's identity.
RUNTIME = ("checkpoint", "log", "parallel", "pipeline", "profile", "report")

# Mean and standard deviation per channel, as used to train common checkpoints.
NORMALIZATIONS = {
    "imagenet": dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "half": dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "none": dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
}
# For checkpoints without a normalisation of their own.
NORMALIZATIONS["checkpoint"] = NORMALIZATIONS["imagenet"]
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# Ways to compile a step for several devices: on the whole batch, or on a part of it.
STEPS = {"jit": parallel.jit_step, "pmap": parallel.pmap_step}


def choose(options: Mapping[str, Any], name: str, what: str) -> Any:
    """Return `options[name]`, or raise a ValueError that lists the options."""
    if name not in options:
        raise ValueError(f"unknown {what} {name!r}: choose one of {sorted(options)}")
    return options[name]


def check_parallel(section: ConfigDict, *, seeds: bool = False) -> None:
    """Raise ValueError if the settings of the section `parallel` conflict.

    Args:
        section: `parallel` of a config.
        seeds: whether seeds, instead of a batch, are split over the devices.
    """
    choose(STEPS, section.mode, "parallel.mode")
    if section.mode == "jit":
        return
    if seeds:
        raise ValueError(
            f"parallel.mode={section.mode!r} splits a batch over the devices, and here "
            "the seeds are split over them: choose parallel.mode='jit'"
        )
    if section.shard_parameters:
        raise ValueError(
            f"parallel.mode={section.mode!r} keeps the whole state on every device: "
            "parallel.shard_parameters=True needs parallel.mode='jit'"
        )
