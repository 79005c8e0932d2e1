"""Checkpoints saved by torch, read without running their code.

A pickle is a program. Where torch is installed its own reader for weights opens it,
which builds tensors and plain containers and refuses everything else; elsewhere
torch_pickles.py does the same.
"""

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from memejax.weights import torch_pickles

# Older versions can be made to run code from a checkpoint (CVE-2025-32434).
OLDEST_TORCH = (2, 6)

# Tensors nested deeper than weights ever are stay torch's; a pickled dict may contain
# itself.
DEPTH = 4

# Objects that training scripts save beside the tensors: parsed arguments, and numpy
# scalars in an optimizer's state. They become Placeholder, which drops its arguments.
HARMLESS = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
)


class Placeholder:
    """Replacement of a harmless object that is not a tensor."""

    def __init__(self, *arguments: Any):
        del arguments

    def __setstate__(self, state: Any) -> None:
        del state


def read(path: Path) -> Any:
    """Read a .bin, .pt or .pth of torch.

    Args:
        path: the file.

    Returns:
        The saved object, usually a dict, with read-only numpy arrays instead of
        tensors. Tensors that numpy lacks (sparse, quantised) stay as they are.

    Raises:
        ValueError: if the file tries to run code, or it is damaged.
    """
    try:
        import torch
    except ImportError:
        return _without_torch(path)
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < OLDEST_TORCH:
        raise ValueError(
            f"{path}: got torch {torch.__version__}, expected 2.6 or newer: older ones "
            "do not keep a pickle from running code"
        )
    with path.open("rb") as file:
        # Only a zip can be mapped, which torch before 1.6 did not write.
        mappable = file.read(4) == b"PK\x03\x04"
    allowed: list[Any] = [(Placeholder, name) for name in HARMLESS]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            # torch warns before it refuses.
            warnings.simplefilter("ignore")
            saved = torch.load(
                os.fspath(path), map_location="cpu", weights_only=True, mmap=mappable
            )
    except Exception as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wanted:
            raise _refused(path, wanted[1]) from error
        raise _damaged(path, error, _cause(str(error))) from error
    return _to_numpy(saved, depth=DEPTH)


def _without_torch(path: Path) -> Any:
    """Read a file where torch is not installed."""
    names: dict[str, Any] = dict.fromkeys(HARMLESS, Placeholder)
    try:
        return torch_pickles.read(path, placeholders=names)
    except torch_pickles.RefusedError as error:
        raise _refused(path, str(error)) from error
    except Exception as error:  # whatever pickle and zipfile raise of a damaged file
        raise _damaged(path, error, str(error)) from error


def _refused(path: Path, name: str) -> ValueError:
    return ValueError(
        f"{path} tries to run code ({name}) while it is read, and was refused: "
        "expected only tensors by name. Use a .safetensors, or have someone you trust "
        "save the state_dict alone"
    )


def _damaged(path: Path, error: Exception, cause: str) -> ValueError:
    return ValueError(
        f"{path} ({path.stat().st_size} bytes) is damaged, truncated, or not a torch "
        f"checkpoint: download it again ({type(error).__name__}: {cause})"
    )


def _cause(message: str) -> str:
    """Return the cause in torch's message, without the advice around it."""
    cause = message.rpartition("WeightsUnpickler error: ")[2].strip()
    return (cause.splitlines() or [""])[0]


def _to_numpy(saved: Any, *, depth: int) -> Any:
    """Replace tensors by read-only views on their memory, in dicts of that depth."""
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
