"""What a study's page is made from: its arms, and what was seen on the way.

Errors are fractions. Row s of an arm's errors is the same seed s in every arm, so that
arms can be compared seed by seed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

# Kinds of arms, in the order of the tables, and their names for a person.
GROUPS = {
    "uniform": "uniform sampling",
    "baseline": "other baselines",
    "bac": "bootstrapped active curricula (BAC)",
    "dsac": "dynamic sampled active curricula (DSAC)",
}
# Scores that have a name for a person; another is its own.
SCORES = {"aadt": "AADT", "aadt_squared": "squared AADT", "bald": "BALD"}
# Names of diagnostics: of what a stretch of updates was sampled from.
DIAGNOSTICS = (
    "ess_share",
    "achieved_ratio",
    "unique_fraction",
    "class_share_min",
    "class_share_max",
)
FAVOURS = ("easy", "hard")


def score_title(score: str) -> str:
    """A score's name for a person."""
    return SCORES[score] if score in SCORES else score


@dataclasses.dataclass(frozen=True, eq=False)
class Arm:
    """One way to choose examples, trained once a seed.

    Attributes:
        name: short and unique, as "bac-entropy-easy-2".
        title: for a person.
        group: one of `GROUPS`.
        primary: whether it is of the family declared beforehand, whose p values are
            corrected together.
        updates: of the parameters, a seed.
        seconds: that all seeds took together.
        steps: `[k]` updates after which it was evaluated, ascending.
        validation_error: `[seeds, k]`, fractions.
        test_error: `[seeds, k]`, fractions.
        diagnostics: name of `DIAGNOSTICS` -> (updates `[r]`, values `[r]`, the mean
            over seeds).
        refreshes: (update, sampling probabilities `[n]` of the first seed) in order;
            they hold until the next.
        finished: False for an arm that has still to reach its last update; its errors
            may end early or be missing, and it is compared with nothing.
        score: that orders or weighs the examples, as "entropy"; None for none.
        favour: "easy" or "hard", None for neither.
        ratio: the largest sampling probability over the least that was asked for; inf
            where it was not controlled, None where it means nothing.
        variant: what else sets it apart from arms with the same score, favour and
            ratio; an arm with one is left out of the picture over ratios.
    """

    name: str
    title: str
    group: str
    primary: bool
    updates: int
    seconds: float
    steps: ArrayLike
    validation_error: ArrayLike
    test_error: ArrayLike
    diagnostics: Mapping[str, tuple[ArrayLike, ArrayLike]] = dataclasses.field(
        default_factory=dict
    )
    refreshes: Sequence[tuple[int, ArrayLike]] = ()
    finished: bool = True
    score: str | None = None
    favour: str | None = None
    ratio: float | None = None
    variant: str = ""

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise self._wrong(f"group {self.group!r}", f"one of {list(GROUPS)}")
        if self.favour not in (None, *FAVOURS):
            raise self._wrong(f"favour {self.favour!r}", f"None or one of {FAVOURS}")
        if self.ratio is not None and not self.ratio >= 1:
            raise self._wrong(f"ratio {self.ratio}", "None or a number from 1 to inf")
        steps, test = np.asarray(self.steps), np.asarray(self.test_error, float)
        shapes = f"errors {np.shape(self.validation_error)} and {test.shape}"
        if (
            steps.ndim != 1
            or test.ndim != 2
            or test.shape[1] != len(steps)
            or test.shape != np.shape(self.validation_error)
        ):
            raise self._wrong(
                f"steps {steps.shape}, {shapes}", "[k], [seeds, k] and [seeds, k]"
            )
        if (np.diff(steps) <= 0).any():
            raise self._wrong(f"steps {steps}", "ascending numbers of updates")
        if self.finished:
            self._check_end(steps, test)
        self._check_sampling()

    @property
    def seeds(self) -> int:
        """How many times it was trained."""
        return np.shape(self.test_error)[0]

    def _check_end(self, steps: np.ndarray, test: np.ndarray) -> None:
        """A finished arm has errors, all of them, up to its last update."""
        if not len(steps) or not len(test) or steps[-1] != self.updates:
            raise self._wrong(
                f"{len(test)} seeds evaluated at {steps}",
                f"seeds evaluated up to the last update, {self.updates}",
            )
        for errors in (test, np.asarray(self.validation_error, float)):
            if not ((errors >= 0) & (errors <= 1)).all():
                raise self._wrong(
                    f"errors from {errors.min()} to {errors.max()}",
                    "fractions in [0, 1]",
                )

    def _check_sampling(self) -> None:
        """Diagnostics are known and of one length; probabilities are such."""
        unknown = sorted(set(self.diagnostics) - set(DIAGNOSTICS))
        if unknown:
            raise self._wrong(f"diagnostics {unknown}", f"of {DIAGNOSTICS}")
        for name, (steps, values) in self.diagnostics.items():
            if np.ndim(steps) != 1 or np.shape(steps) != np.shape(values):
                raise self._wrong(
                    f"{name} of shapes {np.shape(steps)} and {np.shape(values)}",
                    "[r] and [r]",
                )
        for step, probs in self.refreshes:
            p = np.asarray(probs, float)
            if p.ndim != 1 or not (p >= 0).all() or not abs(p.sum() - 1) < 1e-3:
                raise self._wrong(
                    f"probabilities of shape {p.shape} with sum {p.sum()} at {step}",
                    "[n] of at least 0 with sum 1",
                )

    def _wrong(self, got: str, expected: str) -> ValueError:
        return ValueError(f"arm {self.name!r}: got {got}, expected {expected}")


@dataclasses.dataclass(frozen=True, eq=False)
class Correlations:
    """How far scores order the examples alike.

    Attributes:
        names: `[m]` of scores, of the loss, of a known difficulty.
        matrix: Spearman's rank correlations `[m, m]`; NaN where one is constant.
    """

    names: Sequence[str]
    matrix: ArrayLike

    def __post_init__(self) -> None:
        side, shape = len(self.names), np.shape(self.matrix)
        if shape != (side, side):
            raise ValueError(
                f"got correlations {shape} of {side} names, expected {(side, side)}"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Toy:
    """Scores along a line: what one sees and another does not.

    Attributes:
        x: `[g]`, ascending.
        curves: name -> `[g]`, each drawn in a panel of its own.
        said: under the picture, what is to be seen in it.
        train: `[t]` places of training examples, marked on the axis; None for none.
    """

    x: ArrayLike
    curves: Mapping[str, ArrayLike]
    said: str = ""
    train: ArrayLike | None = None

    def __post_init__(self) -> None:
        for name, values in self.curves.items():
            if np.shape(values) != np.shape(self.x) or np.ndim(values) != 1:
                raise ValueError(
                    f"got toy curve {name!r} of shape {np.shape(values)}, expected "
                    f"that of x, {np.shape(self.x)}, as [g]"
                )


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """Arms on one data set, to be compared with one of them.

    Attributes:
        title: of the page.
        preset: "demo", "full" or "paper".
        size: what was run in a line, as "10 seeds, 20,000 updates, 50,000 images".
        data: name of a fact -> value, as {"Data": "MNIST", "Train": 60000}.
        arms: in the order of the tables within their group.
        reference: name of the arm that the others are compared with.
        band: a difference of the error, as a fraction, that does not matter.
        labels: ints `[n]` of the training examples, -1 unknown; None if not to be
            shown.
        class_names: of label 0 first; () writes the labels.
        pictures: (arm's name, update) -> (pictures with the lowest scores, with the
            highest), uint8 `[k, h, w, 1 or 3]` each.
        correlations: of scores with each other; None for none.
        toy: a picture on a line; None for none.
        notes: sentences for the head of the page.
    """

    title: str
    preset: str
    size: str
    data: Mapping[str, object]
    arms: Sequence[Arm]
    reference: str
    band: float
    labels: ArrayLike | None = None
    class_names: Sequence[str] = ()
    pictures: Mapping[tuple[str, int], tuple[ArrayLike, ArrayLike]] = dataclasses.field(
        default_factory=dict
    )
    correlations: Correlations | None = None
    toy: Toy | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names) or self.reference not in names:
            raise ValueError(
                f"got arms {names} and reference {self.reference!r}, expected "
                "different names, one of them the reference's"
            )
        if self.compared_with.primary:
            raise ValueError(
                f"got a primary reference {self.reference!r}, expected primary arms "
                "to be compared with it"
            )
        if not 0 < self.band < math.inf:
            raise ValueError(f"got a band of {self.band}, expected a positive fraction")
        unknown = sorted({name for name, _ in self.pictures} - set(names))
        if unknown:
            raise ValueError(f"got pictures of arms {unknown}, expected of {names}")

    @property
    def alone(self) -> bool:
        """Whether there is one arm only."""
        return len(self.arms) == 1

    @property
    def compared_with(self) -> Arm:
        """The reference."""
        return next(arm for arm in self.arms if arm.name == self.reference)
