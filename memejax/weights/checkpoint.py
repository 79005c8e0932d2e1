"""A checkpoint of another library as a whole: opened, loaded, saved.

    loaded = load("facebook/dino-vits16", grid=6)
    ViT(**loaded.architecture.sizes).apply(loaded.variables, images, train=False)

A name is a file, a folder, or a repository on the hub (memejax/weights/files.py).
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from memejax import strict_json
from memejax.models.vit import interpolate_positions
from memejax.weights import files
from memejax.weights.configs import (
    MODULES,
    Architecture,
    TwoTowersError,
)
from memejax.weights.convert import (
    Classifier,
    Tensors,
    Variables,
    classes_of,
    to_tensors,
    to_variables,
)
from memejax.weights.forms import default_preprocessing, recognise
from memejax.weights.names import saved_form
from memejax.weights.preprocessing import (
    Preprocessing,
    read_preprocessing,
    write_preprocessing,
)
from memejax.weights.written import write_config


class Checkpoint(NamedTuple):
    """A recognised checkpoint, before its values are read.

    Attributes:
        source: its files.
        form: library and architecture, a key of FORMS.
        architecture: name, and the attributes of our module.
        tensors: raw arrays by their names in the file.
        classes: of its linear classifier, or None.
        preprocessing: of its images, None for captions.
        tokenizer: folder that holds its tokenizer, or None.
    """

    source: files.Source
    form: str
    architecture: Architecture
    tensors: Tensors
    classes: int | None
    preprocessing: Preprocessing | None
    tokenizer: Path | None


class Loaded(NamedTuple):
    """A checkpoint converted to our modules.

    Attributes:
        form: library and architecture, a key of FORMS.
        architecture: name, and the attributes of our module.
        variables: of that module, numpy float32.
        classifier: `{"kernel": [d, classes], "bias": [classes]}`, or None.
        preprocessing: of its images, None for captions.
        tokenizer: folder that holds its tokenizer, or None.
    """

    form: str
    architecture: Architecture
    variables: Variables
    classifier: Classifier | None
    preprocessing: Preprocessing | None
    tokenizer: Path | None


def open_checkpoint(
    name: str | os.PathLike[str], *, tower: str | None = None
) -> Checkpoint:
    """Find and recognise a checkpoint without reading its values.

    Args:
        name: a file, a folder, or a name on the hub.
        tower: "image" or "text", of a checkpoint that has both.

    Returns:
        The checkpoint.

    Raises:
        ValueError: if there are no usable files, its architecture is not one of ours,
            it has two towers and none is chosen (`configs.TwoTowersError`), or a tower
            lacks the file with its pictures' preprocessing or its tokenizer.
    """
    source = files.find(name)
    tensors = files.read(source)
    config = (
        strict_json.read_object(source.config) if source.config is not None else None
    )
    with _name_file_in_errors(source):
        shapes = {key: tensor.shape for key, tensor in tensors.items()}
        form, architecture = recognise(shapes, config, tower=tower)
        classes = classes_of(shapes, form=form)
        preprocessing = default_preprocessing(
            form, architecture, file=source.weights[0].name
        )
        # "clip_vision": of a CLIP, of pictures.
        family, _, tower_kind = architecture.name.partition("_")
        is_image_tower = tower_kind == "vision"
        if source.folder is not None and (preprocessing is not None or is_image_tower):
            preprocessing = read_preprocessing(source.folder) or preprocessing
        folder = source.folder
        # Of CLIP's older folders vocab.json, beside merges.txt.
        tokens = ("tokenizer.json", "vocab.txt", "vocab.json")
        if folder is not None and not any((folder / f).is_file() for f in tokens):
            folder = None
        # Its relatives differ in both, and a wrong guess would go unnoticed.
        if is_image_tower and preprocessing is None:
            raise ValueError(
                f"a {family} tower without preprocessor_config.json, which has the "
                "mean and deviation of its pictures: put it beside the file"
            )
        if tower_kind == "text" and folder is None:
            raise ValueError(
                f"a {family} tower without its tokenizer: put its tokenizer.json (for "
                "a CLIP, or vocab.json and merges.txt) beside the file"
            )
    return Checkpoint(
        source, form, architecture, tensors, classes, preprocessing, folder
    )


def load(
    name: str | os.PathLike[str],
    *,
    grid: int | None = None,
    tower: str | None = None,
) -> Loaded:
    """Load a checkpoint: its encoder and, if there is one, its classifier.

    Args:
        name: a file, a folder, or a name on the hub.
        grid: side in patches to which a ViT's position embeddings are resized, for
            pictures of another size; that of the checkpoint if None.
        tower: see `open_checkpoint`.

    Returns:
        Variables of our module with classifier and preprocessing; the leaves are views
        on the files' memory maps unless they had to be computed.

    Raises:
        ValueError: if there are no usable files, the architecture is not one of ours, a
            tensor is missing, unexpected, misshapen or not finite, or a grid is given
            for another architecture than a ViT.
    """
    checkpoint = open_checkpoint(name, tower=tower)
    form, architecture = checkpoint.form, checkpoint.architecture
    preprocessing = checkpoint.preprocessing
    with _name_file_in_errors(checkpoint.source):
        if grid is not None and "grid" not in architecture.sizes:
            raise ValueError(
                f"got a grid for a {architecture.name!r}, expected it for a 'vit'"
            )
        files.check_finite(checkpoint.tensors)
        variables, classifier = to_variables(
            checkpoint.tensors, form=form, sizes=architecture.sizes
        )
        if grid is not None:
            params = variables["params"]
            kept = MODULES[architecture.name].class_tokens
            table = interpolate_positions(
                params["positions"], grid=grid, class_tokens=kept
            )
            params["positions"] = np.asarray(table)
            same = grid == architecture.sizes["grid"]
            sizes = {**architecture.sizes, "grid": grid}
            architecture = Architecture(architecture.name, sizes)
            if preprocessing is not None and not same:
                preprocessing = preprocessing._replace(size=grid * sizes["patch"])
    return Loaded(
        form,
        architecture,
        variables,
        classifier,
        preprocessing,
        checkpoint.tokenizer,
    )


def read_similarity(name: str | os.PathLike[str]) -> tuple[float, float] | None:
    """Read how a checkpoint of two towers compares a picture with a caption.

        logit = exp(logit_scale) cos(picture, caption) + logit_bias

    Args:
        name: a file, a folder, or a name on the hub.

    Returns:
        exp(logit_scale) and logit_bias (0 of a CLIP); None for other checkpoints, and
        single towers.
    """
    tensors = files.read(files.find(name))
    if "logit_scale" not in tensors:
        return None
    scale = float(np.exp(np.asarray(tensors["logit_scale"], np.float64).reshape(())))
    bias = tensors.get("logit_bias", np.zeros(()))
    return scale, float(np.asarray(bias, np.float64).reshape(()))


def save(
    folder: str | os.PathLike[str],
    architecture: Architecture,
    variables: Mapping[str, Any],
    *,
    classifier: Mapping[str, Any] | None = None,
    preprocessing: Preprocessing | None = None,
) -> None:
    """Save a folder that Hugging Face's PyTorch classes, and `load`, can load.

    An EfficientNet-Lite, which Hugging Face lacks, has the tensor names of
    `efficientnet_lite_pytorch`, whose module loads them by `load_state_dict(tensors,
    strict=False)`; without a classifier `_fc` is missing.

    The folder holds config.json, model.safetensors and, if `preprocessing` is given,
    preprocessor_config.json. Everything is written beside the folder and renamed, so
    that it is atomic.

    Args:
        folder: new or empty.
        architecture: name, and attributes of our module.
        variables: of that module.
        classifier: `{"kernel": [d, classes], "bias": [classes]}`, or None.
        preprocessing: of the images.

    Raises:
        ValueError: if the folder is not empty, for a variant that Hugging Face's model
            lacks, or variables that do not fit the module.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"got {folder}, which exists, expected a new or empty folder")
    classes = None if classifier is None else len(np.asarray(classifier["bias"]))
    config = write_config(architecture, classes=classes)
    tensors = to_tensors(
        variables,
        form=saved_form(architecture.name),
        sizes=architecture.sizes,
        classifier=classifier,
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A folder inside, because mkdtemp's own is readable by its owner alone.
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        new = beside / folder.name
        new.mkdir()
        _write_json(new / "config.json", config)
        # transformers needs the framework whose layout the tensors have.
        save_file(tensors, new / "model.safetensors", metadata={"format": "pt"})
        if preprocessing is not None:
            content = write_preprocessing(preprocessing)
            _write_json(new / "preprocessor_config.json", content)
        new.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


@contextmanager
def _name_file_in_errors(source: files.Source) -> Iterator[None]:
    """Prefix each ValueError with the path of the weights."""
    try:
        yield
    except TwoTowersError as error:
        raise TwoTowersError(f"{source.weights[0]}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{source.weights[0]}: {error}") from error
