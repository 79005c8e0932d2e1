"""Tables of a study: text for the page and Markdown, exact numbers for CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping

import numpy as np

from memejax import logs
from memejax.report import markdown
from memejax.report.cells import Table, count
from memejax.report.study.arms import Arm, Study
from memejax.report.study.outcomes import Outcome, budget, least_adjusted, outcomes

_NONE = "-"
_GROUPS = {"uniform": "uniform", "baseline": "baseline", "bac": "BAC", "dsac": "DSAC"}
_FIGURES = ("mean_difference", "sd", "low", "high", "t_low", "t_high")


def primary(study: Study, found: Mapping[str, Outcome]) -> Table | None:
    """Return the table of the family declared beforehand; None without one.

    Args:
        study: the study.
        found: its `outcomes`.
    """
    family = [outcome for outcome in found.values() if outcome.arm.primary]
    if not family:
        return None
    reference = found[study.reference]
    rows = [[reference.arm.title, _spread(reference.final), *[""] * 4, "reference"]]
    for outcome in family:
        compared = outcome.comparison
        rows.append(
            [
                outcome.arm.title,
                _spread(outcome.final),
                _difference(outcome),
                f"{compared['losses']} of {compared['n']}" if compared else _NONE,
                f"{compared['p_value']:.2g}" if compared else _NONE,
                _NONE if outcome.p_adjusted is None else f"{outcome.p_adjusted:.2g}",
                _verdict(outcome),
            ]
        )
    return Table(
        title="Primary arms: test error at the last update, in percent",
        columns=(
            "",
            "mean ± sd",
            "difference, points\n[95 % BCa]",
            "wins",
            "p",
            "p, Holm",
            "verdict",
        ),
        rows=rows,
        notes=_primary_notes(study, found),
    )


def everything(study: Study, found: Mapping[str, Outcome]) -> Table:
    """Return the table of all arms, with intervals that are not corrected."""
    goal = found[study.reference].final
    rows = [
        [
            _marked(study, outcome.arm),
            _GROUPS[outcome.arm.group],
            _spread(outcome.final),
            "reference"
            if outcome.arm.name == study.reference
            else _difference(outcome),
            _spread(outcome.selected),
            _reached(outcome),
            f"{outcome.arm.updates:,}",
            logs.clock(outcome.arm.seconds),
        ]
        for outcome in found.values()
    ]
    level = f" ({100 * goal[0]:.2f} %)" if goal else ""
    compared = sum(outcome.comparison is not None for outcome in found.values())
    notes = [
        "Exploratory: these intervals are not corrected for the number of arms. Of "
        f"{compared} such intervals, {0.05 * compared:.1f} would miss 0 by chance if "
        "no arm differed from the reference.",
        "Validation chose: the test error at each seed's update with the lowest "
        "validation error.",
        f"Updates to the reference's error: the first evaluated update at which the "
        f"mean curve over seeds is at or below the reference's last test error{level}. "
        "A noisy curve touches it a little early.",
        "Time: all seeds together, evaluations included.",
    ]
    if any(budget(study, outcome.arm) for outcome in found.values()):
        notes.append(
            "Arms marked with other updates had another budget than the reference and "
            "get no verdict."
        )
    seeds = study.compared_with.seeds
    if any(arm.seeds != seeds for arm in study.arms if arm.finished):
        notes.append(
            f"The reference has {seeds} seeds; an arm with other seeds is compared on "
            "those that both have."
        )
    return Table(
        title="All arms: test error in percent",
        columns=(
            "",
            "group",
            "at the last\nupdate",
            "difference, points\n[95 % BCa]",
            "validation\nchose",
            "updates to the\nreference's error",
            "updates",
            "time",
        ),
        rows=rows,
        notes=notes,
        left=2,
    )


def sampling(found: Mapping[str, Outcome]) -> Table | None:
    """Return diagnostics of sampling over training; None if no arm has them."""
    arms = [outcome.arm for outcome in found.values() if outcome.arm.diagnostics]
    if not arms:
        return None
    columns = {
        "ess_share": ("effective\nshare", np.median),
        "achieved_ratio": ("largest to least\nprobability", np.median),
        "unique_fraction": ("different examples\nin a stretch", np.median),
        "class_share_min": ("least share\nof a class", np.min),
        "class_share_max": ("largest share\nof a class", np.max),
    }
    present = [c for c in columns if any(c in arm.diagnostics for arm in arms)]
    rows = [
        [arm.title, *(_overall(arm, name, columns[name][1]) for name in present)]
        for arm in arms
    ]
    return Table(
        title="Sampling probabilities",
        columns=("", *(columns[name][0] for name in present)),
        rows=rows,
        notes=(
            "Medians over the refreshes of the probabilities, of the shares of a class "
            "the least and the largest. Effective share: (sum p)² / (n sum p²), 1 "
            "if all are drawn alike.",
        ),
    )


def study_markdown(study: Study) -> str:
    """Return the tables of the primary family and of all arms as Markdown."""
    found = outcomes(study)
    tables = [primary(study, found), everything(study, found)]
    escaped = markdown.escaped
    head = f"## {escaped(study.title)} (preset {escaped(study.preset)})\n"
    shown = [markdown.table(table, level=3) for table in tables if table]
    return "\n".join([head, *shown])


def study_csv(study: Study) -> str:
    """Return one line per arm as CSV, with exact numbers; unknown cells are empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["study", "preset", "arm", "title", "group", "primary", "score", "favour"]
        + ["ratio", "variant", "updates", "seconds", "seeds", "finished"]
        + ["test_error", "test_error_sd", "selected_test_error"]
        + ["selected_test_error_sd", "updates_to_reference"]
        + [*_FIGURES, "wins", "ties", "pairs", "p", "p_holm", "verdict", "why_not"]
    )
    for outcome in outcomes(study).values():
        arm, compared = outcome.arm, outcome.comparison or {}
        cells = [
            *(study.title, study.preset, arm.name, arm.title, arm.group, arm.primary),
            *(arm.score, arm.favour, arm.ratio, arm.variant, arm.updates, arm.seconds),
            *(arm.seeds, arm.finished, *(outcome.final or (None, None))),
            *(*(outcome.selected or (None, None)), outcome.reached),
            *(compared.get(name) for name in (*_FIGURES, "losses", "ties", "n")),
            *(compared.get("p_value"), outcome.p_adjusted, outcome.verdict),
            outcome.why_not,
        ]
        writer.writerow(
            ["" if isinstance(c, float) and math.isnan(c) else c for c in cells]
        )
    return file.getvalue()


def _primary_notes(study: Study, found: Mapping[str, Outcome]) -> list[str]:
    """Notes for the table of the primary family."""
    family = sum(outcome.arm.primary for outcome in found.values())
    notes = [
        f"Differences to {study.compared_with.title}, wins (seeds with a lower error) "
        "and the two-sided sign-flip p are over pairs of the same seed. Holm's "
        f"correction counts the {count(family, 'arm')} declared beforehand. Better or "
        "worse: p after the correction at most 0.05. No difference: the 90 % t "
        f"interval lies within ± {100 * study.band:.4g} points. Unclear: neither."
    ]
    least = least_adjusted(found)
    if least is not None and least > 0.05:
        notes.append(
            f"With so few seeds for {count(family, 'arm')} no p after the correction "
            f"can be below {least:.2g}: not one can be called better or worse."
        )
    return notes


def _spread(figure: tuple[float, float] | None) -> str:
    """Format an error in percent, with its standard deviation if known."""
    if figure is None:
        return _NONE
    mean, std = figure
    return f"{100 * mean:.2f}" + ("" if math.isnan(std) else f" ± {100 * std:.2f}")


def _difference(outcome: Outcome) -> str:
    """Format a difference in points with its interval."""
    compared = outcome.comparison
    if compared is None:
        return _NONE
    mean, low, high = (
        f"{100 * compared[name]:+.2f}" for name in ("mean_difference", "low", "high")
    )
    return f"{mean} [{low}, {high}]"


def _reached(outcome: Outcome) -> str:
    if outcome.final is None or outcome.why_not == "the reference is not finished":
        return _NONE
    return "not reached" if outcome.reached is None else f"{outcome.reached:,}"


def _verdict(outcome: Outcome) -> str:
    """Short form of a verdict; the long one stands below the table."""
    if outcome.verdict == "equivalent":
        return "no difference"
    return outcome.verdict or outcome.why_not


def _marked(study: Study, arm: Arm) -> str:
    """Title of an arm, with updates and seeds that differ from the reference."""
    marks = [budget(study, arm), "" if arm.finished else "not finished"]
    seeds = study.compared_with.seeds
    if arm.finished and arm.seeds != seeds:
        marks.append(count(arm.seeds, "seed"))
    text = ", ".join(filter(None, marks))
    return f"{arm.title} ({text})" if text else arm.title


def _overall(arm: Arm, name: str, over: object) -> str:
    """Format a diagnostic, summarised over training."""
    if name not in arm.diagnostics:
        return _NONE
    values = np.asarray(arm.diagnostics[name][1], float)
    return f"{over(values):.3g}" if len(values) and callable(over) else _NONE
