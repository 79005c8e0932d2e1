"""A classifier's logit as a function that has gradients: of pixels, words, maps.

Beside `meme_scorer`, whose probability it is the logit of. Shape suffixes: `b` memes,
`s` side of a picture, `t` tokens, `d` features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from memejax import augment
from memejax.explain.grad_cam import cam_of_gradient
from memejax.explain.nearest import unit_rows
from memejax.metrics import AVERAGE
from memejax.models.encoders import Encoder
from memejax.stages.parts.heads.kinds import HEADS
from memejax.stages.parts.heads.scores import make_scores
from memejax.stages.parts.models import arm_names, fusion_arms, normalization

Tree = Any
# Path of a table of word embeddings in a run's variables.
TablePath = tuple[str, ...]
# `(variables, pixels [b, s, s, 3] in [0, 1], input_ids, attention_mask) -> [b]`
LogitFn = Callable[[Tree, jax.Array, jax.Array, jax.Array], jax.Array]


def make_logit(config: ConfigDict, vocabulary: int, *, arm: str = AVERAGE) -> LogitFn:
    """Make `(variables, pixels, input_ids, attention_mask) -> logit [b]`, pure.

        y_arm, or ln(p / (1 - p)) of the mean p of sigmoid(y_arm) over the arms

    Args:
        config: the run's config; of a head, that of its `restored.Restored`.
        vocabulary: number of tokens.
        arm: one of the run's arms, or of a head's scores, or "average".
    """
    logits_fn = (_of_head if "heads" in config else _of_arms)(config, vocabulary)

    def logit(
        variables: Tree, pixels: jax.Array, input_ids: jax.Array, mask: jax.Array
    ) -> jax.Array:
        batch = dict(pixels=pixels, input_ids=input_ids, attention_mask=mask)
        found = logits_fn(variables, batch)
        if arm != AVERAGE:
            return found[arm].astype(jnp.float32)
        stacked = jnp.stack(list(found.values())).astype(jnp.float32)
        # The number of arms cancels.
        positive, negative = jax.nn.log_sigmoid(stacked), jax.nn.log_sigmoid(-stacked)
        total = jax.nn.logsumexp
        return total(positive, axis=0) - total(negative, axis=0)

    return logit


def make_features(config: ConfigDict, vocabulary: int) -> Callable[..., jax.Array]:
    """Make `(variables, pixels, input_ids, attention_mask) -> features [b, d]`, pure.

    Those of each arm before its classifier, or of both encoders behind a head, one
    after the other, each divided by its length.
    """
    parts_fn = (_columns if "heads" in config else _embeddings)(config, vocabulary)

    def features(
        variables: Tree, pixels: jax.Array, input_ids: jax.Array, mask: jax.Array
    ) -> jax.Array:
        batch = dict(pixels=pixels, input_ids=input_ids, attention_mask=mask)
        return joined(list(parts_fn(variables, batch).values()))

    return features


def joined(parts: list[jax.Array]) -> jax.Array:
    """Join features `[b, d]` of several kinds, each divided by its length."""
    return jnp.concatenate([unit_rows(part) for part in parts], axis=1)


def _views(config: ConfigDict, batch: Mapping[str, jax.Array]) -> dict[str, Any]:
    """Return each arm's inputs, without augmentation."""
    captions = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return {
        name: {
            "image": augment.normalize(batch["pixels"], **normalization(config, name)),
            **captions,
        }
        for name in arm_names(config)
    }


def _of_arms(config: ConfigDict, vocabulary: int) -> Callable[..., dict[str, Any]]:
    arms = fusion_arms(config, vocabulary)
    return lambda variables, batch: arms.apply(
        variables, _views(config, batch), train=False, method="classify"
    )


def _embeddings(config: ConfigDict, vocabulary: int) -> Callable[..., dict[str, Any]]:
    arms = fusion_arms(config, vocabulary)
    return lambda variables, batch: arms.apply(
        variables, _views(config, batch), train=False, method="embeddings"
    )


def _columns(config: ConfigDict, vocabulary: int) -> Callable[..., dict[str, Any]]:
    # Here, as the extraction uses other parts of the stages.
    from memejax.extract.encoders import encoder_functions

    image_fn, text_fn = encoder_functions(config, vocabulary)
    kind = HEADS[config.heads.head]
    column = "shared" if kind.image == "image_shared" else "pooled"

    def columns(variables: Tree, batch: Mapping[str, jax.Array]) -> dict[str, Any]:
        encoders = variables["encoders"]
        return {
            "image": image_fn(encoders["image_encoder"], batch)[column],
            "text": text_fn(encoders["text_encoder"], batch)["pooled"],
        }

    return columns


def _of_head(config: ConfigDict, vocabulary: int) -> Callable[..., dict[str, Any]]:
    columns, scores = _columns(config, vocabulary), make_scores(config.heads)
    return lambda variables, batch: scores(variables["head"], columns(variables, batch))


def word_tables(variables: Tree) -> dict[TablePath, jax.Array]:
    """Return the tables of word embeddings, `[vocabulary, d]`, of all text encoders."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    paths = {tuple(str(key.key) for key in path): leaf for path, leaf in leaves}
    return {
        path: leaf
        for path, leaf in paths.items()
        if path[-1] == "words" and "text_encoder" in path
    }


def make_embedded_logit(
    config: ConfigDict, *, arm: str = AVERAGE, tokens: int
) -> Callable[..., jax.Array]:
    """Make a logit that is a function of the embeddings of words, pure.

    `(variables, pixels, {table: embeddings [b, t, d]}, attention_mask) -> [b]`, with
    the tables of `word_tables`. Each token gets a row of its own in a table of b t rows
    and the number of that row as its id, so that encoders are as they are.

    Args:
        config: as for `make_logit`.
        arm: likewise.
        tokens: b t.
    """
    config = config.copy_and_resolve_references().unlock()
    config.model.text.vocab_size = tokens
    logit = make_logit(config.lock(), tokens, arm=arm)

    def embedded(
        variables: Tree,
        pixels: jax.Array,
        embeddings: Mapping[TablePath, jax.Array],
        mask: jax.Array,
    ) -> jax.Array:
        rows = {path: x.reshape(-1, x.shape[-1]) for path, x in embeddings.items()}
        ids = jnp.arange(tokens, dtype=jnp.int32).reshape(mask.shape)
        return logit(_replaced(variables, rows), pixels, ids, mask)

    return embedded


def _replaced(variables: Tree, leaves: Mapping[TablePath, jax.Array]) -> Tree:
    """Return the variables with other leaves at some paths."""

    def choose(path: Any, leaf: Any) -> Any:
        return leaves.get(tuple(str(key.key) for key in path), leaf)

    return jax.tree_util.tree_map_with_path(choose, variables)


@contextlib.contextmanager
def same_inputs(kind: type[Encoder]) -> Iterator[None]:
    """Encode one row for a whole batch, where all rows of its inputs are the same.

    Args:
        kind: `ImageEncoder` for one picture with many captions, `TextEncoder` for one
            caption with many pictures.
    """

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if not isinstance(context.module, kind) or context.method_name != "__call__":
            return call(*args, **kwargs)
        found = call(*(x[:1] for x in args), **kwargs)
        return jnp.broadcast_to(found, (len(args[0]), *found.shape[1:]))

    with nn.intercept_methods(intercept):
        yield


def make_grad_cam(
    config: ConfigDict, vocabulary: int, *, arm: str = AVERAGE
) -> Callable[..., dict[str, jax.Array]]:
    """Make `(variables, pixels, ids, mask, sign) -> {arm: map [b, h, w]}`, pure.

    Grad-CAM of the logit times `sign` `[b]` by the last feature map of each image
    encoder that has one; of transformers there is none.
    """
    logit = make_logit(config, vocabulary, arm=arm)

    def cams(
        variables: Tree,
        pixels: jax.Array,
        input_ids: jax.Array,
        mask: jax.Array,
        sign: jax.Array,
    ) -> dict[str, jax.Array]:
        def scored(moved: Mapping[str, jax.Array]) -> tuple[jax.Array, Any]:
            maps: dict[str, jax.Array] = {}
            with nn.intercept_methods(_moving(moved, maps)):
                score = logit(variables, pixels, input_ids, mask) * sign
            return score.sum(), maps

        _, maps = jax.eval_shape(scored, {})
        zeros = {name: jnp.zeros(x.shape, x.dtype) for name, x in maps.items()}
        slopes, maps = jax.grad(scored, has_aux=True)(zeros)
        return {name: cam_of_gradient(maps[name], slopes[name]) for name in maps}

    return cams


def _moving(
    moved: Mapping[str, jax.Array], maps: dict[str, jax.Array]
) -> Callable[..., Any]:
    """Intercept `feature_maps`: keep each encoder's last map, and add to it."""

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        found = call(*args, **kwargs)
        if context.method_name != "feature_maps":
            return found
        # The arm of an encoder, `arms_cnn`; of a head's encoder there is one.
        name = next(iter(context.module.path), "image").removeprefix("arms_")
        maps[name] = found[-1]
        return [*found[:-1], found[-1] + moved.get(name, 0)]

    return intercept
