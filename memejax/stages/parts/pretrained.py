"""Settings that come with a checkpoint: sizes, normalisation, tokenizer."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from memejax.errors import UserError
from memejax.stages.parts.models import arm_names, image_family
from memejax.weights import checkpoint as checkpoints
from memejax.weights.checkpoint import Checkpoint
from memejax.weights.configs import MODULES

# Leaves of an encoder's section that do not describe its parameters.
KEPT = ("normalization", "dropout", "drop_path")
# Architectures of checkpoints of captions -> their name in `model.text`.
TEXT_FAMILIES = {
    "distilbert": "transformer",
    "bert": "transformer",
    "clip_text": "clip_text",
    "siglip_text": "siglip_text",
}
# Architectures that any arm's pictures may be encoded by, whatever its own.
ANY_ARM = ("clip_vision", "siglip_vision", "efficientnet_lite")


class CheckpointError(UserError):
    """A run cannot start from a checkpoint."""


@contextlib.contextmanager
def prefix_errors(leaf: str, name: str) -> Iterator[None]:
    """Raise errors as CheckpointError, prefixed with the config leaf they are about."""
    try:
        yield
    except ValueError as error:
        raise CheckpointError(f"{leaf}={name}: {error}") from error


def adopt(
    config: ConfigDict, say: Callable[[str], None] = lambda line: None
) -> ConfigDict:
    """Fill in a config with the settings of the checkpoints in `weights`.

    An encoder that starts from a checkpoint gets the checkpoint's sizes, whatever its
    section sets, and any arm may start from a CLIP, SigLIP or EfficientNet-Lite. If
    its `normalization` is "checkpoint", it gets the checkpoint's mean and standard
    deviation. If `data.image_size` is 0, pictures get the checkpoints' size, and if
    `data.resize` is "checkpoint", they are resized and cropped as the checkpoints'
    were. Captions are tokenized by the text checkpoint's tokenizer unless
    `data.tokenizer` is set, and cut to the checkpoint's longest. Only the files'
    headers are read.

    Args:
        config: the run's config.
        say: called with one line per checkpoint.

    Returns:
        A copy; the config itself if it names no checkpoint.

    Raises:
        CheckpointError: if a checkpoint is missing, unknown, or for another kind of
            encoder than the arm's.
        ValueError: if `data.image_size` is 0 or `data.resize` is "checkpoint", and the
            checkpoints have no such value or different ones.
    """
    if "weights" not in config or "arms" not in config:
        # This run starts from no checkpoints.
        return config
    if not _named(config):
        if not config.data.image_size or config.data.resize == "checkpoint":
            leaf = "resize='checkpoint'" if config.data.image_size else "image_size=0"
            raise ValueError(
                f"data.{leaf} takes that of weights.image_*, and none is named"
            )
        return config
    config = copy.deepcopy(config).unlock()
    pixels, resizes = {}, set()
    for arm in arm_names(config):
        name = named(config, f"image_{arm}")
        if name is None:
            continue
        family = image_family(config, arm)
        found = _opened(f"weights.image_{arm}", name, (family, *ANY_ARM), tower="image")
        section = _section(config.model.image[arm], found.architecture.name, found)
        how = found.preprocessing
        if section["normalization"] == "checkpoint" and how is not None:
            section["normalization"] = dict(mean=how.mean, std=how.std)
        resizes |= {how.resize} if how is not None else set()
        config.model.image[arm] = section
        pixels[arm] = found.preprocessing and found.preprocessing.size
        say(_line(found, f"image_{arm}", name))
    if not config.data.image_size:
        config.data.image_size = _one_size(pixels)
    if config.data.resize == "checkpoint":
        if len(resizes) != 1:
            raise ValueError(
                "data.resize='checkpoint' takes that of weights.image_*, which have "
                f"{sorted(resizes) or 'none'}: set it"
            )
        (config.data.resize,) = resizes
    name = named(config, "text")
    if name is not None:
        found = _opened("weights.text", name, tuple(TEXT_FAMILIES), tower="text")
        kind = TEXT_FAMILIES[found.architecture.name]
        config.model.text = _section(config.model.text, kind, found)
        longest = found.architecture.sizes["max_length"]
        if MODULES[found.architecture.name].fixed_length:
            config.data.text_length = longest
        config.data.text_length = min(config.data.text_length, longest)
        if config.data.tokenizer is None and found.tokenizer is not None:
            config.data.tokenizer = str(found.tokenizer)
        say(_line(found, "text", name))
    return config.lock()


def named(config: ConfigDict, leaf: str) -> str | None:
    """Return the checkpoint that a leaf of `weights` names, None without one."""
    return config.weights[leaf] if leaf in config.weights else None


def check_start(config: ConfigDict) -> None:
    """Check that no encoder starts at random unnoticed.

    Raises:
        CheckpointError: if one without a checkpoint is used by the run's stages, and
            `weights.allow_random` is there and False; naming the leaves.
    """
    if "weights" not in config or "allow_random" not in config.weights:
        return
    if config.weights.allow_random:
        return
    used = config.model.arm.modalities
    leaves = [f"image_{arm}" for arm in arm_names(config)] if used != "text" else []
    captions = "finetune" in config or config.pretrain.method == "multimodal_cass"
    # Averaged words have no pretrained form.
    if captions and used != "image" and config.model.text.name != "words":
        leaves.append("text")
    missing = [leaf for leaf in leaves if named(config, leaf) is None]
    if missing:
        flags = ", ".join(f"--config.weights.{leaf}" for leaf in missing)
        raise CheckpointError(
            f"the preset {config.preset} starts from pretrained encoders: give {flags} "
            "(a folder, a file or a hub name), or --config.weights.allow_random=True "
            "to start at random"
        )


def _one_size(pixels: dict[str, int | None]) -> int:
    """Return the picture size that all checkpoints share."""
    sizes = {size for size in pixels.values() if size}
    if len(sizes) != 1:
        raise ValueError(
            "data.image_size=0 takes that of weights.image_*, which have "
            f"{pixels or 'nothing'}: set it"
        )
    return sizes.pop()


def _line(found: Checkpoint, leaf: str, name: str) -> str:
    """Describe a checkpoint for the console."""
    count = sum(tensor.size for tensor in found.tensors.values())
    line = f"weights.{leaf}: {found.form}, {count / 1e6:.1f} M parameters, from {name}"
    if found.preprocessing is not None and found.preprocessing.size:
        line += f"; trained at {found.preprocessing.size} pixels"
    return line


def _named(config: ConfigDict) -> bool:
    return any(
        value is not None and not isinstance(value, bool)
        for value in config.weights.values()
    )


def _section(section: ConfigDict, name: str, found: Checkpoint) -> dict[str, Any]:
    """Return an encoder's section with a checkpoint's sizes."""
    kept = {k: v for k, v in section.items() if k in KEPT}
    return {"name": name, **kept, **found.architecture.sizes}


def _opened(
    leaf: str, name: str, families: tuple[str, ...], *, tower: str
) -> Checkpoint:
    """Open a checkpoint of one of these architectures, or its tower."""
    with prefix_errors(leaf, name):
        found = checkpoints.open_checkpoint(name, tower=tower)
        if found.architecture.name not in families:
            raise ValueError(
                f"it is a {found.architecture.name} ({found.form}), expected "
                f"{' or '.join(families)}: `python -m memejax.weights.inspect {name}` "
                "describes it"
            )
    return found
