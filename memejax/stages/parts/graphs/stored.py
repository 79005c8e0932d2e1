"""Networks on one graph per meme: from a config and stored features to a stage.

Features are in device memory, with every meme's graph in a static slot: a batch is
gathered inside the compiled step, and a stretch of the plan is one call. The networks
are too small to benefit from a second device.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import datasets, feeders, graphs, steps
from memejax.data import plans
from memejax.graphs.stacked import stack
from memejax.stage import Stage
from memejax.stages.parts.features import extraction_of, facts_of
from memejax.stages.parts.graphs import pictures
from memejax.stages.parts.graphs.networks import stored_network
from memejax.stages.parts.graphs.supervised import open_features, supervised


def load(config: ConfigDict) -> datasets.Data:
    """Load stored features as `Data`, with a column of graphs per split.

    Raises:
        ValueError: see `open_features`; if a feature is not finite; for relations that
            its memes cannot have.
    """
    store = open_features(config)
    c = config.graph
    splits = {}
    for name, split in store.splits.items():
        column = stack(
            split.features,
            relations=tuple(c.relations),
            overlap=c.overlap,
            similar=c.similar,
        )
        source: Any = {"graph": column, "label": np.asarray(split.labels, np.int32)}
        splits[name] = datasets.Split(name, source, split.ids, source["label"])
    widths = graphs.widths(store.splits["train"].features)
    facts = facts_of(config, store, widths=widths)
    facts["extraction"] = extraction_of(store)
    return datasets.Data(splits, config.data.dev, 0, facts)


def make(config: ConfigDict, data: datasets.Data, *, seed: int, mesh: Mesh) -> Stage:
    """Make supervised training of a network on the memes' graphs.

    Args:
        config: the run's config; uses the section `graph`.
        data: from `load`.
        seed: seeds parameters, order and dropout.
        mesh: of one device.

    Raises:
        ValueError: see `stored_network` and `supervised`.
    """
    c, train = config.graph, data.splits["train"]
    column: Any = train.source["graph"]
    training = supervised(
        config,
        train,
        net=stored_network(config, tuple(data.facts["widths"])),
        example=column[np.arange(2) % len(column)],
        # Every other graph is padding.
        memes=slice(None, None, 2),
        seed=seed,
        mesh=mesh,
    )
    many = steps.gather_steps(training.step)

    def run_chunk(state: Any, chunk: Mapping[str, Any]) -> Any:
        # The plan has an axis of seeds, here of length 1.
        rows = jax.tree.map(lambda x: x[0], chunk["rows"])
        return many(state, rows, chunk["data"])

    def explain(variables: Any, proba: np.ndarray) -> dict[str, bytes]:
        drawn = pictures.draw(config, variables, proba=proba)
        return {} if drawn is None else {pictures.FILE: drawn}

    return Stage(
        init=training.init,
        abstract=training.abstract,
        run_chunk=jax.jit(run_chunk, donate_argnums=0),
        feeder=feeders.ArrayFeeder(
            train.source,
            plans.stacked([training.plan]),
            mesh=mesh,
            marks=(c.eval_every, config.checkpoint.every, config.log.every),
        ),
        scoring=functools.partial(feeders.one_pass, mesh=mesh, batch=c.batch),
        predict=jax.jit(
            steps.make_predict(
                training.apply_fn,
                views=lambda _, batch, **__: batch["data"]["graph"][batch["index"]],
            )
        ),
        explain=explain,
        eval_every=c.eval_every,
        patience=c.patience,
        groups=training.groups,
    )
