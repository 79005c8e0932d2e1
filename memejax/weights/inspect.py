"""Description of a checkpoint: `python -m memejax.weights.inspect PATH_OR_NAME`.

    python -m memejax.weights.inspect FILE|FOLDER|pip:NAME|OWNER/NAME[@REVISION]
      [--tensors] [--json]

Print its files, dtypes and sizes, its architecture, classifier and preprocessing of
images, and the model and flags of `python -m memejax.main` that load it. --tensors
lists all names, shapes and dtypes.
"""

import argparse
import collections
import json
import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from memejax.errors import printable, reported, user_errors

if TYPE_CHECKING:
    import numpy as np

    from memejax.weights.checkpoint import Checkpoint

# Number of tensors listed of an unknown checkpoint.
FIRST = 20

# Leaf of a config's section `weights` by architecture.
LEAVES = {
    "resnet": "image_cnn",
    "efficientnet_lite": "image_cnn",
    "vit": "image_vit",
    "distilbert": "text",
    "bert": "text",
    "clip_vision": "image_vit",
    "clip_text": "text",
    "siglip_vision": "image_vit",
    "siglip_text": "text",
    "maskrcnn": "detector",
}

# BatchNorm tensors that are not parameters.
STATISTICS = re.compile(r"(^|[./])(running_(mean|var)|num_batches_tracked)$")


def describe(name: str, *, tensors: bool = False) -> dict[str, Any]:
    """Describe a checkpoint, ready for JSON.

    Args:
        name: see `files.find`.
        tensors: whether to list every tensor.

    Returns:
        "files" (paths), "format" (suffix), "megabytes" (10**6 bytes), "dtypes"
        (tensors of each), "tensors" and "parameters" (counts); "form" and
        "architecture" (None if unknown); of a known one "sizes", "classes",
        "preprocessing", "tokenizer", "model" (our name for its sizes or None) and
        "flags"; of an unknown one "reason"; "listing" (name, shape, dtype) with
        `tensors` or if unknown.

    Raises:
        ValueError: if it is not found or cannot be read.
    """
    from memejax.weights import checkpoint, configs, files, maskrcnn

    source = files.find(name)
    try:
        try:
            opened, both = checkpoint.open_checkpoint(name), False
        except configs.TwoTowersError:
            # Described by its pictures; both flags take it.
            opened, both = checkpoint.open_checkpoint(name, tower="image"), True
    except ValueError as error:
        arrays = files.read(source)
        if maskrcnn.is_maskrcnn(arrays):
            known = _detector(arrays, name)
        else:
            known = {"form": None, "architecture": None, "reason": str(error)}
    else:
        arrays = opened.tensors
        known = _known(opened, name)
        if both:
            family = opened.architecture.name.removesuffix("_vision")
            known["flags"] += _flags(f"{family}_text", name)
    description = {
        "files": [str(path) for path in source.weights],
        "format": source.weights[0].suffix.removeprefix("."),
        "megabytes": sum(path.stat().st_size for path in source.weights) / 1e6,
        **_counts(arrays),
        **known,
    }
    if tensors or known["form"] is None:
        some = list(arrays.items())[: None if tensors else FIRST]
        description["listing"] = [
            dict(name=name, shape=list(array.shape), dtype=array.dtype.name)
            for name, array in some
        ]
    return description


def _counts(arrays: "Mapping[str, np.ndarray]") -> dict[str, Any]:
    dtypes = collections.Counter(a.dtype.name for a in arrays.values())
    parameters = (a for n, a in arrays.items() if not STATISTICS.search(n))
    return {
        "dtypes": dict(dtypes.most_common()),
        "tensors": len(arrays),
        "parameters": sum(a.size for a in parameters if a.dtype.kind not in "biu"),
    }


def _detector(arrays: "Mapping[str, np.ndarray]", name: str) -> dict[str, Any]:
    """Describe a Mask R-CNN."""
    return {
        "form": "torchvision maskrcnn",
        "architecture": "maskrcnn",
        "sizes": {},
        "classes": len(arrays["roi_heads.box_predictor.cls_score.weight"]),
        "preprocessing": None,
        "tokenizer": None,
        "model": None,
        "flags": _flags("maskrcnn", name),
    }


def _known(opened: "Checkpoint", name: str) -> dict[str, Any]:
    """Describe a recognised encoder, apart from its files."""
    images = opened.preprocessing
    if images is not None:
        mean, std = list(images.mean), list(images.std)
        images = dict(size=images.size, mean=mean, std=std)
    return {
        "form": opened.form,
        "architecture": opened.architecture.name,
        "sizes": dict(opened.architecture.sizes),
        "classes": opened.classes,
        "preprocessing": images,
        "tokenizer": None if opened.tokenizer is None else str(opened.tokenizer),
        "model": _model(opened.architecture.name, opened.architecture.sizes),
        "flags": _flags(opened.architecture.name, name),
    }


def _model(architecture: str, sizes: Mapping[str, Any]) -> str | None:
    """Return our name for an encoder of these sizes."""
    from memejax.models.clip import CLIPS
    from memejax.models.distilbert import BERTS
    from memejax.models.efficientnet import EFFICIENTNETS
    from memejax.models.resnet import RESNETS
    from memejax.models.siglip import SIGLIPS
    from memejax.models.vit import VITS

    table = {"resnet": RESNETS, "vit": VITS, "distilbert": BERTS, "bert": BERTS}
    table["efficientnet_lite"] = EFFICIENTNETS
    for family, both in (("clip", CLIPS), ("siglip", SIGLIPS)):
        table[f"{family}_vision"] = {model: image for model, (image, _) in both.items()}
        table[f"{family}_text"] = {model: text for model, (_, text) in both.items()}
    for model, named in table[architecture].items():
        if named.items() <= sizes.items():
            return model
    return None


def _flags(architecture: str, name: str) -> list[str]:
    return [f"--config.weights.{LEAVES[architecture]}={shlex.quote(name)}"]


def to_text(description: Mapping[str, Any]) -> str:
    """Format the result of `describe` as text.

    Args:
        description: that result.

    Returns:
        Lines of a name and a value.
    """
    dtypes = description["dtypes"]
    lines = [("file", description["files"][0])]
    lines += [("", path) for path in description["files"][1:]]
    lines += [
        ("format", f"{description['format']}, {description['megabytes']:,.1f} MB"),
        ("tensors", ", ".join(f"{count} {dtype}" for dtype, count in dtypes.items())),
        ("parameters", f"{description['parameters']:,}"),
    ]
    known = description["form"] is not None
    lines += _known_lines(description) if known else _unknown_lines(description)
    lines += [
        ("", f"{tensor['name']} {tensor['shape']} {tensor['dtype']}")
        for tensor in description.get("listing", [])
    ]
    return "\n".join(f"{name:12}{value}".rstrip() for name, value in lines)


def _unknown_lines(description: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown, total = len(description["listing"]), description["tensors"]
    first = f"the first {shown} of " if shown < total else ""
    return [
        ("unknown", description["reason"]),
        ("", f"{first}{total} tensors:"),
    ]


def _known_lines(description: Mapping[str, Any]) -> list[tuple[str, str]]:
    sizes = ", ".join(f"{key}={value}" for key, value in description["sizes"].items())
    classes, images = description["classes"], description["preprocessing"]
    model = description["model"] or "without a name of ours"
    lines = [("is", f"{description['form']}, {model}")]
    lines += [("sizes", sizes)] if sizes else []
    lines.append(("classifier", "none" if classes is None else f"{classes} classes"))
    if images is not None:
        values = f"mean {images['mean']}, standard deviation {images['std']}"
        lines.append(("images", f"{images['size']} x {images['size']}, {values}"))
    if LEAVES[description["architecture"]] == "text":
        missing = "none beside it: give one with --config.data.tokenizer=NAME"
        lines.append(("tokenizer", description["tokenizer"] or missing))
    return [*lines, *(("flag", flag) for flag in description["flags"])]


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m memejax.weights.inspect",
        description="Describe a checkpoint, and the model and flags that load it.",
    )
    parser.add_argument(
        "name",
        metavar="PATH_OR_NAME",
        help="a file, a folder, pip:NAME, or OWNER/NAME[@REVISION] on the hub",
    )
    parser.add_argument(
        "--tensors", action="store_true", help="list all names, shapes and dtypes"
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of text"
    )
    options = parser.parse_args(argv)
    with reported(), user_errors():
        description = describe(options.name, tensors=options.tensors)
    text = json.dumps(description, indent=2) if options.json else to_text(description)
    print(printable(text))


if __name__ == "__main__":
    main()
