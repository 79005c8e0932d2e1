"""Results of probes of frozen features, as tables of text and as a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memejax import metrics
from memejax.report.cells import Table, count, is_number, number
from memejax.stages import STAGES
from memejax.stages.probe import folder_of

# Keys of an outcome: the network before its stage, and no network at all.
_UNTRAINED, _PIXELS = "untrained", "pixels"
_PROBES = {"knn": "kNN", "linear": "linear probe"}
_DIGITS = 3

# Stage -> outcome of each seed.
Probes = Mapping[str, Sequence[Mapping[str, Any]]]


def representation(results: Mapping[str, Any]) -> dict[str, Table]:
    """Return a table for each split that features were probed on.

    Args:
        results: content of results.json.

    Returns:
        Split -> rows of each trained arm, of the same untrained, of the raw pixels and
        of chance; accuracy (and AUROC, of two classes) of kNN and of the linear probe.
        {} if nothing was probed.
    """
    return {
        split: _table(results, split, probes)
        for split, probes in _by_split(results).items()
    }


def sentence(results: Mapping[str, Any]) -> str | None:
    """Return the kNN results in plain words; None if nothing was probed."""
    for split, probes in _by_split(results).items():
        stage, outcomes = next(iter(probes.items()))
        figure = "auroc" if _classes(outcomes) == 2 else "accuracy"
        name = {"auroc": "AUROC"}.get(figure, figure)
        parts, doubtful = [], []
        for arm in _arms(outcomes, stage):
            own, before = (
                _mean(outcomes, row, arm, "knn", figure) for row in (stage, _UNTRAINED)
            )
            parts.append(f"{arm} {_shown(own)} (untrained {_shown(before)})")
            if not _clearly_above(own, before, _examples(outcomes, split)):
                doubtful.append(arm)
        others = [
            f"raw pixels {_shown(_mean(outcomes, _PIXELS, arm, 'knn', figure))}"
            for arm in _arms(outcomes, _PIXELS)
        ]
        others.append(f"chance {_shown(_chance(results, split, outcomes)[1][figure])}")
        start = f"Over {len(outcomes)} seeds, " if len(outcomes) > 1 else ""
        text = (
            f"{start}kNN {name} on {split} of the {STAGES[stage].learned} "
            f"{' and '.join(parts)}"
            f"; {', '.join(others)}."
        )
        if doubtful:
            verb = "is" if len(doubtful) == 1 else "are"
            text += f" The {' and '.join(doubtful)} {verb} not clearly above untrained."
        return text
    return None


def _by_split(results: Mapping[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """Split -> stage -> outcome of each seed."""
    found: dict[str, dict[str, list[Any]]] = {}
    for stage in STAGES:
        for outcomes in results["seeds"].values():
            outcome = outcomes.get(folder_of(stage))
            if outcome:
                probes = found.setdefault(outcome["split"], {})
                probes.setdefault(stage, []).append(outcome)
    return found


def _table(results: Mapping[str, Any], split: str, probes: Probes) -> Table:
    """The table of one split."""
    first = next(iter(probes.values()))
    classes, many = _classes(first), max(map(len, probes.values()))
    figures = ("auroc", "accuracy") if classes == 2 else ("accuracy",)
    head = {"auroc": "AUROC", "accuracy": "accuracy"}
    columns = [f"{_PROBES[p]}\n{head[f]}" for p in _PROBES for f in figures]
    rows = [
        [name, *(_cell(outcomes, row, arm, p, f) for p in _PROBES for f in figures)]
        for name, outcomes, row, arm in _rows(probes)
    ]
    name, chance = _chance(results, split, first)
    rows.append([name, *(_shown(chance[f]) for _ in _PROBES for f in figures)])
    n = _examples(first, split)
    return Table(
        title=(
            f"Representation on {split}: {count(n, 'example')} of {classes} classes, "
            f"preset {results['preset']}"
        ),
        columns=("", *columns),
        rows=rows,
        notes=_notes(results, split, first, many),
    )


def _rows(probes: Probes) -> Iterator[tuple[str, Sequence[Any], str, str]]:
    """Yield name, outcomes, their key and arm of each row but that of chance."""
    for stage, outcomes in probes.items():
        for arm in _arms(outcomes, stage):
            yield f"{arm}, {stage}", outcomes, stage, arm
    for stage, outcomes in probes.items():
        # Each stage starts from its own network.
        of = f" ({stage})" if len(probes) > 1 else ""
        for arm in _arms(outcomes, _UNTRAINED):
            yield f"{arm}, untrained{of}", outcomes, _UNTRAINED, arm
    first = next(iter(probes.values()))
    for arm in _arms(first, _PIXELS):
        yield "raw pixels", first, _PIXELS, arm


def _notes(
    results: Mapping[str, Any], split: str, outcomes: Sequence[Any], many: int
) -> list[str]:
    """Notes on the method and on standard errors."""
    k, remembered = outcomes[0]["k"], _examples(outcomes, "train")
    n = _examples(outcomes, split)
    notes = [
        f"Frozen features of {count(remembered, 'example')} of train, used for "
        f"{split}: kNN, a vote of the {k} nearest by cosine, and a linear probe, a "
        "logistic regression. Untrained: the same network before its first update.",
        f"The standard error of an accuracy over {count(n, 'example')} is up to "
        f"{0.5 / math.sqrt(max(n, 1)):.3f}.",
    ]
    if many > 1:
        notes.append(f"± is the standard deviation over {many} seeds.")
    if not _arms(outcomes, _PIXELS):
        notes.append("Raw pixels were not compared: there are too many of them.")
    elif results["data"].get("name", "memes") == "memes":
        notes.append("Raw pixels are of the pictures alone, without captions.")
    return notes


def _chance(
    results: Mapping[str, Any], split: str, outcomes: Sequence[Any]
) -> tuple[str, dict[str, float]]:
    """Name and figures of the row without skill."""
    rows = results.get("summary", {}).get(split, {})
    known = rows.get("constant", {}).get("accuracy", {}).get("mean")
    if is_number(known):
        return "constant", {"auroc": 0.5, "accuracy": known}
    classes = _classes(outcomes)
    return f"chance, 1 of {classes}", {"auroc": 0.5, "accuracy": 1 / classes}


def _arms(outcomes: Sequence[Any], row: str) -> list[str]:
    """Arms that a row has figures of."""
    return sorted(
        {arm for outcome in outcomes for arm in outcome["figures"].get(row, ())}
    )


def _classes(outcomes: Sequence[Any]) -> int:
    return outcomes[0]["classes"]


def _examples(outcomes: Sequence[Any], split: str) -> int:
    return outcomes[0]["examples"][split]


def _values(outcomes: Sequence[Any], row: str, arm: str, probe: str, figure: str):
    """Values of a figure over the seeds that have it."""
    found = (o["figures"].get(row, {}).get(arm, {}).get(probe, {}) for o in outcomes)
    return [f[figure] for f in found if is_number(f.get(figure))]


def _mean(outcomes, row: str, arm: str, probe: str, figure: str) -> float | None:
    """Mean of a figure over the seeds; None without one."""
    values = _values(outcomes, row, arm, probe, figure)
    return metrics.mean_std(values)[0] if values else None


def _cell(outcomes, row: str, arm: str, probe: str, figure: str) -> str:
    """The mean, and the standard deviation if there is one."""
    values = _values(outcomes, row, arm, probe, figure)
    text = _shown(_mean(outcomes, row, arm, probe, figure))
    # Pixels are the same for every seed.
    if len(values) < 2 or row == _PIXELS:
        return text
    return f"{text} ± {metrics.mean_std(values)[1]:.{_DIGITS}f}"


def _shown(value: float | None) -> str:
    return number(value, digits=_DIGITS)


def _clearly_above(own: float | None, before: float | None, n: int) -> bool:
    """Whether two figures over n examples differ by more than two standard errors.

    That of an accuracy is at most 0.5 / sqrt(n), of a difference sqrt(2) times that.
    """
    if not (is_number(own) and is_number(before)):
        return False
    return own - before > math.sqrt(2 / max(n, 1))
