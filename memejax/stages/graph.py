"""The stage "graph": a network on graphs of memes with stored features."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import datasets, frozen, parallel
from memejax.stage import Stage
from memejax.stages.context import Context, Ended
from memejax.stages.finetune import check_dev, supervised
from memejax.stages.parts import training
from memejax.stages.parts.choices import choose
from memejax.stages.parts.graphs import end_to_end, hetero, stored
from memejax.stages.parts.graphs.supervised import graph_updates

NAME = "graph"


def _one_device(_: ConfigDict) -> Mesh:
    """Networks on stored features are too small to benefit from a second device."""
    return parallel.mesh(1)


class GraphKind(NamedTuple):
    """A kind of graph.

    Attributes:
        load: config -> splits whose source has the column `graph`.
        make: `(config, data, *, seed, mesh)` -> the stage.
        leaves: of the section `graph`, needed by this kind but not by all others.
        devices: config -> the mesh that a batch is split over.
    """

    load: Callable[[ConfigDict], datasets.Data]
    make: Callable[..., Stage]
    leaves: frozenset[str]
    devices: Callable[[ConfigDict], Mesh] = _one_device


GRAPHS = {
    "stored": GraphKind(stored.load, stored.make, frozenset({"relations", "readout"})),
    "trained": GraphKind(
        end_to_end.load,
        end_to_end.make,
        frozenset({"relations", "readout", "trained"}),
        # Encoders are not.
        devices=training.devices,
    ),
    "hetero": GraphKind(hetero.load, hetero.make, frozenset({"hetero"})),
}


def load(config: ConfigDict, folder: pathlib.Path) -> datasets.Data:
    """Load stored features as `Data`; nothing is written to the folder.

    Raises:
        ValueError: for an unknown kind of graph, or from that kind's `load`.
    """
    del folder
    return _kind(config).load(config)


def about(config: ConfigDict) -> str:
    """Return the network and its features in words."""
    return f"{config.graph.network} on the features in {config.features}"


def devices(config: ConfigDict) -> Mesh:
    """Return the devices of the kind of graph."""
    return _kind(config).devices(config)


def make(config: ConfigDict, data: datasets.Data, *, seed: int, mesh: Mesh) -> Stage:
    """Make supervised training of a network on graphs of memes.

    Args:
        config: the run's config; uses the section `graph`.
        data: from `load`.
        seed: seeds parameters, order, dropout and sampling.
        mesh: from `devices`.

    Raises:
        ValueError: for an unknown kind of graph, or from that kind's `make`; if the
            training memes lack one of the labels.
    """
    return _kind(config).make(config, data, seed=seed, mesh=mesh)


def check(
    config: ConfigDict, data: datasets.Data, *, mesh: Mesh, before: Stage | None
) -> Stage:
    """Build the stage and trace its first step, before a run's folder is claimed.

    Raises:
        ValueError: as `make` does; if the dev split lacks one of the labels.
    """
    del before
    check_dev(data)
    stage = make(config, data, seed=config.seed, mesh=mesh)
    stage.trace()
    return stage


def updates(config: ConfigDict, data: datasets.Data) -> dict[str, int]:
    """Return the planned updates."""
    return {NAME: graph_updates(config.graph, data.splits["train"])}


def run(context: Context, before: Ended | None) -> Ended:
    """Train the network, unless already done."""
    del before  # The first stage of a run.
    if context.seed == context.config.seed:
        # To score new memes with.
        frozen.link(pathlib.Path(context.config.features), context.folder.parent)

    @functools.cache
    def stage() -> Stage:
        return context.checked(NAME) or make(
            context.config, context.data, seed=context.seed, mesh=context.mesh
        )

    return supervised(context, NAME, stage)


def _kind(config: ConfigDict) -> GraphKind:
    c = config.graph
    kind = choose(GRAPHS, c.kind, "graph.kind")
    if not kind.leaves <= set(c):
        raise ValueError(
            f"graph.kind={c.kind!r} is switched on after the colon: "
            f"--config=configs/graph.py:{config.preset},kind={c.kind}"
        )
    return kind
