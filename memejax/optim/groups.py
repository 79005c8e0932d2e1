"""Parameter groups: which parameter learns how.

A group is a pattern over parameter paths (`cnn/image_encoder/...`) and the recipe
of the leaves it matches. Every leaf is in exactly one group, or it is an error at
start-up: a leaf in none is silently frozen, which is how a published run of this
method came to nothing.
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
# What an encoder of ours does before its first block.
_STEM = ("patch", "cls", "positions", "words", "embeddings", "stem")


@dataclasses.dataclass(frozen=True)
class Group:
    """One parameter group.

    Leaves of fewer than two axes never decay. A ViT's `cls` is one of them, `[d]`
    here, and its `positions` are not. Recipes that keep both with three axes (DINO's)
    decay both; others decay neither, which takes a `decay_exempt`.

    Attributes:
        pattern: regular expression that matches the whole path of a leaf.
        lr: peak learning rate; 0 freezes the group.
        weight_decay: on leaves of two axes and more; what it means is the rule's.
        clip: largest global norm of the group's gradient; 0 does not clip.
        clip_each: largest norm of each leaf's own gradient, as DINO clips, before
            `clip`; 0 does not clip.
        frozen_steps: for so many first updates the leaves are as if they had no
            gradient: no update, no decay, and the rule's state stays as it began.
            Schedules go on meanwhile.
        decay_exempt: regular expression of whole paths that do not decay either.
        layer_decay: in (0, 1]; a leaf of layer l of an encoder of L layers learns at
            the rate times layer_decay^(L - l), see `layer_of`.
        rule: the group's own update rule, so that each arm may have an optimizer of its
            own; "" takes the optimizer's.

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
    """A leaf's path as text, `cnn/fusion/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def label_parameters(params: Tree, groups: Mapping[str, Group]) -> Tree:
    """The group's name of every leaf, in the shape of `params`.

    Raises:
        ValueError: naming every leaf that is in no group or in several, every group
            that holds no leaf, and every decay_exempt that matches no leaf at all.
    """
    problems, used, paths = [], set(), []

    def label(path, _):
        name = path_of(path)
        paths.append(name)
        found = [g for g, group in groups.items() if re.fullmatch(group.pattern, name)]
        used.update(found)
        if len(found) != 1:
            problems.append(f"  {name} is in {found or 'no group'}")
        return found[0] if found else ""

    labels = jax.tree_util.tree_map_with_path(label, params)
    problems += [
        f"  group {name} ({groups[name].pattern}) holds nothing"
        for name in sorted(set(groups) - used)
    ]
    if problems:
        raise ValueError(
            "every parameter must be in exactly one optimizer group:\n"
            + "\n".join(problems)
        )
    # Of any group's leaves: one expression may be shared by all groups.
    for name, group in groups.items():
        exempt = group.decay_exempt
        if exempt and not any(re.fullmatch(exempt, path) for path in paths):
            raise ValueError(f"group {name}: decay_exempt {exempt} matches no leaf")
    return labels


def layer_of(path: str, paths: Iterable[str]) -> tuple[int, int]:
    """The layer l of a leaf in its encoder, and the encoder's last layer L.

    An encoder is what directly holds `block<i>` (a transformer) or
    `stage<i>_block<j>` (a ResNet). Of its leaves

    | leaf | layer |
    |---|---|
    | `patch`, `cls`, `positions`, `words`, `stem`; `norm` beside `words` (BERT's, of the embeddings) | 0 |
    | `block<i>`; the i-th `stage<s>_block<j>` in order | i + 1 |
    | everything else: after the blocks | L = blocks + 1 |

    A leaf outside every encoder (a head, a fusion layer) comes after all of them:
    its layer is the L of the deepest encoder, 0 if there is none.

    Args:
        path: the leaf's, as `path_of` writes it.
        paths: those of the whole model.

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
        place, block = _block(parts)
        if block is not None:
            encoders.setdefault(place, set()).add(block)

    parts = tuple(path.split("/"))
    around = [place for place in encoders if parts[: len(place)] == place]
    if not around:
        deepest = max((len(blocks) + 1 for blocks in encoders.values()), default=0)
        return deepest, deepest
    place = max(around, key=len)
    last = len(encoders[place]) + 1
    inner, block = _block(parts)
    if block is not None and inner == place:
        return sorted(encoders[place]).index(block) + 1, last
    first = parts[len(place)]
    embeds = first == "norm" and "words" in children[place]
    return (0 if first in _STEM or embeds else last), last


def _block(parts: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """Where the first block in a path is, and its numbers; None without one."""
    for i, part in enumerate(parts):
        found = _BLOCK.fullmatch(part)
        if found:
            return parts[:i], tuple(int(n) for n in found.groups() if n is not None)
    return parts, None
