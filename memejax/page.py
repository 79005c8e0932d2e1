"""The page of a finished run: HTML with its plots and style inside."""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from memejax import folder, logs, markup, plots, tables
from memejax.evaluate import AVERAGE
from memejax.finished import Finished

_MOVED = (
    "No curves: the labelled data of this run are not where they were, or have changed."
)
# Room for the threshold and for the healthy value.
_HEIGHTS = {"std": (0.0, 1.1), "mean_cosine": (None, 1.05), "effective_rank": (0, None)}


def html(run: Finished) -> str:
    """The whole page, one file that needs no network."""
    results = run.results
    return markup.document(
        f"{results['config']}, preset {results['preset']}",
        [
            *_head(run),
            *_results(run),
            *_stage(run, "pretrain", "Pretraining", tables.pretraining(results)),
            *_stage(run, "finetune", "Fine-tuning", None),
            *_data(run),
            *_rest(run),
        ],
    )


def _head(run: Finished) -> list[str]:
    """What was run, on what, and what came out."""
    results, config, env = run.results, run.config, run.environment
    written = (run.folder / "results.json").stat().st_mtime
    date = datetime.datetime.fromtimestamp(written, datetime.UTC)
    versions = env.get("packages", {})
    devices = [*env.get("devices", ()), f"{env.get('cores', '?')} CPU cores"]
    notes = []
    if results["preset"] == "demo":
        notes.append("Preset demo: small models, for a CPU; not the full recipe.")
    modalities = config.get("model", {}).get("arm", {}).get("modalities", "both")
    if modalities != "both":
        notes.append(f"A control run: the arms are given the {modalities} alone.")
    collapsed = [
        seed
        for seed in run.seeds
        if results["seeds"][seed].get("pretrain", {}).get("collapsed")
    ]
    warning = f"Pretraining collapsed (seed {', '.join(collapsed)})."
    return [
        markup.paragraph(f"preset {results['preset']}", kind="preset"),
        f"<h1>{markup.escape(results['config'])}</h1>",
        markup.paragraph(tables.sentence(results), kind="lead"),
        markup.paragraph(warning, kind="warn") if collapsed else "",
        *map(markup.paragraph, notes),
        markup.facts(
            {
                "Date": env.get("date") or f"{date:%Y-%m-%d %H:%M} UTC",
                "Stages": ", ".join(config.get("stages", ())),
                "Seeds": ", ".join(run.seeds),
                "Ran on": "; ".join(devices),
                "System": env.get("platform"),
                "Python": env.get("python"),
                "Versions": ", ".join(f"{k} {v}" for k, v in versions.items() if v),
                "Commit": env.get("commit"),
                "Duration": logs.clock(results["seconds"]),
                "Peak memory": f"{results['peak_memory_gb']:.2f} GB",
            }
        ),
    ]


# Results


def _results(run: Finished) -> list[str]:
    """Each labelled split with its curves, then what has no labels."""
    parts = []
    for split, table in tables.splits(run.results).items():
        figures = _curves(run, split)
        parts += [
            f"<h3>{markup.escape(split)}</h3>",
            markup.table(table),
            markup.gallery([*figures, _confusion(run, split)], large=True),
            "" if figures else markup.paragraph(_MOVED),
        ]
    for split in run.unlabelled():
        proba = np.concatenate(run.probabilities(split))
        said = f"{len(proba)} scores, {np.mean(proba > 0.5):.1%} of them above 0.5."
        picture = plots.histogram({"all": proba}, threshold=_threshold(run))
        parts += [
            f"<h3>{markup.escape(split)}</h3>",
            markup.paragraph("Not every label is known: scored, without figures."),
            markup.gallery(
                [markup.figure(picture, "Scores of the average", said)], large=True
            ),
        ]
    return ["<h2>Results</h2>", *parts] if parts else []


def _curves(run: Finished, split: str) -> list[str]:
    """ROC curves and scores by label of a split; [] without its labels."""
    summary, scores = run.results["summary"][split], run.scores(split)
    if not scores:
        return []
    styles = _styles(arm for arm in summary if arm != tables.CONSTANT)
    areas = {arm: tables.number(summary[arm]["auroc"]["mean"]) for arm in scores}
    curves = [
        plots.roc_line(f"{arm} {areas[arm]}", *seed, style=styles[arm])
        for arm, seeds in scores.items()
        for seed in seeds
    ]
    said = "AUROC: " + ", ".join(f"{arm} {area}" for arm, area in areas.items()) + "."
    figures = [markup.figure(plots.roc(curves), "ROC curves", said)]
    if AVERAGE in scores:
        proba = np.concatenate([proba for proba, _ in scores[AVERAGE]])
        labels = np.concatenate([labels for _, labels in scores[AVERAGE]])
        groups = {"not hateful": proba[labels == 0], "hateful": proba[labels == 1]}
        said = ", ".join(f"{name} {v.mean():.3f}" for name, v in groups.items())
        picture = plots.histogram(groups, threshold=_threshold(run))
        title = "Scores of the average by label"
        figures.append(markup.figure(picture, title, f"Mean score: {said}."))
    return figures


def _threshold(run: Finished) -> float | None:
    """The dev threshold, None where every seed has its own."""
    thresholds = run.thresholds()
    return thresholds[0] if len(thresholds) == 1 else None


def _confusion(run: Finished, split: str) -> str:
    """The average's calls at the dev threshold against the labels."""
    counts, threshold = run.confusion(split), _threshold(run)
    names, rows = ("not hateful", "hateful"), []
    for name, cells in zip(names, (("tn", "fp"), ("fn", "tp")), strict=True):
        total = max(sum(counts[cell] for cell in cells), 1)
        row = "".join(
            f'<td style="background:rgba(11,110,138,{0.35 * counts[cell] / total:.3f})">'
            f'{counts[cell]}<br><span class="note">{counts[cell] / total:.1%}</span></td>'
            for cell in cells
        )
        rows.append(f'<tr><th scope="row">is {name}</th>{row}</tr>')
    dev = markup.escape(run.results["dev"])
    at = f"At the threshold {threshold:.4f}, chosen on {dev}." if threshold else (
        f"All seeds together, each at its own threshold, chosen on {dev}."
    )
    head = "".join(f'<th scope="col">called<br>{name}</th>' for name in names)
    return (
        '<figure><div class="scroll"><table class="confusion">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        "</div><figcaption><b>Confusion matrix of the average.</b> "
        f"{at}</figcaption></figure>"
    )


# Training


def _stage(
    run: Finished, stage: str, title: str, table: tables.Table | None
) -> list[str]:
    """What a stage logged: losses, panel or dev AUROC, learning rates."""
    figures = _plots(run, stage)
    if not figures and table is None:
        return []
    return [
        f"<h2>{title}</h2>",
        markup.table(table) if table else "",
        markup.paragraph("One curve a seed.") if len(run.seeds) > 1 else "",
        markup.gallery(figures),
    ]


def _plots(run: Finished, stage: str) -> list[str]:
    """A plot for each group of a stage's metrics, every seed in it."""
    groups: dict[str, dict[str, list[tuple[list[float], list[float]]]]] = {}
    for seed in run.seeds:
        series: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
        for line in run.lines(seed, stage):
            for name, value in line.items():
                if name in ("step", "split", "clock") or not tables.is_number(value):
                    continue
                x, y = series.setdefault(_group(line["split"], name), ([], []))
                x.append(line["step"])
                y.append(value)
        for (group, label), curve in series.items():
            groups.setdefault(group, {}).setdefault(label, []).append(curve)
    outcomes = [run.results["seeds"][seed].get(stage, {}) for seed in run.seeds]
    best = [(o["best_step"], o["best"]) for o in outcomes if o.get("best_step")]
    figures = []
    for group in sorted(groups, key=_order):
        styles = _styles(groups[group])
        curves = [
            plots.Line(label, x, y, styles[label])
            for label, seeds in groups[group].items()
            for x, y in seeds
        ]
        measure = tables.MEASURES.get(group)
        bounds = {f"collapsed {measure[2]}": float(measure[2].split()[1])} if measure else {}
        judged = group.startswith("AUROC")
        ...
    return figures
