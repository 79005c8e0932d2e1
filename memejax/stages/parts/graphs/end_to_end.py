"""Networks on one graph per meme, trained jointly with their encoders.

A batch has the memes' pictures in their own sizes, their tokens, and the entities of
the feature store: boxes (and masks, if entities were cut out along them). Entities are
cut out inside the step and encoded with the picture in one pass, so that initially
every node has its stored features. Boxes, and edges chosen by features ("similar"),
stay as stored; nothing is augmented, because boxes would have to follow.

A step costs 1 + k times the fine-tuning of the image encoder in time and memory, where
k is the store's maximum number of entities per meme: ten entities of ResNet-50 at 224
pixels are 11 x 24.5 GFLOP per meme, and a batch of 16 takes the memory of 176 pictures.
`graph.trained.accumulate` splits a batch into parts; keep `graph.batch` small.
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
    config: ConfigDict,
    encoder_config: ConfigDict,
    *,
    vocabulary: int,
    widths: tuple[int, ...],
) -> EncodedMemeNet:
    """Make the network `config.graph.network` on top of its encoders.

    Args:
        config: the run's config.
        encoder_config: from `encoders_config`.
        vocabulary: number of tokens.
        widths: feature width of each kind of node.

    Raises:
        ValueError: see `stored_network`.
    """
    net = stored_network(config, widths)
    (arm,) = fusion_arms(encoder_config, vocabulary).arms.values()
    return EncodedMemeNet(
        image_encoder=arm.image_encoder,
        text_encoder=arm.text_encoder,
        encoder=net.encoder,
        head=net.head,
        text_pooling=arm.text_pooling,
    )


def make_views(encoder_config: ConfigDict) -> Callable[..., dict[str, Any]]:
    """Make `views(key, batch, train=)`, the network's inputs, without augmentation.

    Args:
        encoder_config: from `encoders_config`.
    """
    (arm,), size = encoder_config.arms, encoder_config.data.image_size
    scale = normalization(encoder_config, arm)

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
    """Make the optimizer of `config.graph`, with an additional group `encoders`.

    Its rate is `graph.trained.encoder_lr`; if that is None, the config's own groups
    have to cover the encoders.

    Args:
        config: the run's config.
        params: of the network.
        total: updates of the stage.

    Raises:
        ValueError: see `optimizer`.
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
        config: the run's config; uses the section `graph`, and `extract.run` and
            `weights` for the encoders.
        data: from `load`.
        seed: seeds the graph network's parameters, order and dropout.
        mesh: devices that batches are split over.

    Raises:
        ValueError: see `end_to_end_network`, `start_encoders` and the optimizer; if the
            training memes lack one of the labels; for a batch that cannot be split
            evenly over the devices.
    """
    c, train = config.graph, data.splits["train"]
    if not train.labelled:
        raise ValueError("a graph network needs training memes of both labels")
    parallel.check_batch(mesh, c.batch)
    encoder_config, _ = encoders_config(config, open_features(config))
    widths = tuple(data.facts["widths"])
    net = end_to_end_network(
        config, encoder_config, vocabulary=data.vocabulary, widths=widths
    )
    views = make_views(encoder_config)
    key = functools.partial(training.key_of, seed, 2)
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
    start = training.make_init(
        variables,
        lambda variables: steps.init_state(
            variables, tx, key=jax.random.fold_in(key(), 1)
        ),
        shapes=shapes,
        mesh=mesh,
        replace=functools.partial(start_encoders, config, encoder_config),
    )
    return Stage(
        init=start.init,
        compile_init=start.compile_init,
        abstract=start.abstract,
        run_chunk=parallel.jit_step(step, mesh),
        feeder=training.stream(config, train, plan, mesh),
        scoring=training.scoring(config, mesh, batch=c.batch),
        predict=parallel.jit_predict(steps.make_predict(apply_fn, views=views), mesh),
        eval_every=c.eval_every,
        patience=c.patience,
        groups=groups,
    )
