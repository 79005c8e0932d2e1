"""Features of pictures and captions."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from memejax import augment, optim, parallel
from memejax.data import text
from memejax.extract.sources import Source, Variables
from memejax.stages.parts.encoders import described
from memejax.stages.parts.models import arm_names, fusion_arms, normalization

Tree = Any


class Captions(NamedTuple):
    """Features of n captions.

    Attributes:
        pooled: float32 `[n, d]`.
        tokens: float32 `[n, t, d]`, zeros on padding.
        where: bool `[n, t]`, mask of real tokens, special ones included.
    """

    pooled: np.ndarray
    tokens: np.ndarray
    where: np.ndarray


@dataclasses.dataclass(frozen=True)
class Encoders:
    """Functions from pictures and captions to features.

    Attributes:
        image: pictures, uint8 `[n, s, s, 3]` -> float32 `[n, d]`.
        text: n captions -> Captions.
        size: s.
        resize: of a picture to a square, see `images.decode`.
        image_width: number of features of a picture.
        tokens: t and d of the text encoder's outputs.
        parts: JSON, everything the features depend on: "image" and "text".
        names: JSON, readable names of the encoders.
    """

    image: Callable[[np.ndarray], np.ndarray]
    text: Callable[[Sequence[str]], Captions]
    size: int
    resize: str
    image_width: int
    tokens: tuple[int, int]
    parts: Mapping[str, Any]
    names: Mapping[str, str]


def make_encoders(source: Source, *, mesh: Mesh, batch: int) -> Encoders:
    """Compile the encoders of pictures and captions for all devices.

    Args:
        source: the encoders.
        mesh: of the devices that a batch is split over.
        batch: pictures, or captions, per batch.

    Raises:
        ValueError: for a batch that is not divisible by the number of devices.
    """
    parallel.check_batch(mesh, batch)
    config, tokenizer = source.config, source.tokenizer
    c, (name,) = config.data, arm_names(config)
    arm = fusion_arms(config, text.vocabulary_size(tokenizer)).arms[name]
    scale = normalization(config, name)
    pooling = config.model.arm.text_pooling

    def image_fn(variables: Variables, inputs: Mapping[str, jax.Array]) -> jax.Array:
        images = augment.normalize(augment.to_float(inputs["image"]), **scale)
        return arm.image_encoder.apply(variables, images, train=False)

    def text_fn(variables: Variables, inputs: Mapping[str, jax.Array]):
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        tokens = arm.text_encoder.apply(variables, ids, mask, train=False)
        return arm.text_encoder.pool(tokens, mask, pooling=pooling), tokens

    of_images = _in_batches(image_fn, source.image, mesh=mesh, batch=batch)
    of_captions = _in_batches(text_fn, source.text, mesh=mesh, batch=batch)

    def captions(texts: Sequence[str]) -> Captions:
        encoded = text.encode(tokenizer, texts, length=c.text_length)
        ids, mask = encoded.input_ids, encoded.attention_mask
        pooled, tokens = of_captions({"input_ids": ids, "attention_mask": mask})
        # Averaged word vectors (models/words.py) are one vector for all tokens.
        where = mask[:, : tokens.shape[1]] != 0
        return Captions(pooled, np.where(where[..., None], tokens, 0), where)

    shapes = _shapes(image_fn, text_fn, source)
    return Encoders(
        image=lambda images: of_images({"image": images})[0],
        text=captions,
        size=c.image_size,
        resize=c.resize,
        image_width=shapes[0].shape[-1],
        tokens=shapes[1].shape[1:],
        parts=_parts(source),
        names=source.names,
    )


def _in_batches(
    apply: Callable[..., Any], variables: Variables, *, mesh: Mesh, batch: int
) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """Compile `apply` for one batch size and any number of rows, padding the last."""
    compiled = parallel.jit_predict(apply, mesh)
    placed = jax.device_put(dict(variables), parallel.replicated(mesh))

    def run(columns: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        n = len(next(iter(columns.values())))
        outputs: list[list[np.ndarray]] = []
        # Without rows, one batch of zeros sets the widths of the outputs.
        for start in range(0, max(n, 1), batch):
            part = {k: values[start : start + batch] for k, values in columns.items()}
            real = min(batch, n - start)
            filled = {
                k: np.concatenate(
                    [rows, np.zeros((batch - real, *rows.shape[1:]), rows.dtype)]
                )
                for k, rows in part.items()
            }
            leaves = jax.device_get(jax.tree.leaves(compiled(placed, filled)))
            outputs.append([np.asarray(leaf[:real], np.float32) for leaf in leaves])
        return [np.concatenate(rows) for rows in zip(*outputs, strict=True)]

    return run


def _shapes(image_fn, text_fn, source: Source) -> tuple[Any, Any]:
    """Shapes of a picture's features and a caption's tokens, without computing them."""
    c = source.config.data
    image = jax.ShapeDtypeStruct((1, c.image_size, c.image_size, 3), jnp.uint8)
    ids = jax.ShapeDtypeStruct((1, c.text_length), jnp.int32)
    captions = {"input_ids": ids, "attention_mask": ids}
    features = jax.eval_shape(image_fn, source.image, {"image": image})
    return features, jax.eval_shape(text_fn, source.text, captions)[1]


def _parts(source: Source) -> dict[str, Any]:
    """Everything the features depend on, by encoder."""
    parts = described(source.config, source.tokenizer)
    return {
        name: {
            "parameters": tree_digest(getattr(source, name)),
            **parts[name],
            "dtype": source.config.model.dtype,
        }
        for name in ("image", "text")
    }


def tree_digest(tree: Tree) -> str:
    """SHA-256 of a tree of arrays: paths, shapes, dtypes, values.

    Args:
        tree: of arrays, on any device.

    Returns:
        Hexadecimal digest.
    """
    digest = hashlib.sha256()
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    for path, leaf in sorted(leaves, key=lambda pair: optim.path_of(pair[0])):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{optim.path_of(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
