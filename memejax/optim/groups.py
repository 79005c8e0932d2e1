"""Parameter groups: optimizer settings by parameter path.

A group is a pattern over parameter paths (`cnn/image_encoder/...`) and the recipe
for the leaves it matches. A leaf that is not in exactly one group is an error at
start-up: a leaf in none would be silently frozen, which made a published run of this
method fail.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax

Tree = Any

# A block of a transformer, or of a ResNet.
_BLOCK = re.compile(r"block(\d+)|stage(\d+)_block(\d+)")
# Parameters of our encoders before the first block.
_STEM = ("patch", "cls", "positions", "words", "embeddings", "stem")


@dataclasses.dataclass(frozen=True)
class Group:
    """One parameter group.

    Leaves with fewer than two axes never decay. A ViT's `cls`, `[d]` here, is one of
    them, its `positions` are not. Recipes that keep both with three axes (DINO's)
    decay both; others decay neither, which requires `decay_exempt`.

    Attributes:
        pattern: regular expression that matches the whole path of a leaf.
        lr: peak learning rate; 0 freezes the group.
        weight_decay: for leaves with two or more axes; its meaning depends on the rule.
        clip: largest global norm of the group's gradient; 0 disables clipping.
        clip_each: largest norm of each leaf's gradient, applied before `clip`, as in
            DINO; 0 disables clipping.
        frozen_steps: number of first updates in which the leaves are frozen: no update,
            no decay, and an unchanged state of the rule. Schedules still advance.
        decay_exempt: regular expression of whole paths without weight decay.
        layer_decay: in (0, 1]; a leaf in layer l of an encoder with L layers learns at
            the rate times layer_decay^(L - l), see `layer_of`.
        rule: the group's update rule, so that each arm may have its own optimizer; ""
            uses the optimizer's.

    Raises:
        ValueError: for a negative number, or a layer_decay outside (0, 1].
    """

    pattern: str
    lr: float
    weight_decay: float = 0.0
    clip: float = 0.0
    clip_each: float = 0.0
    frozen_steps: int = 0
    decay_exempt: str = ""
    layer_decay: float = 1.0
    rule: str = ""

    def __post_init__(self):
        for name in ("lr", "weight_decay", "clip", "clip_each", "frozen_steps"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"got {name} {getattr(self, name)}, expected 0 or more"
                )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(
                f"got layer_decay {self.layer_decay}, expected one in (0, 1]"
            )

    def decays(self, path: str, leaf: Any) -> bool:
        """Whether weight decay applies to a leaf of this group."""
        exempt = self.decay_exempt and re.fullmatch(self.decay_exempt, path)
        return leaf.ndim > 1 and not exempt


def path_of(path: tuple[Any, ...]) -> str:
    """Return a leaf's path as text, such as `cnn/fusion/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def label_parameters(params: Tree, groups: Mapping[str, Group]) -> Tree:
    """Return the group name of every leaf, as a tree like `params`.

    Raises:
        ValueError: if leaves are in no group or in several, groups match no leaf, or a
            decay_exempt matches no leaf; the message lists them.
    """
    problems, used, paths = [], set(), []

    def label(path, _):
        name = path_of(path)
        paths.append(name)
        matches = [
            g for g, group in groups.items() if re.fullmatch(group.pattern, name)
        ]
        used.update(matches)
        if len(matches) != 1:
            problems.append(f"  {name} is in {matches or 'no group'}")
        return matches[0] if matches else ""

    labels = jax.tree_util.tree_map_with_path(label, params)
    problems += [
        f"  group {name} ({groups[name].pattern}) matches no leaf"
        for name in sorted(set(groups) - used)
    ]
    if problems:
        raise ValueError(
            "every parameter must be in exactly one optimizer group:\n"
            + "\n".join(problems)
        )
    # Among all groups' leaves: groups may share one expression.
    for name, group in groups.items():
        exempt = group.decay_exempt
        if exempt and not any(re.fullmatch(exempt, path) for path in paths):
            raise ValueError(f"group {name}: decay_exempt {exempt} matches no leaf")
    return labels


def layer_of(path: str, paths: Iterable[str]) -> tuple[int, int]:
    """Return the layer l of a leaf in its encoder, and the encoder's last layer L.

    An encoder is a subtree that directly contains `block<i>` (a transformer) or
    `stage<i>_block<j>` (a ResNet). Its leaves have the layers

    | leaf | layer |
    |---|---|
    | `patch`, `cls`, `positions`, `words`, `stem`; `norm` beside `words` (BERT's, of the embeddings) | 0 |
    | `block<i>`; the i-th `stage<s>_block<j>` in order | i + 1 |
    | everything else: after the blocks | L = blocks + 1 |

    A leaf outside every encoder (a head, a fusion layer) comes after all of them:
    its layer is the L of the deepest encoder, 0 if there is none.

    Args:
        path: the leaf's path, as returned by `path_of`.
        paths: the paths of the whole model.

    Returns:
        (l, L), 0 <= l <= L. Layer-wise decay multiplies the leaf's rate by
        decay^(L - l).

    References:
        Clark et al., ELECTRA, 2003.10555, appendix A; Bao et al., BEiT, 2106.08254.

    >>> paths = ["vit/patch/kernel", "vit/block0/mlp", "vit/block1/mlp", "fc/kernel"]
    >>> [layer_of(path, paths) for path in paths]
    [(0, 3), (1, 3), (2, 3), (3, 3)]
    """  # noqa: E501
    encoders: dict[tuple[str, ...], set[tuple[int, ...]]] = {}
    children: dict[tuple[str, ...], set[str]] = {}
    for name in paths:
        parts = tuple(name.split("/"))
        for i, part in enumerate(parts):
            children.setdefault(parts[:i], set()).add(part)
        encoder, block = _block(parts)
        if block is not None:
            encoders.setdefault(encoder, set()).add(block)

    parts = tuple(path.split("/"))
    enclosing = [encoder for encoder in encoders if parts[: len(encoder)] == encoder]
    if not enclosing:
        deepest = max((len(blocks) + 1 for blocks in encoders.values()), default=0)
        return deepest, deepest
    encoder = max(enclosing, key=len)
    last = len(encoders[encoder]) + 1
    parent, block = _block(parts)
    if block is not None and parent == encoder:
        return sorted(encoders[encoder]).index(block) + 1, last
    first = parts[len(encoder)]
    embeds = first == "norm" and "words" in children[encoder]
    return (0 if first in _STEM or embeds else last), last


def _block(parts: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """Return the parent and the numbers of the first block in a path, None if none."""
    for i, part in enumerate(parts):
        match = _BLOCK.fullmatch(part)
        if match:
            return parts[:i], tuple(int(n) for n in match.groups() if n is not None)
    return parts, None
