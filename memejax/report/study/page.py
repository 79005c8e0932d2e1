"""The page of a study: HTML with its pictures and style inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from memejax import logs
from memejax.report import markup
from memejax.report.cells import count
from memejax.report.study import charts, grids, rows
from memejax.report.study.arms import GROUPS, Arm, Study, score_title
from memejax.report.study.outcomes import (
    Outcome,
    budget,
    least_adjusted,
    outcomes,
    words,
)

# Curves beside the reference's in a chart, and arms whose probabilities are drawn.
_CURVES, _FANS = 8, 6
# Wide tables: eight columns are to be seen without scrolling.
_STYLE = """
main { max-width: 74rem }
table { font-size: .8438rem } li { max-width: 58rem; margin: .2rem 0 }
th, td, th + th, th + td { padding: .3rem .5rem } th:first-child { padding-left: 0 }
summary { margin: .75rem 0 } .pairs { grid-template-columns:
  repeat(auto-fill, minmax(min(26rem, 100%), 1fr)) }
"""


def study_html(study: Study, *, more: Sequence[str] = ()) -> str:
    """The whole page, one file that needs no network; what a study lacks is left out.

    Of a study of one arm, which is compared with nothing, the page is that arm's.

    Args:
        study: the study.
        more: sections (HTML) for the end of the page.

    Returns:
        HTML.
    """
    found = outcomes(study)
    page = markup.document(
        f"{study.title}, preset {study.preset}",
        [
            *_head(study, found),
            *_primary(study, found),
            *(_alone(study) if study.alone else _everything(study, found)),
            *_curves(study, found),
            *_ratios(study),
            *_sampling(study, found),
            *_pictures(study),
            *_correlations(study),
            *_toy(study),
            *more,
        ],
    )
    return page.replace("</style>", f"{_STYLE}</style>", 1)


def sentence(study: Study, found: Mapping[str, Outcome]) -> str:
    """What came out, in a paragraph of plain words.

    Args:
        study: the study.
        found: its `outcomes`.
    """
    reference = found[study.reference]
    if reference.final is None:
        return (
            f"{study.compared_with.title}, which the others are compared with, is not "
            "finished: there is nothing to compare yet."
        )
    mean, std = reference.final
    spread = f" (± {100 * std:.2f} over seeds)" if std == std else ""
    parts = [
        f"With {study.compared_with.title} the test error after "
        f"{study.compared_with.updates:,} updates is {100 * mean:.2f} %{spread}, over "
        f"{count(study.compared_with.seeds, 'seed')}."
    ]
    family = [outcome for outcome in found.values() if outcome.arm.primary]
    if study.alone:
        return parts[0]
    if not family:
        return " ".join([*parts, "No arm was declared beforehand as a primary one."])
    parts.append(f"Of {count(family, 'arm')} declared beforehand, {_tally(family)}.")
    best = [
        (outcome.comparison["mean_difference"], i)
        for i, outcome in enumerate(family)
        if outcome.verdict == "better" and outcome.comparison
    ]
    if best:
        top = family[min(best)[1]]
        parts.append(f"The best, {top.arm.title}, is {words(study, top)}.")
    least = least_adjusted(found)
    if least is not None and least > 0.05:
        parts.append(
            "There are too few seeds for this many arms: whatever the differences, no "
            "arm can be called better or worse."
        )
    return " ".join(parts)


def _tally(family: Sequence[Outcome]) -> str:
    """How many primary arms got which verdict."""
    said = {
        "better": "{} better",
        "worse": "{} worse",
        "equivalent": "{} no different within the band",
        "unclear": "{} unclear",
    }
    verdicts = [outcome.verdict for outcome in family]
    parts = [
        text.format(f"{n} {'is' if n == 1 else 'are'}")
        for verdict, text in said.items()
        if (n := verdicts.count(verdict))
    ]
    if n := verdicts.count(None):
        parts.append(f"{n} cannot be judged")
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]


def _head(study: Study, found: Mapping[str, Outcome]) -> list[str]:
    """What was run, on what, and what came out."""
    reference = study.compared_with
    missing = [arm.title for arm in study.arms if not arm.finished]
    compared = {
        "Compared with": reference.title,
        "Arms": f"{len(study.arms)}, {sum(a.primary for a in study.arms)} of "
        "them primary (declared beforehand)",
        "A difference that does not matter": f"{100 * study.band:.4g} points "
        "of test error",
    }
    return [
        markup.paragraph(f"preset {study.preset}", kind="preset"),
        f"<h1>{markup.escape(study.title)}</h1>",
        markup.paragraph(sentence(study, found), kind="lead"),
        markup.paragraph(f"Not finished: {', '.join(missing)}.", kind="warn")
        if missing
        else "",
        *map(markup.paragraph, study.notes),
        markup.facts(
            {
                "Size": study.size,
                **study.data,
                **({} if study.alone else compared),
                "Seeds": reference.seeds,
                "Updates": f"{reference.updates:,} a seed",
                "Duration": logs.clock(sum(arm.seconds for arm in study.arms)),
            }
        ),
    ]


def _primary(study: Study, found: Mapping[str, Outcome]) -> list[str]:
    """The family declared beforehand: table, and each arm in words."""
    table = rows.primary(study, found)
    if table is None:
        return []
    family = [outcome for outcome in found.values() if outcome.arm.primary]
    items = "".join(
        f"<li><b>{markup.escape(outcome.arm.title)}</b>: "
        f"{markup.escape(words(study, outcome))}.</li>\n"
        for outcome in family
    )
    return [
        "<h2>What was declared beforehand</h2>",
        markup.table(table),
        f"<details open><summary>In words</summary><ul>\n{items}</ul></details>",
    ]


def _alone(study: Study) -> list[str]:
    """The learning curve of an arm without others."""
    picture = charts.learning_curve(study.compared_with)
    one = study.compared_with.seeds == 1
    said = "One seed." if one else "Means over seeds with 95 % t intervals."
    title = study.compared_with.title
    return [
        "<h2>Learning curve</h2>",
        markup.figure(picture, title[0].upper() + title[1:], said, whole=True),
    ]


def _everything(study: Study, found: Mapping[str, Outcome]) -> list[str]:
    return ["<h2>All arms</h2>", markup.table(rows.everything(study, found))]


def _curves(study: Study, found: Mapping[str, Outcome]) -> list[str]:
    """Learning curves: a chart a group and score, the reference in each."""
    together: dict[tuple[str, str | None], list[Arm]] = {}
    for outcome in found.values():
        arm = outcome.arm
        if arm.name != study.reference and np.size(arm.test_error):
            together.setdefault((arm.group, arm.score), []).append(arm)
    reference, figures = study.compared_with, []
    for (group, score), arms in together.items():
        # Those declared beforehand first; sorting keeps the order otherwise.
        chosen = sorted(arms, key=lambda arm: not arm.primary)[:_CURVES]
        drawn = [arm for arm in arms if arm in chosen]
        title = GROUPS[group][0].upper() + GROUPS[group][1:]
        title += f", {score_title(score)}" if score else ""
        said = (
            "Left the test error, right its difference to the reference seed by seed: "
            "means over seeds with 95 % t intervals. The right axis fits the last half."
        )
        if len(arms) > len(drawn):
            said += f" {len(drawn)} of {len(arms)} arms, primary ones first."
        picture = charts.learning_curves(drawn, reference=reference)
        figures.append(markup.figure(picture, title, said, whole=True))
    return ["<h2>Learning curves</h2>", *figures] if figures else []


def _ratios(study: Study) -> list[str]:
    """The last error of DSAC arms over the maximum ratio."""
    reference, arms = study.compared_with, {}
    for arm in study.arms:
        plain = arm.score is not None and arm.ratio is not None and not arm.variant
        if plain and arm.group == "dsac" and arm.finished and not budget(study, arm):
            arms.setdefault((arm.score, arm.favour, arm.ratio), arm)
    if not arms or not reference.finished:
        return []
    picture = charts.by_ratio(list(arms.values()), reference=reference)
    said = (
        "Mean over seeds with its 95 % t interval at the last update. The line and the "
        f"grey band: {reference.title}. A ratio of 1 is uniform sampling with "
        "replacement. The intervals are not of paired differences, so they overlap "
        "more than the table's."
    )
    return [
        "<h2>The maximum ratio</h2>",
        markup.figure(picture, "Test error by maximum ratio", said, whole=True),
    ]


def _sampling(study: Study, found: Mapping[str, Outcome]) -> list[str]:
    """What was sampled from: diagnostics, and probabilities over time."""
    arms = [outcome.arm for outcome in found.values() if outcome.arm.refreshes]
    arms.sort(key=lambda arm: not arm.primary)
    figures, floor = [], charts.FLOOR
    for arm in arms[:_FANS]:
        said = "Median, quartiles, 5 to 95 % and all of n p, first seed."
        if any((np.asarray(p) * np.size(p) < floor).any() for _, p in arm.refreshes):
            said += f" What is below {floor:g} is drawn there."
        figures.append(markup.figure(charts.fan(arm), arm.title, said))
        if study.labels is not None and _fits(arm, study.labels):
            labels = np.asarray(study.labels)
            said = "Of what is sampled, first seed; dashed: equal shares."
            picture = charts.class_shares(arm, labels, class_names=study.class_names)
            figures.append(markup.figure(picture, f"{arm.title}: classes", said))
    table, notes = rows.sampling(found), []
    if len(arms) > _FANS:
        notes.append(
            f"Probabilities of {_FANS} arms of {len(arms)}, primary ones first."
        )
    if not figures and table is None:
        return []
    return [
        "<h2>What was sampled</h2>",
        "" if table is None else markup.table(table),
        "<h3>Probabilities over time</h3>" if figures else "",
        *map(markup.paragraph, notes),
        markup.join(
            ['<div class="plots pairs">', *figures, "</div>"] if figures else []
        ),
    ]


def _fits(arm: Arm, labels: ArrayLike) -> bool:
    """Whether each probability has a label."""
    return all(np.shape(probs) == np.shape(labels) for _, probs in arm.refreshes)


def _pictures(study: Study) -> list[str]:
    """Examples with the lowest and the highest scores through training."""
    of: dict[str, dict[int, tuple[ArrayLike, ArrayLike]]] = {}
    for (name, step), pair in study.pictures.items():
        of.setdefault(name, {})[step] = pair
    figures = [
        markup.figure(
            grids.extremes(of[arm.name]),
            arm.title,
            "Examples with the lowest and the highest "
            f"{score_title(arm.score or 'score')}, a row an update (first seed).",
            whole=True,
        )
        for arm in study.arms
        if arm.name in of
    ]
    return ["<h2>What looks easy, what looks hard</h2>", *figures] if figures else []


def _correlations(study: Study) -> list[str]:
    if study.correlations is None or not len(study.correlations.names):
        return []
    said = "Spearman's rank correlation over the training examples."
    picture = charts.heat_map(study.correlations)
    return [
        "<h2>How far the scores agree</h2>",
        markup.figure(picture, "Correlations of scores", said, whole=True),
    ]


def _toy(study: Study) -> list[str]:
    if study.toy is None or not study.toy.curves:
        return []
    picture = charts.toy(study.toy)
    said = f"{study.toy.said} Each panel has its own scale.".strip()
    if study.toy.train is not None:
        said += " Ticks: training examples."
    return [
        "<h2>Why BALD sees more than a boundary</h2>",
        markup.figure(picture, "Scores along a line", said, whole=True),
    ]
