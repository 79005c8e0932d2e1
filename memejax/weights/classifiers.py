"""The linear classifier on top of an image encoder's checkpoint.

CASS compares the two arms' raw class scores, and starts from classifiers of the same
classes: the outputs of the arms then mean the same from the first update.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import safe_open

# A ViT's file has the first name, a ResNet's the second.
NAMES = ("classifier", "classifier.1")


def load_classifier(path: str | Path) -> dict[str, np.ndarray]:
    """Read the classifier of a local folder of Hugging Face's.

    Args:
        path: folder with `model.safetensors`, or that file.

    Returns:
        `{"kernel": [d, classes], "bias": [classes]}` float32.

    Raises:
        ValueError: if the file is not there or holds no linear classifier.
    """
    path = Path(path)
    file = path if path.is_file() else path / "model.safetensors"
    if not file.is_file():
        raise ValueError(f"got {path}, expected a folder with model.safetensors")
    with safe_open(file, framework="numpy") as tensors:
        names = set(tensors.keys())
        for name in NAMES:
            if {f"{name}.weight", f"{name}.bias"} <= names:
                kernel = tensors.get_tensor(f"{name}.weight").astype(np.float32)
                bias = tensors.get_tensor(f"{name}.bias").astype(np.float32)
                return {"kernel": np.ascontiguousarray(kernel.T), "bias": bias}
    raise ValueError(
        f"{file} has no linear classifier (looked for {' and '.join(NAMES)}): set "
        "weights.heads=False, or take a checkpoint for image classification"
    )
