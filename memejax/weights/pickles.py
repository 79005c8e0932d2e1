"""Checkpoints that torch saved, read without running anything that they ask for.

A pickle is a program. Here only torch's own reader for weights sees one, which builds
tensors and plain containers and refuses all else. Without torch they are not read.
"""

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

# Older ones can be made to run code from a checkpoint all the same (CVE-2025-32434).
OLDEST_TORCH = (2, 6)

# Tensors in dicts nested deeper than weights are stay torch's; a pickled dict may hold
# itself.
DEPTH = 4

# What training scripts keep beside the tensors: parsed arguments, and numbers of
# numpy's in an optimizer's state. They become Nothing, whose arguments are dropped.
HARMLESS = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
)


class Nothing:
    """Stands in the place of a harmless object that is not a tensor."""

    def __init__(self, *arguments: Any):
        del arguments

    def __setstate__(self, state: Any) -> None:
        del state


def read(path: Path) -> Any:
    """Read a .bin, .pt or .pth of torch.

    Args:
        path: the file.

    Returns:
        What was saved, as a rule a dict, with read-only numpy arrays in the place of
        tensors. Tensors that numpy lacks (sparse, quantised) stay as they are.

    Raises:
        ValueError: if torch is not there, the file asks to run code, or is damaged.
    """
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{path} is a pickle, which only torch reads safely, and torch is not "
            "installed: install it (`pip install torch`), or convert the file to "
            ".safetensors where torch is"
        ) from error
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < OLDEST_TORCH:
        raise ValueError(
            f"{path}: got torch {torch.__version__}, expected 2.6 or newer: older ones "
            "do not keep a pickle from running code"
        )
    with path.open("rb") as file:
        # torch before 1.6 wrote no zip, which is what it can map.
        mappable = file.read(4) == b"PK\x03\x04"
    stand_ins: list[Any] = [(Nothing, name) for name in HARMLESS]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            # It warns before it refuses.
            warnings.simplefilter("ignore")
            saved = torch.load(
                os.fspath(path), map_location="cpu", weights_only=True, mmap=mappable
            )
    except Exception as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wanted:
            raise ValueError(
                f"{path} asks to run code ({wanted[1]}) while it is read, and was "
                "refused: expected tensors alone, by name. Take a .safetensors, or "
                "have whom you trust save the state_dict alone"
            ) from error
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is damaged, cut short, or no "
            "checkpoint of torch: download it again "
            f"({type(error).__name__}: {_last_words(str(error))})"
        ) from error
    return _to_numpy(saved, depth=DEPTH)


def _last_words(message: str) -> str:
    """The cause that torch gives, without its advice around it."""
    cause = message.rpartition("WeightsUnpickler error: ")[2].strip()
    return (cause.splitlines() or [""])[0]


def _to_numpy(saved: Any, *, depth: int) -> Any:
    """Tensors as read-only views on their memory, in dicts of that depth."""
    import torch

    if isinstance(saved, Mapping):
        if not depth:
            return saved
        return {name: _to_numpy(v, depth=depth - 1) for name, v in saved.items()}
    if not isinstance(saved, torch.Tensor):
        return saved
    tensor = saved.detach()
    try:
        if tensor.dtype == torch.bfloat16:
            array = tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        else:
            array = tensor.numpy()
    except (TypeError, RuntimeError):
        return saved
    array: np.ndarray
    array.flags.writeable = False
    return array
