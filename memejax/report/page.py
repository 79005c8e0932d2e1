"""The page of a finished run: HTML with its plots and style inside."""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np

from memejax import logs
from memejax.metrics import AVERAGE
from memejax.report import (
    curves,
    graph_pictures,
    markup,
    plots,
    profiled,
    representation,
    tables,
)
from memejax.report.cells import count
from memejax.report.finished import Finished
from memejax.stages import STAGES
from memejax.stages.evaluate import NAME as EVALUATED

_MOVED = (
    "No curves: the labelled data of this run are not where they were, or have changed."
)
_NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10"}


def html(run: Finished) -> str:
    """The whole page, one file that needs no network."""
    results = run.results
    return markup.document(
        f"{results['config']}, preset {results['preset']}",
        [
            *_head(run),
            *_results(run),
            *representation.section(run),
            *(part for name in STAGES for part in _stage(run, name)),
            *graph_pictures.section(run),
            *profiled.section(run),
            *_data(run),
            *_rest(run),
        ],
    )


def _head(run: Finished) -> list[str]:
    """What was run, on what, and what came out."""
    results, leaves, env = run.results, run.leaves, run.environment
    written = (run.folder / "results.json").stat().st_mtime
    date = datetime.datetime.fromtimestamp(written, datetime.UTC)
    versions = env.get("packages", {})
    devices = [*env.get("devices", ()), f"{env.get('cores', '?')} CPU cores"]
    notes = []
    if results["preset"] == "demo":
        notes.append("Preset demo: small models, for a CPU; not the full recipe.")
    modalities = leaves.get("model.arm.modalities", "both")
    if modalities != "both":
        notes.append(f"A control run: the arms are given the {modalities} alone.")
    collapsed = [
        seed
        for seed in run.seeds
        if any(o.get("collapsed") for o in results["seeds"][seed].values())
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
                "Stages": ", ".join(leaves.get("stages", ())),
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
            markup.paragraph(
                "Its labels are unknown, or all alike: scored, no figures."
            ),
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
    styles = plots.styles(arm for arm in summary if arm != tables.CONSTANT)
    areas = {
        arm: tables.number(summary[arm]["auroc"]["mean"])
        for arm in tables.shown_arms(summary)
        if arm in scores
    }
    lines = [
        plots.roc_line(f"{arm} {area}", *seed, style=styles[arm])
        for arm, area in areas.items()
        for seed in scores[arm]
    ]
    many = f", mean of {len(run.seeds)} seeds" if len(run.seeds) > 1 else ""
    said = f"AUROC{many}: " + ", ".join(f"{arm} {area}" for arm, area in areas.items())
    figures = [markup.figure(plots.roc(lines), "ROC curves", f"{said}.")]
    if AVERAGE in scores:
        proba = np.concatenate([proba for proba, _ in scores[AVERAGE]])
        labels = np.concatenate([labels for _, labels in scores[AVERAGE]])
        groups = {"not hateful": proba[labels == 0], "hateful": proba[labels == 1]}
        said = ", ".join(f"{name} {v.mean():.3f}" for name, v in groups.items())
        picture = plots.histogram(groups, threshold=_threshold(run))
        title = "Scores of the average by label"
        said = f"Mean{' over all seeds' if many else ''}: {said}."
        figures.append(markup.figure(picture, title, said))
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
        row = ""
        for cell in cells:
            share = counts[cell] / total
            row += (
                f'<td style="background:rgba(11,110,138,{0.35 * share:.3f})">'
                f'{counts[cell]}<br><span class="note">{share:.1%}</span></td>'
            )
        rows.append(f'<tr><th scope="row">is {name}</th>{row}</tr>')
    dev = markup.escape(run.results["dev"])
    at = (
        f"At the threshold {threshold:.4f}, chosen on {dev}."
        if threshold
        else (f"All seeds together, each at its own threshold, chosen on {dev}.")
    )
    head = "".join(f'<th scope="col">called<br>{name}</th>' for name in names)
    return (
        '<figure><div class="scroll"><table class="confusion">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        "</div><figcaption><b>Confusion matrix of the average.</b> "
        f"{at}</figcaption></figure>"
    )


# Training


def _stage(run: Finished, stage: str) -> list[str]:
    """What a stage came to and logged: losses, panel, dev AUROC, learning rates."""
    figures = curves.figures(run, stage)
    outcomes = [o.get(stage, {}) for o in run.results["seeds"].values()]
    panels = []
    if any("panel" in outcome for outcome in outcomes):
        panels = [tables.pretraining(run.results), tables.dino(run.results)]
    shown = [markup.table(panel) for panel in panels if panel]
    if STAGES[stage].make is None or not (figures or shown):
        return []
    return [
        f"<h2>{STAGES[stage].title}</h2>",
        *shown,
        markup.paragraph("One curve a seed.") if len(run.seeds) > 1 else "",
        markup.gallery(figures),
    ]


# The rest


def _data(run: Finished) -> list[str]:
    """The data's facts."""
    data, results = run.results["data"], run.results
    bayes = {
        name: f"AUROC {tables.number(best['auroc'])}, accuracy "
        f"{tables.number(best['accuracy'])}"
        for name, best in data.get("bayes", {}).items()
    }
    sizes, root = data.get("sizes", {}), data.get("root")
    # Runs of before there was other data say no name.
    name = data.get("name", "memes")
    memes = name == "memes"
    source = {"Memes": root or "built in"}
    if not memes:
        source = {"Data": f"{_NAMES.get(name, name)}, {root or 'built in'}"}
    noun, words = "meme" if memes else "example", data.get("vocabulary")
    chose = any(
        outcome.get("best_step")
        for outcomes in results["seeds"].values()
        for outcome in outcomes.values()
    )
    return [
        "<h2>Data</h2>",
        markup.facts(
            {
                **source,
                "Features": data.get("features"),
                "Classes": None if memes else _classes(results),
                **{f"Split {name}": count(n, noun) for name, n in sizes.items()},
                "Chose the checkpoint": results["dev"] if chose else None,
                "Vocabulary": f"{words} tokens" if words else None,
                "Captions cut": data.get("truncated_captions") if memes else None,
                "Bad records left out": data.get("bad_records") if memes else None,
                **{f"Best possible from {name}": text for name, text in bayes.items()},
            }
        ),
    ]


def _classes(results: Mapping[str, Any]) -> int | None:
    """How many classes the data has, None where the results do not say."""
    probes = (
        outcome["classes"]
        for stages in results["seeds"].values()
        for name, outcome in stages.items()
        if name.startswith("probe-")
    )
    return results["data"].get("classes") or next(probes, None)


def _rest(run: Finished) -> list[str]:
    """Times, files and the config."""
    files = sorted(run.folder.glob(f"*/{EVALUATED}/predictions/*.csv"))
    files += [p for p in [run.folder / "bad_records.jsonl"] if p.exists()]
    names = [path.relative_to(run.folder).as_posix() for path in files]
    links = ", ".join(
        f'<a href="{markup.escape(quote(name))}">{markup.escape(name)}</a>'
        for name in names
    )
    command = f"tensorboard --logdir {shlex.quote(str(run.folder))}"
    events = any(run.folder.glob("*/*/events.out.tfevents.*"))
    leaves = [
        [name, json.dumps(value, ensure_ascii=False)]
        for name, value in sorted(run.leaves.items())
    ]
    title = f"{run.results['config']}, preset {run.results['preset']}"
    config = markup.table(tables.Table(title, ("leaf", "value"), leaves))
    return [
        "<h2>Times and files</h2>",
        *[markup.table(table) for table in [tables.stages(run.results)] if table],
        markup.paragraph(f"Everything of this run is in {run.folder}.", kind="text"),
        f"<p>Predictions (id, proba, label as called): {links}</p>" if names else "",
        f"<p>TensorBoard:</p><pre>{markup.escape(command)}</pre>" if events else "",
        "<h2>Config</h2>",
        f"<details><summary>{len(leaves)} leaves</summary>{config}</details>",
    ]
