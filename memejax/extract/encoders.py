"""Features of pictures and captions."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import augment, optim, parallel
from memejax.data import text
from memejax.extract.sources import Source, Variables
from memejax.models.towers import Tower
from memejax.stages.parts.encoders import described
from memejax.stages.parts.models import (
    arm_names,
    fusion_arms,
    gains_by_shortening,
    normalization,
)

Tree = Any


class Pictures(NamedTuple):
    """Features of n pictures.

    Attributes:
        pooled: float32 `[n, d]`.
        shared: float32 `[n, e]`, in the space that both towers of a CLIP or SigLIP
            share; None for other encoders.
    """

    pooled: np.ndarray
    shared: np.ndarray | None


class Captions(NamedTuple):
    """Features of n captions.

    Attributes:
        pooled: float32 `[n, d]`.
        shared: as of `Pictures`.
        tokens: float32 `[n, t, d]`, zeros on padding.
        where: bool `[n, t]`, mask of real tokens, special ones included.
    """

    pooled: np.ndarray
    shared: np.ndarray | None
    tokens: np.ndarray
    where: np.ndarray


@dataclasses.dataclass(frozen=True)
class Encoders:
    """Functions from pictures and captions to features.

    Attributes:
        image: pictures, uint8 `[n, s, s, 3]` -> Pictures.
        text: n captions -> Captions.
        size: s.
        resize: of a picture to a square, see `images.decode`.
        image_width: number of features of a picture.
        tokens: t and d of the text encoder's outputs.
        shared_width: e, number of features in the space of both; 0 without one.
        parts: JSON, everything the features depend on: "image" and "text".
        names: JSON, readable names of the encoders.
    """

    image: Callable[[np.ndarray], Pictures]
    text: Callable[[Sequence[str]], Captions]
    size: int
    resize: str
    image_width: int
    tokens: tuple[int, int]
    shared_width: int
    parts: Mapping[str, Any]
    names: Mapping[str, str]


def encoder_functions(
    config: ConfigDict, vocabulary: int
) -> tuple[Callable[..., dict[str, jax.Array]], Callable[..., dict[str, jax.Array]]]:
    """Make pure functions from pictures and tokens to features.

    Args:
        config: of the encoders, with one arm.
        vocabulary: number of tokens.

    Returns:
        image: `(variables, {"image"}) -> {"pooled"}`, uint8 `[b, s, s, 3]` to `[b, d]`;
            or `{"pixels"}`, float32 in [0, 1], for gradients.
        text: `(variables, {"input_ids", "attention_mask"}) -> {"pooled", "tokens"}`,
            int32 `[b, t]` to `[b, d]` and `[b, t, d]`.
        Both outputs have `shared`, `[b, e]`, too if the encoders are towers that share
        a space.
    """
    (name,) = arm_names(config)
    arm = fusion_arms(config, vocabulary).arms[name]
    scale = normalization(config, name)
    pooling = config.model.arm.text_pooling
    both = (arm.image_encoder, arm.text_encoder)
    widths = {e.shared_width if isinstance(e, Tower) else 0 for e in both}
    shares = len(widths) == 1 and 0 not in widths

    def pooled_and_shared(encoder: Any, variables: Variables, pooled: jax.Array):
        if not shares:
            return {"pooled": pooled}
        shared = encoder.apply(variables, pooled, method="project")
        return {"pooled": pooled, "shared": shared}

    def image_fn(variables: Variables, inputs: Mapping[str, jax.Array]):
        pixels = inputs.get("pixels")
        if pixels is None:
            pixels = augment.to_float(inputs["image"])
        images = augment.normalize(pixels, **scale)
        pooled = arm.image_encoder.apply(variables, images, train=False)
        return pooled_and_shared(arm.image_encoder, variables, pooled)

    def text_fn(variables: Variables, inputs: Mapping[str, jax.Array]):
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        tokens = arm.text_encoder.apply(variables, ids, mask, train=False)
        pooled = arm.text_encoder.pool(tokens, mask, pooling=pooling)
        found = pooled_and_shared(arm.text_encoder, variables, pooled)
        return {**found, "tokens": tokens}

    return image_fn, text_fn


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
    c = config.data
    vocabulary = text.vocabulary_size(tokenizer)
    shorten = gains_by_shortening(config, vocabulary)
    image_fn, text_fn = encoder_functions(config, vocabulary)
    of_images = _in_batches(image_fn, source.image, mesh=mesh, batch=batch)
    of_captions = _in_batches(text_fn, source.text, mesh=mesh, batch=batch)

    def pictures(images: np.ndarray) -> Pictures:
        found = of_images({"image": images})
        return Pictures(found["pooled"], found.get("shared"))

    def captions(texts: Sequence[str]) -> Captions:
        encoded = text.encode(tokenizer, texts, length=c.text_length)
        ids, mask = encoded.input_ids, encoded.attention_mask
        parts = []
        # Without captions, one batch of zeros sets the widths of the outputs.
        for start in range(0, max(len(texts), 1), batch):
            part = ids[start : start + batch], mask[start : start + batch]
            if shorten:
                part = text.shorten(*part)
            found = of_captions({"input_ids": part[0], "attention_mask": part[1]})
            # Averaged word vectors (models/words.py) are one vector for all tokens.
            longest = c.text_length if found["tokens"].shape[1] > 1 else 1
            found["tokens"] = _lengthened(found["tokens"], longest)
            parts.append(found)
        every = {k: np.concatenate([one[k] for one in parts]) for k in parts[0]}
        where = mask[:, : every["tokens"].shape[1]] != 0
        return Captions(
            every["pooled"],
            every.get("shared"),
            np.where(where[..., None], every["tokens"], 0),
            where,
        )

    image, caption = _shapes(image_fn, text_fn, source)
    return Encoders(
        image=pictures,
        text=captions,
        size=c.image_size,
        resize=c.resize,
        image_width=image["pooled"].shape[-1],
        tokens=caption["tokens"].shape[1:],
        shared_width=image["shared"].shape[-1] if "shared" in image else 0,
        parts=_parts(source),
        names=source.names,
    )


def _in_batches(
    apply: Callable[..., Any], variables: Variables, *, mesh: Mesh, batch: int
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Compile `apply` for one batch size and any number of rows, padding the last."""
    compiled = parallel.jit_predict(apply, mesh)
    placed = jax.device_put(dict(variables), parallel.replicated(mesh))

    def run(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        n = len(next(iter(columns.values())))
        outputs = []
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
            found = jax.device_get(compiled(placed, filled))
            outputs.append({k: np.asarray(v[:real]) for k, v in found.items()})
        return {
            k: np.concatenate([part[k] for part in outputs]).astype(np.float32)
            for k in outputs[0]
        }

    return run


def _lengthened(tokens_btd: np.ndarray, length: int) -> np.ndarray:
    """Fill up with zeros to `length` tokens."""
    missing = length - tokens_btd.shape[1]
    return np.pad(tokens_btd, ((0, 0), (0, missing), (0, 0)))


def _shapes(image_fn, text_fn, source: Source) -> tuple[Any, Any]:
    """Shapes of a picture's and a caption's features, without computing them."""
    c = source.config.data
    image = jax.ShapeDtypeStruct((1, c.image_size, c.image_size, 3), jnp.uint8)
    ids = jax.ShapeDtypeStruct((1, c.text_length), jnp.int32)
    captions = {"input_ids": ids, "attention_mask": ids}
    pictures = jax.eval_shape(image_fn, source.image, {"image": image})
    return pictures, jax.eval_shape(text_fn, source.text, captions)


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
