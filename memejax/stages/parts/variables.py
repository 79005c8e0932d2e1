"""Initial parameters: random, from checkpoints, or from the previous stage."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from memejax import datasets, optim, parallel
from memejax.stages.parts.pretrained import named, prefix_errors
from memejax.weights import checkpoint as checkpoints

Tree = Any


def random_variables(
    arms: Any,
    split: datasets.Split,
    *,
    views: Callable[..., Any],
    key: Callable[[], jax.Array],
    method: str,
) -> Callable[[], Tree]:
    """Make the pure function that returns random parameters and statistics.

    Args:
        arms: a module.
        split: its examples give the input shapes.
        views: `(key, batch, train=) -> inputs`.
        key: returns the PRNG key; called when tracing.
        method: of the module.
    """
    two = np.arange(2) % len(split.ids)
    batch = {name: column[two] for name, column in split.source.items()}
    batch |= {"index": two, "draw": two}

    def variables() -> Tree:
        made = views(None, jax.tree.map(jnp.asarray, batch), train=False)
        return arms.init(key(), made, train=False, method=method)

    return variables


def load_weights(config: ConfigDict, variables: Tree) -> Tree:
    """Replace encoders' variables by the checkpoints in `weights`.

    Raises:
        CheckpointError: if a file cannot be read, or has values that are not finite.
        ValueError: if leaves are missing, unexpected or of another shape (listed).
    """
    variables = jax.tree.map(lambda x: x, variables)
    for arm in config.arms:
        for part, leaf in (
            ("image_encoder", f"image_{arm}"),
            ("text_encoder", "text"),
        ):
            path = named(config, leaf)
            place = variables["params"].get(f"arms_{arm}", {})
            if path is None or part not in place:
                continue
            table = place[part].get("positions") if part == "image_encoder" else None
            # A ViT's checkpoint may be for another picture size.
            # Whole, with a class token's row or without one.
            grid = None if table is None else math.isqrt(len(table))
            tower = part.removesuffix("_encoder")
            with prefix_errors(f"weights.{leaf}", path):
                loaded = checkpoints.load(path, grid=grid, tower=tower)
            what = f"{path}, a {loaded.architecture.name},"
            _replace(variables, loaded.variables, (f"arms_{arm}", part), what)
    return variables


def _replace(variables: Tree, loaded: Tree, path: tuple[str, str], what: str) -> None:
    """Replace a subtree of every collection, checking the shapes."""
    arm, part = path
    for collection, tree in loaded.items():
        old = variables.get(collection, {}).get(arm, {}).get(part, {})
        if not set(tree) & set(old):
            raise ValueError(
                f"{what} is of another architecture than {arm}/{part}: the model has "
                f"{sorted(old)} there, the checkpoint {sorted(tree)}"
            )
        shapes = [jax.tree.map(np.shape, t) for t in (old, tree)]
        if shapes[0] != shapes[1]:
            flat = [
                dict(jax.tree_util.tree_leaves_with_path(s, is_leaf=_is_shape))
                for s in shapes
            ]
            wrong = [
                f"  {optim.path_of(k)}: the model has {flat[0].get(k)}, "
                f"the checkpoint {flat[1].get(k)}"
                for k in sorted(flat[0].keys() | flat[1].keys(), key=str)
                if flat[0].get(k) != flat[1].get(k)
            ]
            hint = (
                "\nweights.allow_new_head=True starts it at random"
                if part == "head"
                else ""
            )
            raise ValueError(
                f"{what} does not fit {arm}/{part}:\n" + "\n".join(wrong) + hint
            )
        variables[collection][arm][part] = jax.tree.map(parallel.put_like, tree, old)


def _is_shape(x: Any) -> bool:
    return isinstance(x, tuple)


def transfer(old: Tree, new: Tree) -> Tree:
    """Return `new` with copies of the leaves that `old` has at the same path and shape.

    Raises:
        ValueError: if no leaf is copied.
    """
    taken = check_transfer(old, new)
    leaves, shape = jax.tree_util.tree_flatten_with_path(new)
    paths = [optim.path_of(path) for path, _ in leaves]
    merged = {path: leaf for path, (_, leaf) in zip(paths, leaves, strict=True)}
    merged |= parallel.copy_like(taken, {path: merged[path] for path in taken})
    return jax.tree.unflatten(shape, [merged[path] for path in paths])


def check_transfer(old: Tree, new: Tree) -> dict[str, Any]:
    """Return the leaves of `old` that `transfer` copies, by path; shapes suffice.

    Raises:
        ValueError: if there are none.
    """
    known, wanted = (
        {
            optim.path_of(path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (old, new)
    )
    taken = {
        path: known[path]
        for path, leaf in wanted.items()
        if path in known and known[path].shape == leaf.shape
    }
    if not taken:
        raise ValueError("nothing of the pretrained state fits the model to fine-tune")
    return taken


def load_classifiers(config: ConfigDict, variables: Tree) -> Tree:
    """Replace the arms' image heads by the checkpoints' classifiers.

    Both arms then have the same classes, so that their outputs are aligned from the
    start. With `weights.allow_new_head` a head of another size stays as it is.

    Raises:
        ValueError: if a checkpoint has no classifier; if a head and its classifier
            differ in shape.
    """
    variables = jax.tree.map(lambda x: x, variables)
    for arm in config.arms:
        path = config.weights[f"image_{arm}"]
        place = variables["params"][f"arms_{arm}"]
        if path is None or "head" not in place:
            continue
        with prefix_errors(f"weights.image_{arm}", path):
            classifier = checkpoints.load(path).classifier
        if classifier is None:
            raise ValueError(
                f"{path} has no classifier: set weights.heads=False, or take a "
                "checkpoint for image classification"
            )
        same = jax.tree.map(np.shape, classifier) == jax.tree.map(
            np.shape, dict(place["head"])
        )
        if same or not config.weights.allow_new_head:
            head = (f"arms_{arm}", "head")
            _replace(variables, {"params": classifier}, head, str(path))
    return variables
