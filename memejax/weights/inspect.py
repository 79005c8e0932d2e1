"""What a checkpoint is: `python -m memejax.weights.inspect PATH_OR_NAME`.

    python -m memejax.weights.inspect FILE|FOLDER|OWNER/NAME[@REVISION]
      [--tensors] [--json]

Prints its files, dtypes and sizes, the architecture, the classifier and the
preprocessing of images that come with it, and which model and flags of
`python -m memejax.main` take it. --tensors lists all names, shapes and dtypes.
"""

import argparse
import collections
import json
import re
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from memejax.weights.checkpoint import Checkpoint

# How many tensors of an unknown checkpoint are listed.
FIRST = 20

# Leaf of a config's section `weights` by architecture.
LEAVES = {
    "resnet": "image_cnn",
    "vit": "image_vit",
    "distilbert": "text",
    "bert": "text",
    "maskrcnn": "detector",
}

# In a checkpoint of BatchNorm, but no parameters.
STATISTICS = re.compile(r"(^|[./])(running_(mean|var)|num_batches_tracked)$")


def describe(name: str, *, tensors: bool = False) -> dict[str, Any]:
    """Everything to say of a checkpoint, ready for JSON.

    Args:
        name: as `files.find` takes it.
        tensors: whether to list every tensor.

    Returns:
        "files" (paths), "format" (suffix), "megabytes" (10**6 bytes), "dtypes"
        (tensors of each), "tensors" and "parameters" (counts); "form" and
        "architecture" (None if unknown); of a known one "sizes", "classes",
        "preprocessing", "tokenizer", "model" (our name for its sizes or None) and
        "flags"; of an unknown one "reason"; "listing" (name, shape, dtype) if asked
        for or unknown.

    Raises:
        ValueError: if it is not found or cannot be read.
    """
    from memejax.weights import checkpoint, files, maskrcnn

    source = files.find(name)
    try:
        opened = checkpoint.open_checkpoint(name)
    except ValueError as error:
        arrays = files.read(source)
        if maskrcnn.is_maskrcnn(arrays):
            known = _detector(arrays, name)
        else:
            known = {"form": None, "architecture": None, "reason": str(error)}
    else:
        arrays = opened.tensors
        known = _known(opened, name)
    said = {
        "files": [str(path) for path in source.weights],
        "format": source.weights[0].suffix.removeprefix("."),
        "megabytes": sum(path.stat().st_size for path in source.weights) / 1e6,
        **_counts(arrays),
        **known,
    }
    if tensors or known["form"] is None:
        some = list(arrays.items())[: None if tensors else FIRST]
        said["listing"] = [
            dict(name=name, shape=list(array.shape), dtype=array.dtype.name)
            for name, array in some
        ]
    return said


def _counts(arrays: "Mapping[str, np.ndarray]") -> dict[str, Any]:
    dtypes = collections.Counter(a.dtype.name for a in arrays.values())
    parameters = (a for n, a in arrays.items() if not STATISTICS.search(n))
    return {
        "dtypes": dict(dtypes.most_common()),
        "tensors": len(arrays),
        "parameters": sum(a.size for a in parameters if a.dtype.kind not in "biu"),
    }


def _detector(arrays: "Mapping[str, np.ndarray]", name: str) -> dict[str, Any]:
    """What is said of a Mask R-CNN."""
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
    """What is said of a recognised encoder, beside its files."""
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
    """Our name for an encoder of these sizes."""
    from memejax.models.distilbert import BERTS
    from memejax.models.resnet import RESNETS
    from memejax.models.vit import VITS

    table = {"resnet": RESNETS, "vit": VITS, "distilbert": BERTS, "bert": BERTS}
    for model, named in table[architecture].items():
        if named.items() <= sizes.items():
            return model
    return None


def _flags(architecture: str, name: str) -> list[str]:
    return [f"--config.weights.{LEAVES[architecture]}={shlex.quote(name)}"]


def to_text(said: Mapping[str, Any]) -> str:
    """What `describe` found, for people.

    Args:
        said: what it returned.

    Returns:
        Lines of a name and a value.
    """
    dtypes = said["dtypes"]
    lines = [("file", said["files"][0])]
    lines += [("", path) for path in said["files"][1:]]
    lines += [
        ("format", f"{said['format']}, {said['megabytes']:,.1f} MB"),
        ("tensors", ", ".join(f"{count} {dtype}" for dtype, count in dtypes.items())),
        ("parameters", f"{said['parameters']:,}"),
    ]
    lines += _unknown_lines(said) if said["form"] is None else _known_lines(said)
    lines += [
        ("", f"{tensor['name']} {tensor['shape']} {tensor['dtype']}")
        for tensor in said.get("listing", [])
    ]
    return "\n".join(f"{name:12}{value}".rstrip() for name, value in lines)


def _unknown_lines(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown, all_of_them = len(said["listing"]), said["tensors"]
    first = f"the first {shown} of " if shown < all_of_them else ""
    return [
        ("unknown", said["reason"]),
        ("", f"{first}{all_of_them} tensors:"),
    ]


def _known_lines(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    sizes = ", ".join(f"{key}={value}" for key, value in said["sizes"].items())
    classes, images = said["classes"], said["preprocessing"]
    lines = [("is", f"{said['form']}, {said['model'] or 'without a name of ours'}")]
    lines += [("sizes", sizes)] if sizes else []
    lines.append(("classifier", "none" if classes is None else f"{classes} classes"))
    if images is not None:
        values = f"mean {images['mean']}, standard deviation {images['std']}"
        lines.append(("images", f"{images['size']} x {images['size']}, {values}"))
    if LEAVES[said["architecture"]] == "text":
        missing = "none beside it: give one with --config.data.tokenizer=NAME"
        lines.append(("tokenizer", said["tokenizer"] or missing))
    return [*lines, *(("flag", flag) for flag in said["flags"])]


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m memejax.weights.inspect",
        description="What a checkpoint is, and which model and flags take it.",
    )
    parser.add_argument(
        "name",
        metavar="PATH_OR_NAME",
        help="a file, a folder, or a name on the hub: OWNER/NAME[@REVISION]",
    )
    parser.add_argument(
        "--tensors", action="store_true", help="list all names, shapes and dtypes"
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of text"
    )
    options = parser.parse_args(argv)
    # These errors speak to the user, who has no need of a traceback.
    try:
        said = describe(options.name, tensors=options.tensors)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(said, indent=2) if options.json else to_text(said))


if __name__ == "__main__":
    main()
