"""The page of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from memejax import logs
from memejax.report import render
from memejax.report.blocks import (
    Block,
    Facts,
    Figure,
    Fold,
    Gallery,
    Heading,
    Page,
    Section,
    Terms,
    Text,
)
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

# Most curves in a chart beside the reference, and most arms with probabilities drawn.
_CURVES, _FANS = 8, 6


def study_html(study: Study, *, more: Sequence[Section] = ()) -> str:
    """Return the page of a study, one file that needs no network.

    Sections that the study has nothing for are left out. Of a study of one arm, which
    is compared with nothing, the page is that arm's.

    Args:
        study: the study.
        more: sections for the end of the page.
    """
    found = outcomes(study)
    sections = [
        _primary(study, found),
        _alone(study) if study.alone else _everything(study, found),
        _curves(study, found),
        _ratios(study),
        _sampling(study, found),
        _pictures(study),
        _correlations(study),
        _toy(study),
        *more,
    ]
    return render.page(
        Page(
            title=f"{study.title}, preset {study.preset}",
            heading=study.title,
            preset=study.preset,
            head=_head(study, found),
            sections=[section for section in sections if section is not None],
            is_wide=True,
        )
    )


def sentence(study: Study, found: Mapping[str, Outcome]) -> str:
    """Return the result in a paragraph of plain words.

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
    """Number of primary arms with each verdict."""
    texts = {
        "better": "{} better",
        "worse": "{} worse",
        "equivalent": "{} no different within the band",
        "unclear": "{} unclear",
    }
    verdicts = [outcome.verdict for outcome in family]
    parts = [
        text.format(f"{n} {'is' if n == 1 else 'are'}")
        for verdict, text in texts.items()
        if (n := verdicts.count(verdict))
    ]
    if n := verdicts.count(None):
        parts.append(f"{n} cannot be judged")
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]


def _head(study: Study, found: Mapping[str, Outcome]) -> list[Block]:
    """The result in a paragraph, arms that are missing, and facts."""
    reference = study.compared_with
    blocks: list[Block] = [Text(sentence(study, found), style="lead")]
    missing = [arm.title for arm in study.arms if not arm.finished]
    if missing:
        blocks.append(Text(f"Not finished: {', '.join(missing)}.", style="warning"))
    blocks += map(Text, study.notes)
    primary = sum(arm.primary for arm in study.arms)
    compared = {
        "Compared with": reference.title,
        "Arms": f"{len(study.arms)}, {primary} of them primary (declared beforehand)",
        "Negligible difference": f"{100 * study.band:.4g} points of test error",
    }
    facts = {
        **study.data,
        "Size": study.size,
        **({} if study.alone else compared),
        "Seeds": reference.seeds,
        "Updates": f"{reference.updates:,} per seed",
        "Duration": logs.clock(sum(arm.seconds for arm in study.arms)),
    }
    return [*blocks, Facts(facts)]


def _primary(study: Study, found: Mapping[str, Outcome]) -> Section | None:
    """The family declared beforehand: table, and each arm in words."""
    table = rows.primary(study, found)
    if table is None:
        return None
    family = [outcome for outcome in found.values() if outcome.arm.primary]
    terms = [(outcome.arm.title, f"{words(study, outcome)}.") for outcome in family]
    return Section(
        "What was declared beforehand",
        [table, Fold("In words", [Terms(terms)], is_open=True)],
    )


def _alone(study: Study) -> Section:
    """The learning curve of an arm without others."""
    picture = charts.learning_curve(study.compared_with)
    one = study.compared_with.seeds == 1
    caption = "One seed." if one else "Means over seeds with 95 % t intervals."
    title = study.compared_with.title
    return Section(
        "Learning curve",
        [Figure(picture, title[0].upper() + title[1:], caption, whole=True)],
    )


def _everything(study: Study, found: Mapping[str, Outcome]) -> Section:
    return Section("All arms", [rows.everything(study, found)])


def _curves(study: Study, found: Mapping[str, Outcome]) -> Section | None:
    """Learning curves: a chart for each group and score, the reference in all."""
    together: dict[tuple[str, str | None], list[Arm]] = {}
    for outcome in found.values():
        arm = outcome.arm
        if arm.name != study.reference and np.size(arm.test_error):
            together.setdefault((arm.group, arm.score), []).append(arm)
    reference, figures = study.compared_with, []
    for (group, score), arms in together.items():
        # Those declared beforehand first, otherwise in the given order.
        chosen = sorted(arms, key=lambda arm: not arm.primary)[:_CURVES]
        drawn = [arm for arm in arms if arm in chosen]
        title = GROUPS[group][0].upper() + GROUPS[group][1:]
        title += f", {score_title(score)}" if score else ""
        caption = (
            "Left the test error, right its difference to the reference seed by seed: "
            "means over seeds with 95 % t intervals. The right axis fits the last half."
        )
        if len(arms) > len(drawn):
            caption += f" {len(drawn)} of {len(arms)} arms, primary ones first."
        picture = charts.learning_curves(drawn, reference=reference)
        figures.append(Figure(picture, title, caption, whole=True))
    return Section("Learning curves", figures) if figures else None


def _ratios(study: Study) -> Section | None:
    """Last error of DSAC arms over the maximum ratio."""
    reference, arms = study.compared_with, {}
    for arm in study.arms:
        plain = arm.score is not None and arm.ratio is not None and not arm.variant
        if plain and arm.group == "dsac" and arm.finished and not budget(study, arm):
            arms.setdefault((arm.score, arm.favour, arm.ratio), arm)
    if not arms or not reference.finished:
        return None
    picture = charts.by_ratio(list(arms.values()), reference=reference)
    caption = (
        "Mean over seeds with its 95 % t interval at the last update. The line and the "
        f"grey band: {reference.title}. A ratio of 1 is uniform sampling with "
        "replacement. The intervals are not of paired differences, so they overlap "
        "more than the table's."
    )
    title = "Test error by maximum ratio"
    return Section("The maximum ratio", [Figure(picture, title, caption, whole=True)])


def _sampling(study: Study, found: Mapping[str, Outcome]) -> Section | None:
    """Diagnostics of the sampling, and probabilities over time."""
    arms = [outcome.arm for outcome in found.values() if outcome.arm.refreshes]
    arms.sort(key=lambda arm: not arm.primary)
    figures, floor = [], charts.FLOOR
    for arm in arms[:_FANS]:
        caption = "Median, quartiles, 5 to 95 % and all of n p, first seed."
        if any((np.asarray(p) * np.size(p) < floor).any() for _, p in arm.refreshes):
            caption += f" Values below {floor:g} are drawn there."
        figures.append(Figure(charts.fan(arm), arm.title, caption))
        if study.labels is not None and _fits(arm, study.labels):
            labels = np.asarray(study.labels)
            caption = "Of what is sampled, first seed; dashed: equal shares."
            picture = charts.class_shares(arm, labels, class_names=study.class_names)
            figures.append(Figure(picture, f"{arm.title}: classes", caption))
    table = rows.sampling(found)
    blocks: list[Block] = [] if table is None else [table]
    if figures:
        blocks.append(Heading("Probabilities over time"))
    if len(arms) > _FANS:
        blocks.append(
            Text(f"Probabilities of {_FANS} arms of {len(arms)}, primary ones first.")
        )
    if figures:
        blocks.append(Gallery(figures, size="large"))
    return Section("What was sampled", blocks) if blocks else None


def _fits(arm: Arm, labels: ArrayLike) -> bool:
    """Whether each probability has a label."""
    return all(np.shape(probs) == np.shape(labels) for _, probs in arm.refreshes)


def _pictures(study: Study) -> Section | None:
    """Examples with the lowest and the highest scores through training."""
    of: dict[str, dict[str, tuple[ArrayLike, ArrayLike]]] = {}
    for (name, label, step), pair in study.pictures.items():
        of.setdefault(name, {})[f"{label}, {step:,}"] = pair
    figures = [
        Figure(
            grids.extremes(of[arm.name]),
            arm.title,
            "Examples of each class with the lowest and the highest "
            f"{score_title(arm.score or 'score')}, one row per class and update (first "
            "seed).",
            whole=True,
        )
        for arm in study.arms
        if arm.name in of
    ]
    return Section("What looks easy, what looks hard", figures) if figures else None


def _correlations(study: Study) -> Section | None:
    if study.correlations is None or not len(study.correlations.names):
        return None
    caption = "Spearman's rank correlation over the training examples."
    picture = charts.heat_map(study.correlations)
    figure = Figure(picture, "Correlations of scores", caption, whole=True)
    return Section("How far the scores agree", [figure])


def _toy(study: Study) -> Section | None:
    if study.toy is None or not study.toy.curves:
        return None
    picture = charts.toy(study.toy)
    caption = f"{study.toy.caption} Each panel has its own scale.".strip()
    if study.toy.train is not None:
        caption += " Ticks: training examples."
    figure = Figure(picture, "Scores along a line", caption, whole=True)
    return Section("Why BALD sees more than a boundary", [figure])
