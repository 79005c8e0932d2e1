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
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import optax
from flax import traverse_util
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import augment, dataset, feeders, parallel, steps
from memejax.build.along_data import SLOT
from memejax.build.along_data import along_data as along_data
from memejax.build.encoders import encoders_config, start_encoders
from memejax.build.graph_parts import open_features
from memejax.build.modules import fusion_arms, normalization
from memejax.build.optimizers import optimizer
from memejax.build.stages import Stage, key_of, stream
from memejax.build.stored import stored_network
from memejax.build.variables import init_variables
from memejax.data import plans
from memejax.graphs.stacked import MemeGraphs
from memejax.models import crops
from memejax.models.gnn.along import EncodedMemeNet


def along_network(
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


def make_along_views(theirs: ConfigDict) -> Callable[..., dict[str, Any]]:
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


def along_optimizer(
    config: ConfigDict, params: Any, *, total: int
) -> tuple[optax.GradientTransformationExtraArgs, Callable[..., Any]]:
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


def along_stage(
    config: ConfigDict, data: dataset.Data, *, seed: int, mesh: Mesh
) -> Stage:
    """Supervised training of a network on the memes' graphs and of its encoders.

    Args:
      config: a run's; `graph` is the section, `extract.run` and `weights` say which
        encoders.
      data: as `along_data` gives it.
      seed: of the graph network's parameters, of order and dropout.
      mesh: over which batches are split.

    Raises:
      ValueError: as `along_network`, `start_encoders` and the optimizer do; if there is
        nothing of one label to train on; for a batch that the devices cannot share.
    """
    c, train = config.graph, data.splits["train"]
    if not train.labelled:
        raise ValueError("a graph network needs training memes of both labels")
    parallel.check_batch(mesh, c.batch)
    theirs, _ = encoders_config(config, open_features(config))
    widths = tuple(data.facts["widths"])
    net = along_network(config, theirs, vocabulary=data.vocabulary, widths=widths)
    views, key = make_along_views(theirs), key_of(seed, 2)
    variables = init_variables(net, train, views=views, key=key, method="__call__")
    variables = start_encoders(config, theirs, variables)
    n = len(train.ids)
    total = max(1, round(c.epochs * n / c.batch))
    plan = plans.shuffled(n, batch=c.batch, steps=total, seed=2 * seed + 1)
    tx, rates = along_optimizer(config, variables["params"], total=total)
    positives = float(np.mean(train.labels == 1))
    apply_fn = _arm(net, c.network)
    step = steps.make_supervised_step(
        apply_fn,
        tx,
        views=views,
        positive_weight=(1 - positives) / positives if c.balance else 1.0,
        accumulate=c.trained.accumulate,
        learning_rates=rates,
    )
    state = steps.init_state(variables, tx, key=jax.random.fold_in(key, 1))
    return Stage(
        state=parallel.put_state(mesh, state),
        run_chunk=parallel.jit_step(step, mesh),
        feeder=stream(config, train, plan, mesh),
        embed=lambda *_: {},
        predict=parallel.jit_predict(steps.make_predict(apply_fn, views=views), mesh),
        eval_every=c.eval_every,
        patience=c.patience,
    )


def along_feeder(
    config: ConfigDict, split: dataset.Split, mesh: Mesh
) -> feeders.Feeder:
    """One pass over a split in order, as the stage's `predict` takes it."""
    plan = plans.sequential(len(split.ids), batch=config.graph.batch)
    return stream(config, split, plan, mesh)


def _arm(net: EncodedMemeNet, name: str) -> Callable[..., Any]:
    """`(variables, inputs, train=, ...) -> {name: logits [b]}`, as an arm's."""

    def apply_fn(variables: Any, inputs: Any, *, train: bool, **more: Any) -> Any:
        out = net.apply(variables, inputs, train=train, **more)
        # Every other graph is padding.
        if "mutable" not in more:
            return {name: out[::2]}
        return {name: out[0][::2]}, out[1]

    return apply_fn
