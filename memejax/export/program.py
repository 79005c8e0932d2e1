"""The classifier as one compiled function of weights, pictures and tokens."""

from __future__ import annotations

import hashlib
import importlib.util
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import export

import memejax
from memejax import folder
from memejax.data import text
from memejax.metrics import AVERAGE
from memejax.restored import Restored
from memejax.stages.parts.choices import DTYPES
from memejax.stages.parts.meme_scorer import make_probability

Tree = Any
PRECISIONS = tuple(DTYPES)
PLATFORMS = ("cpu", "cuda")
PROGRAM, WEIGHTS, SCRIPT = "predictor.stablehlo", "predictor.npz", "run_predictor.py"


def check_flatbuffers() -> None:
    """Raise ValueError if flatbuffers, which jax needs to serialise, is missing."""
    if importlib.util.find_spec("flatbuffers") is None:
        raise ValueError(
            "jax writes programs with the package flatbuffers, which is not "
            "installed: pip install flatbuffers"
        )


def flatten(variables: Mapping[str, Tree]) -> dict[str, np.ndarray]:
    """Flatten variables to path -> array, such as "params/arms_cnn/fc/kernel"."""
    leaves = traverse_util.flatten_dict(dict(variables), sep="/")
    return {name: np.asarray(leaf) for name, leaf in leaves.items()}


def make_program(restored: Restored, *, precision: str) -> export.Exported:
    """Export the mean of the arms' P(hateful), for any number of memes.

    Args:
        restored: a restored run.
        precision: dtype of the matrix products, one of PRECISIONS.

    Returns:
        `(weights, image [b, s, s, 3], input_ids [b, t], attention_mask [b, t]) ->
        [b]`, with weights from `flatten`.
    """
    config = restored.config.copy_and_resolve_references()
    config.model.dtype = precision
    probability = make_probability(config, text.vocabulary_size(restored.tokenizer))

    def predictor(weights, image, input_ids, attention_mask):
        variables = traverse_util.unflatten_dict(weights, sep="/")
        return probability(variables, image, input_ids, attention_mask)

    weights = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for name, leaf in flatten(restored.variables).items()
    }
    (b,) = export.symbolic_shape("b")
    size, length = config.data.image_size, config.data.text_length
    tokens = jax.ShapeDtypeStruct((b, length), jnp.int32)
    return export.export(jax.jit(predictor), platforms=PLATFORMS)(
        weights, jax.ShapeDtypeStruct((b, size, size, 3), jnp.uint8), tokens, tokens
    )


def write_program(path: pathlib.Path, restored: Restored, *, precision: str) -> None:
    """Write the program, its weights, their description and a script to run them.

    Args:
        path: the folder to create.
        restored: a restored run.
        precision: dtype of the matrix products, one of PRECISIONS.

    Raises:
        ValueError: if flatbuffers is not installed.
    """
    check_flatbuffers()
    program = make_program(restored, precision=precision)
    path.mkdir()
    (path / PROGRAM).write_bytes(program.serialize())
    np.savez(path / WEIGHTS, allow_pickle=False, **flatten(restored.variables))
    shutil.copyfile(pathlib.Path(__file__).parent / SCRIPT, path / SCRIPT)
    names = ("weights", "image", "input_ids", "attention_mask")
    (_, *inputs), _ = jax.tree.unflatten(program.in_tree, program.in_avals)
    folder.write_json(
        path / "predictor.json",
        {
            "inputs": [
                {"name": "weights", "is": f"the arrays of {WEIGHTS}, by their names"},
                *(
                    {"name": name, **_described(aval)}
                    for name, aval in zip(names[1:], inputs, strict=True)
                ),
            ],
            "output": {"name": "P(hateful)", **_described(program.out_avals[0])},
            "resize": restored.config.data.resize,
            "threshold": restored.threshold(AVERAGE),
            "precision": precision,
            "platforms": list(program.platforms),
            "calling_convention_version": program.calling_convention_version,
            "versions": {"memejax": memejax.__version__, "jax": jax.__version__},
            "sha256": {name: _sha256(path / name) for name in (PROGRAM, WEIGHTS)},
        },
    )


def _described(aval: Any) -> dict[str, Any]:
    """Return shape and dtype, with symbolic sizes by name."""
    shape = [size if isinstance(size, int) else str(size) for size in aval.shape]
    return {"shape": shape, "dtype": str(aval.dtype)}


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
