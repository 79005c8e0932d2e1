"""Networks on one graph a meme whose encoders are trained along.

A batch has the memes' pictures in their own sizes, their tokens, and what a feature
store says of their entities: boxes (and masks, where entities were cut out along
them). Entities are cut out inside of the step and encoded with the picture in one
pass, so that at the start every node has the features that the store has. Boxes, and
edges that were chosen by features ("similar"), stay as they are stored; nothing is
augmented, as boxes would have to follow.

A step costs 1 + k times the fine-tuning of the image encoder, k the most entities that
the store has a meme, in time and in memory: ten entities of ResNet-50 at 224 pixels are
11 x 24.5 GFLOP a meme, and take a batch of 16 to the memory of 176 pictures.
`graph.trained.accumulate` works on a batch in parts; `graph.batch` is best small.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import optax
from flax import traverse_util
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import augment, datasets, parallel, steps
from memejax.graphs.stacked import MemeGraphs
from memejax.models import crops
from memejax.models.gnn.end_to_end import EncodedMemeNet
from memejax.stage import Stage
from memejax.stages.parts import training
from memejax.stages.parts.encoders import encoders_config, start_encoders
from memejax.stages.parts.graphs.end_to_end_data import SLOT
from memejax.stages.parts.graphs.end_to_end_data import load as load
from memejax.stages.parts.graphs.networks import stored_network
from memejax.stages.parts.graphs.supervised import (
    as_arm,
    graph_plan,
    open_features,
)
from memejax.stages.parts.models import fusion_arms, normalization
from memejax.stages.parts.optimizers import optimizer
from memejax.stages.parts.variables import random_variables


def end_to_end_network(
    config: ConfigDict, theirs: ConfigDict, *, vocabulary: int, widths: tuple[int, ...]
) -> EncodedMemeNet:
    """The network that `config.graph` names, on encoders.

    Args:
        config: a run's.
        theirs: the encoders', as `encoders_config` gives it.
        vocabulary: number of tokens.
        widths: of the features of each kind of node.

    Raises:
        ValueError: as `stored_network` does.
    """
    net = stored_network(config, widths)
    (arm,) = fusion_arms(theirs, vocabulary).arms.values()
    return EncodedMemeNet(
        image_encoder=arm.image_encoder,
        text_encoder=arm.text_encoder,
        encoder=net.encoder,
        head=net.head,
        text_pooling=arm.text_pooling,
    )


def make_views(theirs: ConfigDict) -> Callable[..., dict[str, Any]]:
    """What the network takes of a batch: `views(key, batch, train=)`, nothing random.

    Args:
        theirs: the encoders', as `encoders_config` gives it.
    """
    (arm,), size = theirs.arms, theirs.data.image_size
    scale = normalization(theirs, arm)

    def views(
        _: Any, batch: Mapping[str, jax.Array], *, train: bool, step_key: Any = None
    ) -> dict[str, Any]:
        parts = crops.cut_boxes(batch["picture"], batch["box"], size=size)
        if "mask" in batch:
            masked = crops.cut_masks(
                parts[:, 0], batch["mask"], spans_bk4=batch["span"]
            )
            parts = jnp.concatenate([parts, masked], axis=1)
        flat = {
            name.removeprefix(SLOT): column
            for name, column in batch.items()
            if name.startswith(SLOT)
        }
        slots: Any = traverse_util.unflatten_dict(flat, sep="/")
        memes = jnp.arange(len(batch["where"]))
        return {
            "image": augment.normalize(
                augment.to_float(parts.astype(jnp.uint8)), **scale
            ),
            "graph": MemeGraphs(jraph.GraphsTuple(**slots))[memes],
            **{k: batch[k] for k in ("where", "input_ids", "attention_mask")},
        }

    return views


def end_to_end_optimizer(
    config: ConfigDict, params: Any, *, total: int
) -> tuple[optax.GradientTransformationExtraArgs, Callable[..., Any], Any]:
    """The optimizer of `config.graph`, with the encoders as one group more, `encoders`.

    Their rate is `graph.trained.encoder_lr`; where that is None, the groups that the
    config names have to cover them.

    Args:
        config: a run's.
        params: of the network.
        total: updates of the stage.

    Raises:
        ValueError: as `optimizer` does.
    """
    c = config.graph
    section = copy.deepcopy(c.optimizer).unlock()
    if c.trained.encoder_lr is not None:
        section.groups.encoders = dict(
            pattern="(image|text)_encoder/.*", lr=c.trained.encoder_lr
        )
    return optimizer(section, params=params, total=total)


def make(config: ConfigDict, data: datasets.Data, *, seed: int, mesh: Mesh) -> Stage:
    """Make supervised training of a network on the memes' graphs and of its encoders.

    Args:
        config: a run's; `graph` is the section, `extract.run` and `weights` say which
            encoders.
        data: as `load` gives it.
        seed: of the graph network's parameters, of order and dropout.
        mesh: over which batches are split.

    Raises:
        ValueError: as `end_to_end_network`, `start_encoders` and the optimizer do; if
            there is nothing of one label to train on; for a batch that the devices
            cannot share.
    """
    c, train = config.graph, data.splits["train"]
    if not train.labelled:
        raise ValueError("a graph network needs training memes of both labels")
    parallel.check_batch(mesh, c.batch)
    theirs, _ = encoders_config(config, open_features(config))
    widths = tuple(data.facts["widths"])
    net = end_to_end_network(config, theirs, vocabulary=data.vocabulary, widths=widths)
    views, key = make_views(theirs), functools.partial(training.key_of, seed, 2)
    variables = random_variables(net, train, views=views, key=key, method="__call__")
    shapes = jax.eval_shape(variables)
    plan = graph_plan(c, train, seed=seed)
    tx, rates, groups = end_to_end_optimizer(config, shapes["params"], total=len(plan))
    # Every other graph is padding.
    apply_fn = as_arm(net, c.network, slice(None, None, 2))
    step = steps.make_supervised_step(
        apply_fn,
        tx,
        views=views,
        positive_weight=training.positive_weight(train, balance=c.balance),
        accumulate=c.trained.accumulate,
        learning_rates=rates,
    )
    abstract, init = training.starting(
        variables,
        lambda variables: steps.init_state(
            variables, tx, key=jax.random.fold_in(key(), 1)
        ),
        shapes=shapes,
        mesh=mesh,
        replace=functools.partial(start_encoders, config, theirs),
    )
    return Stage(
        init=init,
        abstract=abstract,
        run_chunk=parallel.jit_step(step, mesh),
        feeder=training.stream(config, train, plan, mesh),
        scoring=training.scoring(config, mesh, batch=c.batch),
        predict=parallel.jit_predict(steps.make_predict(apply_fn, views=views), mesh),
        eval_every=c.eval_every,
        patience=c.patience,
        groups=groups,
    )
