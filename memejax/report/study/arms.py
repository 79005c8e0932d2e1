"""Input of a study's page: its arms, their errors and samples over time.

Errors are fractions. Row s of an arm's errors is the same seed s in every arm, so that
arms can be compared seed by seed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

# Kinds of arms in the order of the tables, with their names for display.
GROUPS = {
    "uniform": "uniform sampling",
    "baseline": "other baselines",
    "bac": "bootstrapped active curricula (BAC)",
    "dsac": "dynamic sampled active curricula (DSAC)",
}
# Scores with a name for display; others are displayed as they are.
SCORES = {"aadt": "AADT", "aadt_squared": "squared AADT", "bald": "BALD"}
# Names of diagnostics of the probabilities that a stretch was sampled from.
DIAGNOSTICS = (
    "ess_share",
    "achieved_ratio",
    "unique_fraction",
    "class_share_min",
    "class_share_max",
)
FAVOURS = ("easy", "hard")


def score_title(score: str) -> str:
    """Return the name of a score for display."""
    return SCORES[score] if score in SCORES else score


@dataclasses.dataclass(frozen=True, eq=False)
class Arm:
    """One way to choose examples, trained once per seed.

    Attributes:
        name: short and unique, as "bac-entropy-easy-2".
        title: for display.
        group: one of `GROUPS`.
        primary: whether it is of the family declared beforehand, whose p values are
            corrected together.
        updates: of the parameters, per seed.
        seconds: for all seeds together.
        steps: `[k]` updates of the evaluations, ascending.
        validation_error: `[seeds, k]`, fractions.
        test_error: `[seeds, k]`, fractions.
        diagnostics: name of `DIAGNOSTICS` -> (updates `[r]`, values `[r]`, the mean
            over seeds).
        refreshes: (update, sampling probabilities `[n]` of the first seed) in order;
            they hold until the next.
        finished: False for an arm that has still to reach its last update; its errors
            may end early or be missing, and it is compared with nothing.
        score: orders or weighs the examples, as "entropy"; None without one.
        favour: "easy" or "hard", None for neither.
        ratio: the wanted largest sampling probability over the smallest; inf if it was
            not controlled, None if it has no meaning.
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
        """Number of seeds."""
        return np.shape(self.test_error)[0]

    def _check_end(self, steps: np.ndarray, test: np.ndarray) -> None:
        """Check that all errors up to the last update are there."""
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
        """Check names and lengths of diagnostics, and that probabilities sum to 1."""
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
    """Rank correlations between scores.

    Attributes:
        names: `[m]` of scores, of the loss, of a known difficulty.
        matrix: Spearman's rank correlations `[m, m]`; NaN if one is constant.
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
    """Scores along a line, to compare what they respond to.

    Attributes:
        x: `[g]`, ascending.
        curves: name -> `[g]`, each drawn in a panel of its own.
        caption: under the picture.
        train: `[t]` places of training examples, marked on the axis; None for none.
    """

    x: ArrayLike
    curves: Mapping[str, ArrayLike]
    caption: str = ""
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
        size: of the study in a line, as "10 seeds, 20,000 updates, 50,000 images".
        data: name of a fact -> value, as {"Data": "MNIST", "Train": 60000}.
        arms: in the order of the tables within their group.
        reference: name of the arm that the others are compared with.
        band: a difference of the error, as a fraction, that does not matter.
        labels: ints `[n]` of the training examples, -1 unknown; None to leave shares
            of classes out.
        class_names: in the order of the labels; () to use the labels.
        pictures: (arm's name, class, update) -> (pictures of the class with the lowest
            scores, with the highest), uint8 `[k, h, w, 1 or 3]` each.
        correlations: of scores with each other; None without them.
        toy: scores along a line; None without them.
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
    pictures: Mapping[tuple[str, str, int], tuple[ArrayLike, ArrayLike]] = (
        dataclasses.field(default_factory=dict)
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
        unknown = sorted({name for name, _, _ in self.pictures} - set(names))
        if unknown:
            raise ValueError(f"got pictures of arms {unknown}, expected of {names}")

    @property
    def alone(self) -> bool:
        """Whether there is only one arm."""
        return len(self.arms) == 1

    @property
    def compared_with(self) -> Arm:
        """The reference, which the others are compared with."""
        return next(arm for arm in self.arms if arm.name == self.reference)
