"""What an evaluation is: how a stage is judged while it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# The metric of the dev split that chooses the best checkpoint.
BEST = "auroc"


@dataclasses.dataclass(frozen=True)
class Measured:
    """What an evaluation found.

    Attributes:
      values: figures for the log.
      rating: the one that chooses the best checkpoint; larger is better.
      histograms: name -> values, for TensorBoard.
      said: which figures the console shows; None shows all.
    """

    values: Mapping[str, float]
    rating: float
    histograms: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    said: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How a stage is judged while it runs.

    Attributes:
      measure: state -> Measured.
      split: name of what it is measured on.
      rating: what the rating is called.
    """

    measure: Callable[[Any], Measured]
    split: str
    rating: str = BEST
