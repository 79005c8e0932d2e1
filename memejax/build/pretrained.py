"""What comes with a checkpoint: sizes, normalisation, tokenizer."""

from __future__ import annotations

import copy
from typing import Any

from ml_collections import ConfigDict

from memejax.build.modules import arm_names, image_family
from memejax.weights import checkpoint as checkpoints
from memejax.weights.checkpoint import Checkpoint

# Leaves of an encoder's section that do not describe its parameters.
KEPT = ("normalization", "dropout", "drop_path")
TEXT_FAMILIES = ("distilbert", "bert")


def adopt(config: ConfigDict) -> ConfigDict:
    """The config with what the checkpoints under `weights` bring.

    An encoder that starts from a checkpoint has the checkpoint's sizes, whatever the
    section says of them; where its `normalization` is "checkpoint" it has the
    checkpoint's mean and standard deviation; captions are cut up by the text
    checkpoint's tokenizer unless `data.tokenizer` names another. Only the files'
    headers are read.

    Args:
      config: a run's.

    Returns:
      A copy; the config itself where no checkpoint is named.

    Raises:
      ValueError: if a checkpoint is not there, is not known, or is of another kind of
        encoder than the arm's.
    """
    if "weights" not in config or not _named(config):
        return config
    config = copy.deepcopy(config).unlock()
    for arm in arm_names(config):
        name = config.weights[f"image_{arm}"]
        if name is None:
            continue
        found = checkpoints.open_checkpoint(name)
        family = image_family(config, arm)
        _check(found, (family,), f"weights.image_{arm}", name)
        section = _section(config.model.image[arm], family, found)
        if section["normalization"] == "checkpoint" and found.preprocessing is not None:
            mean, std, _ = found.preprocessing
            section["normalization"] = dict(mean=mean, std=std)
        config.model.image[arm] = section
    name = config.weights.text
    if name is not None:
        found = checkpoints.open_checkpoint(name)
        _check(found, TEXT_FAMILIES, "weights.text", name)
        config.model.text = _section(config.model.text, "transformer", found)
        if config.data.tokenizer is None and found.tokenizer is not None:
            config.data.tokenizer = str(found.tokenizer)
    return config.lock()


def _named(config: ConfigDict) -> bool:
    return any(
        value is not None and not isinstance(value, bool)
        for value in config.weights.values()
    )


def _section(section: ConfigDict, name: str, found: Checkpoint) -> dict[str, Any]:
    """An encoder's section with a checkpoint's sizes."""
    kept = {k: v for k, v in section.items() if k in KEPT}
    return {"name": name, **kept, **found.architecture.sizes}


def _check(found: Checkpoint, families: tuple[str, ...], leaf: str, name: str) -> None:
    if found.architecture.name not in families:
        raise ValueError(
            f"{leaf}={name!r} is a {found.architecture.name} ({found.form}), expected "
            f"{' or '.join(families)}: `python -m memejax.weights.inspect {name}` "
            "tells what it is for"
        )
