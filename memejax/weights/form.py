"""Format of an architecture in a library: the names of its tensors beside ours.

Rules turn our path (`block0.attention.query.kernel`) into their name; they are
substitutions, applied in order. Tensors beside those of the encoder and its classifier
are extras: poolers, counters, heads of pretraining, mask tokens.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

Replacement = str | Callable[[re.Match[str]], str]
Rules = tuple[tuple[str, Replacement], ...]


class Form(NamedTuple):
    """Format of an architecture in a library.

    Attributes:
        architecture: a key of `configs.MODULES`.
        rules: our path to their name.
        extras: ignored tensors, as a pattern of the start of their name.
        prefix: optional prefix of all their names.
        spellings: alternative names of theirs to those made by `rules`.
        classifier: name of the linear classifier, or None.
        fused: pattern of our path where queries, keys and values are stacked in one
            tensor, or None.
        leading: number of leading axes of length 1 in their tensor, by our leaf.
        flax: whether kernels have our layout, with an axis for the heads; otherwise
            PyTorch's.
        flat: whether blocks are numbered through all stages: in the rules, block j of
            stage i is `block<n>`.
    """

    architecture: str
    rules: Rules
    extras: str
    prefix: str = ""
    spellings: Rules = ()
    classifier: str | None = None
    fused: str | None = None
    leading: Mapping[str, int] = {}
    flax: bool = False
    flat: bool = False


TORCH_LEAVES: Rules = (
    (r"\b(kernel|scale)$", "weight"),
    (r"\b(mean|var)$", r"running_\1"),
)


def rewrite(name: str, rules: Rules) -> str:
    """Apply substitutions to a name, in order.

    Args:
        name: path or name.
        rules: pairs of pattern and replacement.

    Returns:
        The new name.
    """
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
