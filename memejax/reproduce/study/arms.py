"""The arms of a study of curricula, and the settings of each data set.

All arms of a study have the same updates, batch, learning rate and seeds, except
"uniform-twice". The hyperparameters were chosen by the validation error of the arm
"uniform" and then fixed.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any

from memejax.models.convnet import CONVNETS
from memejax.report.study.arms import score_title

REFERENCE = "uniform"
SCORES = ("aadt", "entropy", "bald")
# The primary family, declared before anything was run: the thesis's two methods with
# its three scores, in the direction of its text, at its example of two tasks and a
# ratio of 10; and if there are easy pictures, Bengio's switch at half of the run.
PRIMARY_TASKS, PRIMARY_RATIO = 2, 10.0


@dataclasses.dataclass(frozen=True)
class Setup:
    """Settings of a data set.

    Attributes:
        title: readable name.
        overrides: dotted leaf of configs/curriculum.py -> value, for its demo.
        full: the same for the presets full and paper.
        network: network trained.
        band: largest difference in error, as a fraction, that does not matter.
        easy: whether some pictures are known to be easier.
        files: whether the data are read from files.
    """

    title: str
    overrides: Mapping[str, Any]
    band: float
    full: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    easy: bool = False
    files: bool = True
    network: str = "perceptron"


def _training(updates: int, lr: float, **more: Any) -> dict[str, Any]:
    """Leaves of a run of `updates` updates, evaluated and refreshed 16 times."""
    every = updates // 16
    return {
        "train.steps": updates,
        "train.eval_every": every,
        "train.optimizer.groups.all.lr": lr,
        "train.optimizer.schedule": "cosine",
        "curriculum.warmup": every,
        "curriculum.refresh": every,
        "checkpoint.every": updates // 2,
        "log.every": updates // 4,
        **more,
    }


CIFAR10 = {
    "train.batch": 64,
    # The standard augmentation.
    "train.augment.shift": 4,
    "train.augment.flip": 0.5,
    **{
        f"model.convnet.{name}": value
        for name, value in CONVNETS["convnet_cifar10"].items()
    },
}
# A quarter of the network's operations, and 10 epochs.
SMALL_CIFAR10 = {
    "model.convnet.stages": ((16, 16), (32, 32)),
    "model.convnet.dense": 128,
    "data.train": 8000,
    "data.validation": 1000,
    "curriculum.warmup": 160,
    "curriculum.refresh": 160,
}
SETUPS = {
    "geoshapes": Setup(
        "GeoShapes",
        _training(6400, 0.012),
        band=0.01,
        easy=True,
        files=False,
    ),
    "mnist": Setup(
        "MNIST",
        _training(4000, 0.01, **{"data.train": 10_000}),
        band=0.001,
        # All but the validation pictures, 46 epochs.
        full={"data.train": None, "train.optimizer.groups.all.lr": 0.01},
    ),
    "cifar10": Setup(
        "CIFAR-10",
        # On two cores all arms of the primary family take under two hours.
        _training(1280, 0.01, **CIFAR10 | SMALL_CIFAR10),
        band=0.005,
        # 50 epochs of all but the validation pictures.
        full=_training(35_152, 0.01, **CIFAR10, **{"data.train": None}),
        network="convnet",
    ),
}


@dataclasses.dataclass(frozen=True)
class ArmSpec:
    """One way to choose examples.

    Attributes:
        name: short and unique; the folder of its run.
        title: readable name.
        group: one of `report.study.arms.GROUPS`.
        overrides: dotted leaf -> value.
        primary: whether it belongs to the primary family.
        score: score that orders or weights the examples, None if unused.
        favour: "easy", "hard" or None.
        ratio: the maximum ratio, inf if not controlled, None if unused.
        variant: what else sets it apart from arms of the same score, favour and ratio.
    """

    name: str
    title: str
    group: str
    overrides: Mapping[str, Any]
    primary: bool = False
    score: str | None = None
    favour: str | None = None
    ratio: float | None = None
    variant: str = ""


def arms(
    data: str,
    *,
    steps: int,
    preset: str = "demo",
    only_primary: bool = False,
    names: Sequence[str] = (),
) -> list[ArmSpec]:
    """Return the arms of a study, the reference first.

    Args:
        data: one of `SETUPS`.
        steps: updates per arm.
        preset: with "paper" the temperature of DSAC starts at 1 and only ever grows, as
            in the thesis; otherwise a finite ratio is always met.
        only_primary: whether to return only the primary family and its controls.
        names: patterns as in file names, "dsac-aadt*": only these arms and the
            reference, or in addition to the primary family.

    Raises:
        ValueError: if there is no such data set, or a pattern is of no arm.
    """
    if data not in SETUPS:
        raise ValueError(f"unknown data {data!r}: choose one of {sorted(SETUPS)}")
    made = [*_uniform(steps), *_pacing()]
    made += _easy(steps) if SETUPS[data].easy else []
    made += [*_bac(), *_dsac(capped=preset == "paper")]
    every = [arm.name for arm in made]
    for name in names:
        if not fnmatch.filter(every, name):
            near = difflib.get_close_matches(name, every) or every
            raise ValueError(f"no arm {name!r}: did you mean {' or '.join(near)}?")
    if not only_primary and not names:
        return made
    chosen = {REFERENCE, *(n for name in names for n in fnmatch.filter(every, name))}
    if only_primary:
        chosen |= {arm.name for arm in made if arm.primary}
        chosen |= {"replacement", f"random-{PRIMARY_TASKS}"}
    return [arm for arm in made if arm.name in chosen]


def _uniform(steps: int) -> list[ArmSpec]:
    return [
        ArmSpec(REFERENCE, "shuffled passes", "uniform", {}),
        ArmSpec(
            "replacement",
            "drawn with replacement",
            "uniform",
            {"curriculum.kind": "replacement"},
        ),
        ArmSpec(
            "uniform-twice",
            "shuffled passes, twice the updates (what BAC costs)",
            "uniform",
            {"train.steps": 2 * steps},
        ),
    ]


def _pacing() -> list[ArmSpec]:
    return [
        ArmSpec(
            f"random-{tasks}",
            f"{tasks} tasks in random order (pacing alone)",
            "baseline",
            {
                "curriculum.kind": "bac",
                "curriculum.favour": "random",
                "curriculum.tasks": tasks,
            },
        )
        for tasks in (2, 5)
    ]


def _easy(steps: int) -> list[ArmSpec]:
    switches = [
        ArmSpec(
            f"switch-{part}",
            f"easy shapes until 1/{part} of the updates (Bengio et al.)",
            "baseline",
            {"curriculum.kind": "switch", "curriculum.switch": steps // part},
            primary=part == 2,
        )
        for part in (16, 8, 4, 2)
    ]
    return [
        ArmSpec("union", "easy and hard shapes", "baseline", {"data.pool": "union"}),
        ArmSpec("basic", "easy shapes only", "baseline", {"data.pool": "basic"}),
        *switches,
    ]


def _bac() -> list[ArmSpec]:
    return [
        ArmSpec(
            f"bac-{score}-{favour}-{tasks}",
            f"BAC, {score_title(score)}, {favour} first, {tasks} tasks",
            "bac",
            {
                "curriculum.kind": "bac",
                "curriculum.score": score,
                "curriculum.favour": favour,
                "curriculum.tasks": tasks,
            },
            primary=score in SCORES and favour == "easy" and tasks == PRIMARY_TASKS,
            score=score,
            favour=favour,
        )
        for score in (*SCORES, "loss")
        for favour in ("easy", "hard")
        for tasks in (2, 5)
    ]


# Score -> share of the scores that is cut off at each end, for arms that tell whether a
# few extreme scores decide: AADT has no upper bound where all classes are alike.
WINSORIZED = {"aadt": 0.05}


def _dsac(*, capped: bool) -> list[ArmSpec]:
    def arm(
        score: str,
        favour: str,
        ratio: float,
        *,
        winsorize: float = 0.0,
        draws: str | None = None,
    ) -> ArmSpec:
        end = "not controlled" if math.isinf(ratio) else f"ratio {ratio:g}"
        if winsorize:
            end += f", {winsorize:.0%} of the scores cut at each end"
        if draws is not None:
            end += ", drawn by jax.random.categorical"
        variant = draws or "winsorized" * bool(winsorize)
        return ArmSpec(
            "-".join(filter(None, ("dsac", score, favour, f"{ratio:g}", variant))),
            f"DSAC, {score_title(score)}, {favour} favoured, {end}",
            "dsac",
            {
                "curriculum.kind": "dsac",
                "curriculum.score": score,
                "curriculum.favour": favour,
                "curriculum.ratio": ratio,
                # Without a ratio, the plain softmax of the scores.
                "curriculum.min_temperature": (
                    1.0 if capped or math.isinf(ratio) else 0.0
                ),
                "curriculum.winsorize": winsorize,
                **({} if draws is None else {"curriculum.draws": draws}),
            },
            primary=favour == "easy"
            and ratio == PRIMARY_RATIO
            and score in SCORES
            and not variant,
            score=score,
            favour=favour,
            ratio=ratio,
            variant=variant,
        )

    directions = ("easy", "hard")
    ratios = (2.0, 10.0, 100.0, math.inf)
    made = [arm(s, f, r) for s in SCORES for f in directions for r in ratios]
    for favour in directions:
        for score, share in WINSORIZED.items():
            made += [arm(score, favour, r, winsorize=share) for r in ratios[:-1]]
        made.append(arm("aadt_squared", favour, PRIMARY_RATIO))
    # The same distribution by the other sampler: it must make no difference.
    if not capped:
        made.append(arm("entropy", "easy", PRIMARY_RATIO, draws="categorical"))
    return made
