"""Each arm's encoders as folders that other libraries load, if one has their class."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import linen as nn
from flax import traverse_util
from ml_collections import ConfigDict
from safetensors.numpy import save_file

import memejax
from memejax import folder, models
from memejax.report.loading import LIBRARIES, Part
from memejax.stages.parts.models import fusion_arms, normalization
from memejax.weights import checkpoint
from memejax.weights.configs import ATTRIBUTES, MODEL_TYPES, Architecture
from memejax.weights.preprocessing import Preprocessing, write_preprocessing

Tree = Any
IMAGE, TEXT = PARTS = ("image_encoder", "text_encoder")
# Architecture -> whether transformers has an equivalent of the module.
_FITS: dict[str, Callable[[Any], bool]] = {
    "resnet": lambda module: module.stem == "imagenet",
    "efficientnet_lite": lambda module: True,
    "vit": lambda module: True,
    # transformers' DistilBERT has this fixed eps.
    "distilbert": lambda module: module.eps == 1e-12,
    **{tower: lambda module: True for tower in MODEL_TYPES},
}


@dataclasses.dataclass(frozen=True)
class Encoder:
    """One encoder of one arm.

    Attributes:
        arm: the encoder's arm.
        part: "image_encoder" or "text_encoder".
        module: the Linen module.
        variables: the encoder's params and batch_stats.
        preprocessing: of pictures; None for captions.
    """

    arm: str
    part: str
    module: models.Encoder
    variables: Mapping[str, Tree]
    preprocessing: Preprocessing | None

    @property
    def path(self) -> str:
        """The encoder's folder in an export."""
        return f"{self.arm}/{self.part}"


def split(
    config: ConfigDict, variables: Mapping[str, Tree], *, vocabulary: int
) -> tuple[list[Encoder], dict[str, np.ndarray]]:
    """Split a run's variables into encoders and the rest.

    Args:
        config: the run's config.
        variables: params and batch_stats of all arms.
        vocabulary: number of tokens.

    Returns:
        The encoders that the arms use, and the other leaves by their paths,
        "params/arms_cnn/fusion_layer/kernel". A text encoder that arms share is
        repeated for each of them.
    """
    modules = fusion_arms(config, vocabulary).arms
    if "heads" in config:
        return _of_head(config, modules, variables)
    params = variables["params"]
    holders = {
        part: [name for name in config.arms if part in params.get(f"arms_{name}", {})]
        for part in PARTS
    }
    found = []
    for arm in config.arms:
        for part in PARTS:
            if not holders[part]:
                # A control without pictures, or without captions.
                continue
            # The first arm holds what all arms share.
            holder = arm if arm in holders[part] else holders[part][0]
            own = {
                collection: tree[f"arms_{holder}"][part]
                for collection, tree in variables.items()
                if part in tree.get(f"arms_{holder}", {})
            }
            module = getattr(modules[arm], part)
            how = preprocessing(config, arm) if part == IMAGE else None
            found.append(Encoder(arm, part, module, own, how))
    leaves = traverse_util.flatten_dict(dict(variables), sep="/")
    rest = {k: np.asarray(v) for k, v in leaves.items() if k.split("/")[2] not in PARTS}
    return found, rest


def _of_head(
    config: ConfigDict, modules: Mapping[str, Any], variables: Mapping[str, Tree]
) -> tuple[list[Encoder], dict[str, np.ndarray]]:
    """Split the variables of a head behind its encoders."""
    (arm,) = config.arms
    found = [
        Encoder(
            arm,
            part,
            getattr(modules[arm], part),
            variables["encoders"][part],
            preprocessing(config, arm) if part == IMAGE else None,
        )
        for part in PARTS
    ]
    leaves = traverse_util.flatten_dict(dict(variables["head"]), sep="/")
    return found, {name: np.asarray(leaf) for name, leaf in leaves.items()}


def preprocessing(config: ConfigDict, arm: str) -> Preprocessing:
    """Return the preprocessing of pictures for an arm's image encoder."""
    return Preprocessing(
        **normalization(config, arm),
        size=config.data.image_size,
        resize=config.data.resize,
    )


def architecture(module: models.Encoder) -> Architecture | None:
    """Return the architecture that other libraries load, None without one."""
    name = module.family
    if name not in _FITS or not _FITS[name](module):
        return None
    sizes = {key: getattr(module, key) for key in ATTRIBUTES[name]}
    # A config read from JSON has lists.
    sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in sizes.items()}
    return Architecture(name, sizes)


def write_encoder(path: pathlib.Path, encoder: Encoder) -> Part:
    """Write an encoder's folder, in another library's format or with our own names.

    Args:
        path: the export's folder.
        encoder: the encoder.

    Returns:
        Its description for the card and the console.
    """
    target = path / encoder.path
    theirs = architecture(encoder.module)
    if theirs is not None:
        checkpoint.save(
            target, theirs, encoder.variables, preprocessing=encoder.preprocessing
        )
        library = LIBRARIES.get(theirs.name, "transformers")
        return Part(encoder.path, f"{theirs.name}, for {library}", kind=theirs.name)
    target.mkdir(parents=True)
    leaves = traverse_util.flatten_dict(dict(encoder.variables), sep="/")
    save_file(
        {name: np.ascontiguousarray(leaf) for name, leaf in leaves.items()},
        target / "model.safetensors",
    )
    kind = type(encoder.module)
    made = {
        "module": kind.__module__,
        "class": kind.__name__,
        "attributes": _attributes(encoder.module),
        "version": memejax.__version__,
    }
    folder.write_json(
        target / "config.json",
        {"model_type": "memejax", "architectures": [kind.__name__], "memejax": made},
    )
    if encoder.preprocessing is not None:
        folder.write_json(
            target / "preprocessor_config.json",
            write_preprocessing(encoder.preprocessing),
        )
    what = f"{kind.__name__} of memejax, which transformers has no class for"
    return Part(encoder.path, what, kind="memejax")


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Return the attributes (numbers, names and lists) that recreate the module."""
    values = {
        field.name: getattr(module, field.name)
        for field in dataclasses.fields(module)
        if field.name not in ("parent", "name")
    }
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
    return {k: v for k, v in values.items() if isinstance(v, int | float | str | list)}
