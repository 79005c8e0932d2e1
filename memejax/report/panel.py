"""Tables of text from the last collapse panels of a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from memejax.losses import collapse
from memejax.losses.dino import MIN_INFORMATION, MIN_MEAN_ENTROPY
from memejax.outcomes import watched
from memejax.report.cells import Table, count, is_number, number


@dataclasses.dataclass(frozen=True)
class Measure:
    """A measure of collapse, with healthy and collapsed values.

    Attributes:
        name: for display.
        healthy: its range in a healthy run.
        collapsed: its range in a collapse.
        bound: number in `collapsed`.
        digits: number of decimals to print.
    """

    name: str
    healthy: str
    collapsed: str
    bound: float
    digits: int


def _measure(name: str, healthy: str, side: str, bound: float, digits: int) -> Measure:
    return Measure(name, healthy, f"{side} {bound:g}", bound, digits)


MEASURES = {
    "std": _measure("std", "near 1", "below", collapse.MIN_STD, 3),
    "mean_cosine": _measure(
        "mean cosine", "near 0", "above", collapse.MAX_MEAN_COSINE, 3
    ),
    "effective_rank": _measure(
        "effective rank", "tens or more", "below", collapse.MIN_EFFECTIVE_RANK, 1
    ),
}
# exp(mean_entropy) of DINO's panel.
PROTOTYPES = _measure(
    "prototypes in use", "many", "below", round(math.exp(MIN_MEAN_ENTROPY), 1), 1
)


def pretraining(results: Mapping[str, Any]) -> Table | None:
    """Return the last collapse panel of each seed and arm; None without one."""
    panels = _panels(results)
    if not panels:
        return None
    rows, collapsed = [], []
    for seed, outcome in panels.items():
        reasons = outcome.get("why_collapsed", [])
        if outcome.get("collapsed"):
            collapsed.append(f"Seed {seed}: {'; '.join(reasons)}.")
        for arm, panel in _arms(outcome):
            figures = [
                number(panel.get(key), digits=measure.digits)
                for key, measure in MEASURES.items()
            ]
            bad = any(reason.startswith(f"{arm}:") for reason in reasons)
            verdict = "COLLAPSED" if bad else "not collapsed"
            rows.append([f"{arm}, seed {seed}", *figures, verdict])
    rows.append(["healthy", *(m.healthy for m in MEASURES.values()), ""])
    rows.append(["collapsed", *(m.collapsed for m in MEASURES.values()), ""])
    verdict = (
        f"COLLAPSED in {len(collapsed)} of {count(panels, 'seed')}"
        if collapsed
        else "not collapsed"
    )
    return Table(
        title=f"Pretraining: {verdict} (preset {results['preset']})",
        columns=("", *(m.name for m in MEASURES.values()), "verdict"),
        rows=rows,
        notes=collapsed,
    )


def dino(results: Mapping[str, Any]) -> Table | None:
    """Return the parts of DINO's loss in the last panels; None without them.

    A table of its own: beside the measures of `pretraining` it would be wider than a
    console of 80 columns.
    """
    panels = [
        (f"{arm}, seed {seed}", panel)
        for seed, outcome in _panels(results).items()
        for arm, panel in _arms(outcome)
        if is_number(panel.get("log_k"))
    ]
    if not panels:
        return None
    log_k = panels[0][1]["log_k"]
    prototypes = round(math.exp(log_k))
    rows = [[name, *_dino_cells(panel)] for name, panel in panels]
    least = f"below {MIN_INFORMATION * log_k:.2g}"
    rows += [
        ["uniform output", *_dino_cells(_uniform(log_k))],
        ["collapsed", "", "", "", PROTOTYPES.collapsed, least],
    ]
    return Table(
        title=(
            f"DINO's last panel: {prototypes} prototypes, ln K = {log_k:.3f} "
            f"(preset {results['preset']})"
        ),
        columns=(
            "",
            "loss",
            "teacher\nentropy",
            "KL",
            "prototypes\nin use",
            "information",
        ),
        rows=rows,
        notes=(
            "In nats. The loss is the teacher's entropy and the KL divergence of the "
            "student from it together; ln K is the loss of an output that is uniform "
            "whatever the picture shows.",
            "Information: the logarithm of the prototypes in use less the teacher's "
            "entropy, the information of its output on the picture.",
        ),
    )


def _panels(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Seed -> its outcome with a panel; seeds without one are left out."""
    found = {seed: watched(stages) for seed, stages in results["seeds"].items()}
    return {seed: outcome for seed, outcome in found.items() if outcome}


def _arms(outcome: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Arms with their figures."""
    own: dict[str, dict[str, Any]] = {}
    for name, value in outcome["panel"].items():
        arm, _, figure = name.partition("/")
        own.setdefault(arm, {})[figure] = value
    yield from sorted(own.items())


def _uniform(log_k: float) -> dict[str, float]:
    """Panel of an output that is uniform whatever the input."""
    equal = dict.fromkeys(("cross_entropy", "teacher_entropy", "mean_entropy"), log_k)
    return {**equal, "kl": 0.0}


def _dino_cells(panel: Mapping[str, float | None]) -> list[str]:
    """A row of DINO's figures."""
    mean, entropy = panel.get("mean_entropy"), panel.get("teacher_entropy")
    used = math.exp(mean) if is_number(mean) else None
    information = mean - entropy if is_number(mean) and is_number(entropy) else None
    return [
        number(panel.get("cross_entropy"), digits=3),
        number(entropy, digits=3),
        number(panel.get("kl"), digits=3),
        number(used, digits=PROTOTYPES.digits),
        number(information, digits=3),
    ]
