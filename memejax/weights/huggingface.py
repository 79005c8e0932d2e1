"""Encoders from Hugging Face's checkpoints: their tensors into our variables.

`load` reads a local folder (`config.json`, `model.safetensors`). The `*_variables`
functions are pure: a mapping of tensor names to arrays in, a tree of numpy arrays
out, with the very float32 values. Names are those of the files; the names that
transformers 5 gives a ViT in memory are understood too. A prefix ("resnet.",
"bert.", ...) may be there or not. Poolers, heads and counters are known extras and
ignored; every other tensor must be wanted, and every wanted one there.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors.numpy import load_file

from memejax.models.distilbert import DistilBert
from memejax.models.resnet import ResNet
from memejax.models.vit import ViT, interpolate_positions

Tensors = Mapping[str, Any]
Variables = dict[str, Any]
TreePath = tuple[str, ...]
Rules = tuple[tuple[str, str], ...]


class Architecture(NamedTuple):
    """What a checkpoint holds: `name`, a model_type, and our module's attributes.

    The module is ResNet for "resnet", ViT for "vit" and DistilBert for "distilbert"
    and "bert".
    """

    name: str
    sizes: dict[str, Any]


# Substitutions that make their name out of our path, applied in order.
NAMES: dict[str, Rules] = {
    "resnet": (
        (r"^stem\.", "embedder.embedder."),
        (r"^stage(\d+)_block(\d+)\.", r"encoder.stages.\1.layers.\2."),
        (r"\.layer(\d+)\.", r".layer.\1."),
        (r"\bconv\.", "convolution."),
        (r"\bnorm\.", "normalization."),
        (r"\b(mean|var)$", r"running_\1"),
    ),
    "vit": (
        (r"^cls$", "embeddings.cls_token"),
        (r"^positions$", "embeddings.position_embeddings"),
        (r"^patch\.", "embeddings.patch_embeddings.projection."),
        (r"^norm\.", "layernorm."),
        (r"^block(\d+)\.", r"encoder.layer.\1."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"\.attention\.(query|key|value)\.", r".attention.attention.\1."),
        (r"\.attention\.out\.", ".attention.output.dense."),
        (r"\.mlp\.up\.", ".intermediate.dense."),
        (r"\.mlp\.down\.", ".output.dense."),
    ),
    "distilbert": (
        (r"^(word|position)s$", r"embeddings.\1_embeddings.weight"),
        (r"^norm\.", "embeddings.LayerNorm."),
        (r"^block(\d+)\.", r"transformer.layer.\1."),
        (r"\.norm1\.", ".sa_layer_norm."),
        (r"\.norm2\.", ".output_layer_norm."),
        (r"\.attention\.(q|k|v|out)\w*\.", r".attention.\1_lin."),
        (r"\.mlp\.up\.", ".ffn.lin1."),
        (r"\.mlp\.down\.", ".ffn.lin2."),
    ),
    "bert": (
        (r"^(word|position)s$", r"embeddings.\1_embeddings.weight"),
        (r"^norm\.", "embeddings.LayerNorm."),
        (r"^block(\d+)\.", r"encoder.layer.\1."),
        (r"\.norm1\.", ".attention.output.LayerNorm."),
        (r"\.norm2\.", ".output.LayerNorm."),
        (r"\.attention\.(query|key|value)\.", r".attention.self.\1."),
        (r"\.attention\.out\.", ".attention.output.dense."),
        (r"\.mlp\.up\.", ".intermediate.dense."),
        (r"\.mlp\.down\.", ".output.dense."),
    ),
}

# Other spellings of theirs, and the file's.
SPELLINGS: dict[str, Rules] = {
    "resnet": (),
    # transformers 5 in memory.
    "vit": (
        (r"^layers\.", "encoder.layer."),
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ),
    "distilbert": (),
    # TensorFlow's, which the file of bert-base-uncased still has.
    "bert": (
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
    ),
}

EXTRAS = {
    "resnet": r"classifier\.|.*\.num_batches_tracked$",
    "vit": r"pooler\.|classifier\.|decoder\.|embeddings\.mask_token$",
    "distilbert": r"vocab_(transform|layer_norm|projector)\.|(pre_)?classifier\."
    r"|qa_outputs\.|embeddings\.position_ids$",
    "bert": r"pooler\.|cls\.|classifier\.|qa_outputs\.|embeddings\.position_ids$",
}

# Axes of length 1 that their tensors have in front of ours.
LEADING = {"embeddings.cls_token": 2, "embeddings.position_embeddings": 1}

TOKEN_TYPES = "embeddings.token_type_embeddings.weight"


def resnet_variables(tensors: Tensors, *, sizes: Mapping[str, Any]) -> Variables:
    """Variables of `ResNet(**sizes)` from the tensors of a `ResNetModel`.

    Args:
        tensors: arrays by name.
        sizes: attributes of ResNet, as an entry of RESNETS.

    Returns:
        {"params": ..., "batch_stats": ...}, float32 numpy arrays.

    Raises:
        ValueError: naming every missing, unexpected and misshapen tensor.
    """
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return _convert(tensors, _shapes(ResNet(**sizes), image), "resnet")


def vit_variables(tensors: Tensors, *, sizes: Mapping[str, Any]) -> Variables:
    """Variables of `ViT(**sizes)` from the tensors of a `ViTModel`.

    Args:
        tensors: arrays by name.
        sizes: attributes of ViT, as an entry of VITS, with the checkpoint's own
            `patch` and `grid`.

    Returns:
        {"params": ...}, float32 numpy arrays.

    Raises:
        ValueError: naming every missing, unexpected and misshapen tensor.
    """
    model = ViT(**sizes)
    image = jax.ShapeDtypeStruct((1, model.patch, model.patch, 3), jnp.float32)
    return _convert(tensors, _shapes(model, image), "vit")


def distilbert_variables(tensors: Tensors, *, sizes: Mapping[str, Any]) -> Variables:
    """Variables of `DistilBert(**sizes)` from the tensors of a `DistilBertModel`.

    Args:
        tensors: arrays by name.
        sizes: attributes of DistilBert, as an entry of BERTS.

    Returns:
        {"params": ...}, float32 numpy arrays.

    Raises:
        ValueError: naming every missing, unexpected and misshapen tensor.
    """
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return _convert(tensors, _shapes(DistilBert(**sizes), ids, ids), "distilbert")


def bert_variables(tensors: Tensors, *, sizes: Mapping[str, Any]) -> Variables:
    """Variables of `DistilBert(**sizes)` from the tensors of a `BertModel`.

    A caption is one segment, so the embedding of token type 0 is added to every
    position's: the one place where values are not the file's own.

    Args:
        tensors: arrays by name.
        sizes: attributes of DistilBert, as an entry of BERTS.

    Returns:
        {"params": ...}, float32 numpy arrays.

    Raises:
        ValueError: naming every missing, unexpected and misshapen tensor.
    """
    model = DistilBert(**sizes)
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    shapes = _shapes(model, ids, ids)
    # A second type is usual; as many are wanted as there are.
    found = [t for name, t in tensors.items() if name.endswith(TOKEN_TYPES)]
    types = np.shape(found[0])[0] if found and np.ndim(found[0]) else 2
    shapes[("token_types", TOKEN_TYPES)] = (types, model.hidden)
    variables = _convert(tensors, shapes, "bert")
    variables["params"]["positions"] += variables.pop("token_types")[TOKEN_TYPES][:1]
    return variables


def load(
    path: str | Path, *, grid: int | None = None
) -> tuple[Architecture, Variables]:
    """Read an encoder from a local folder of Hugging Face's.

    Args:
        path: folder with `config.json` and `model.safetensors`, or that
            `.safetensors` file (its `config.json` beside it).
        grid: side in patches to which a ViT's position table is resized, for
            pictures of another size; None keeps the checkpoint's.

    Returns:
        The architecture, as its config.json names it, and its variables.

    Raises:
        ValueError: if a file is not there, the architecture is not known or has a
            variant that our modules lack, or a tensor is missing, unexpected or
            misshapen.
    """
    path = Path(path)
    folder, weights = (
        (path.parent, path) if path.is_file() else (path, path / "model.safetensors")
    )
    for file in (folder / "config.json", weights):
        if not file.is_file():
            raise ValueError(
                f"got {path}, where {file.name} is not, expected a folder with "
                "config.json and model.safetensors"
            )
    architecture = read_config(json.loads((folder / "config.json").read_text()))
    name, sizes = architecture
    convert = {
        "resnet": resnet_variables,
        "vit": vit_variables,
        "distilbert": distilbert_variables,
        "bert": bert_variables,
    }[name]
    variables = convert(load_file(weights), sizes=sizes)
    if grid is not None:
        if name != "vit":
            raise ValueError(f"got a grid for a {name!r}, expected it for a 'vit'")
        table = interpolate_positions(variables["params"]["positions"], grid=grid)
        variables["params"]["positions"] = np.asarray(table)
        architecture = Architecture(name, {**sizes, "grid": grid})
    return architecture, variables


_BERT: dict[str, tuple[str, Any]] = dict(
    vocab_size=("vocab_size", 30522),
    max_length=("max_position_embeddings", 512),
)
_TRANSFORMER: dict[str, tuple[str, Any]] = dict(
    hidden=("hidden_size", 768),
    layers=("num_hidden_layers", 12),
    heads=("num_attention_heads", 12),
    mlp=("intermediate_size", 3072),
    eps=("layer_norm_eps", 1e-12),
)

# Our attribute: their key in config.json, and its value where the file lacks it.
SIZES: dict[str, dict[str, tuple[str, Any]]] = {
    "resnet": dict(
        stage_sizes=("depths", (3, 4, 6, 3)),
        width=("embedding_size", 64),
        bottleneck=("layer_type", "bottleneck"),
    ),
    "vit": dict(
        **_TRANSFORMER,
        patch=("patch_size", 16),
        grid=("image_size", 224),
        qkv_bias=("qkv_bias", True),
    ),
    "distilbert": dict(
        **_BERT,
        hidden=("dim", 768),
        layers=("n_layers", 6),
        heads=("n_heads", 12),
        mlp=("hidden_dim", 3072),
    ),
    "bert": dict(**_BERT, **_TRANSFORMER),
}

# What a config.json must say where it says anything.
FIXED: dict[str, dict[str, Any]] = {
    "resnet": dict(
        hidden_act="relu",
        downsample_in_first_stage=False,
        downsample_in_bottleneck=False,
    ),
    "vit": dict(hidden_act="gelu"),
    "distilbert": dict(activation="gelu"),
    "bert": dict(
        hidden_act="gelu", position_embedding_type="absolute", is_decoder=False
    ),
}


def read_config(config: Mapping[str, Any]) -> Architecture:
    """Architecture and sizes from the content of a config.json.

    Args:
        config: that content.

    Returns:
        The architecture, with the attributes of our module.

    Raises:
        ValueError: for an unknown model_type, or a variant that our modules lack.
    """
    name = config["model_type"] if "model_type" in config else None
    if name not in SIZES:
        raise ValueError(f"got model_type {name!r}, expected one of {list(SIZES)}")
    fixed = dict(FIXED[name])
    sizes = {
        ours: config[theirs] if theirs in config else default
        for ours, (theirs, default) in SIZES[name].items()
    }
    if name == "resnet":
        sizes["bottleneck"] = sizes["bottleneck"] == "bottleneck"
        sizes["stage_sizes"] = tuple(sizes["stage_sizes"])
        first = sizes["width"] * (4 if sizes["bottleneck"] else 1)
        fixed["hidden_sizes"] = [first * 2**i for i in range(len(sizes["stage_sizes"]))]
    if name == "vit":
        side, patch = sizes["grid"], sizes["patch"]
        if not isinstance(side, int) or not isinstance(patch, int):
            raise ValueError(
                f"got image_size {side} and patch_size {patch}, expected one side each"
            )
        sizes["grid"] = side // patch
    for key, value in fixed.items():
        if key in config and config[key] != value:
            raise ValueError(
                f"got {key} {config[key]!r} in config.json, expected {value!r}"
            )
    return Architecture(name, sizes)


def _shapes(model: Any, *inputs: Any) -> dict[TreePath, tuple[int, ...]]:
    """Shapes of a module's variables by path; nothing is computed."""

    def init(*inputs):
        return model.init(jax.random.key(0), *inputs, train=False)

    tree = traverse_util.flatten_dict(jax.eval_shape(init, *inputs))
    return {path: leaf.shape for path, leaf in tree.items()}


def _rewrite(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _axes(path: TreePath, ndim: int) -> tuple[int, ...]:
    """Places in their kernel of our axes: `[out, in, h, w]` to `[h, w, in, out]`."""
    if path[-1] != "kernel":
        return tuple(range(ndim))
    return (1, 0) if ndim == 2 else (2, 3, 1, 0)


def _convert(
    tensors: Tensors, shapes: Mapping[TreePath, tuple[int, ...]], form: str
) -> Variables:
    """Rename, transpose and check; `shapes` are those of our leaves by path."""
    rules = (*NAMES[form], (r"\b(kernel|scale)$", "weight"))
    paths = {_rewrite(".".join(path[1:]), rules): path for path in shapes}
    leaves, unexpected, misshapen = {}, [], []
    for given, tensor in tensors.items():
        name = given.removeprefix(f"{form}.")
        if re.match(EXTRAS[form], name):
            continue
        name = _rewrite(name, SPELLINGS[form])
        path = paths.pop(name, None)
        if path is None:
            unexpected.append(given)
            continue
        ours = shapes[path]
        axes = _axes(path, len(ours))
        leading = (1,) * LEADING.get(name, 0)
        theirs = (*leading, *(ours[axes.index(i)] for i in range(len(ours))))
        if np.shape(tensor) != theirs:
            got = list(np.shape(tensor))
            misshapen.append(f"{given} (got {got}, expected {list(theirs)})")
            continue
        leaf = np.array(tensor, np.float32).reshape(theirs[len(leading) :])
        leaves[path] = np.ascontiguousarray(leaf.transpose(axes))
    faults = {"missing": paths, "unexpected": unexpected, "misshapen": misshapen}
    if any(faults.values()):
        listed = "; ".join(f"{k}: {', '.join(v)}" for k, v in faults.items() if v)
        raise ValueError(f"tensors do not fit the {form}: {listed}")
    return traverse_util.unflatten_dict(leaves)
