"""The page of a finished run as plain data."""

from __future__ import annotations

import datetime
import json
import shlex
from urllib.parse import quote

import numpy as np

from memejax import logs
from memejax.metrics import AVERAGE
from memejax.report import (
    curves,
    data,
    decision,
    graph_pictures,
    memes,
    plots,
    profiled,
    representation,
    tables,
)
from memejax.report.blocks import (
    Block,
    Command,
    Confusion,
    Facts,
    Figure,
    Fold,
    Gallery,
    Heading,
    Links,
    Page,
    Section,
    Text,
)
from memejax.report.finished import Finished
from memejax.stages import STAGES
from memejax.stages.evaluate import NAME as EVALUATED

_MOVED = (
    "No curves: the labelled data of this run are not where they were, or have changed."
)


def contents(run: Finished, *, pictures: bool | None = None) -> Page:
    """Return the whole page of a run.

    Args:
        run: finished.
        pictures: whether memes are shown; None: as the run's config has it, and they
            are if it has nothing of it.
    """
    if pictures is None:
        pictures = bool(run.leaves.get("report.pictures", True))
    title = f"{run.results['config']}, preset {run.results['preset']}"
    sections = [
        data.section(run),
        _results(run),
        decision.section(run),
        memes.section(run) if pictures else None,
        representation.section(run, pictures=pictures),
        *(_stage(run, name) for name in STAGES),
        graph_pictures.section(run) if pictures else None,
        profiled.section(run),
        _files(run),
        _config(run),
    ]
    return Page(
        title=title,
        heading=run.results["config"],
        preset=run.results["preset"],
        head=_head(run),
        sections=[section for section in sections if section is not None],
    )


def _head(run: Finished) -> list[Block]:
    """The result in a sentence, warnings, and what ran when on what."""
    results, leaves, env = run.results, run.leaves, run.environment
    written = (run.folder / "results.json").stat().st_mtime
    date = datetime.datetime.fromtimestamp(written, datetime.UTC)
    versions = env.get("packages", {})
    devices = [*env.get("devices", ()), f"{env.get('cores', '?')} CPU cores"]
    blocks: list[Block] = [Text(tables.sentence(results), style="lead")]
    collapsed = [
        seed
        for seed in run.seeds
        if any(o.get("collapsed") for o in results["seeds"][seed].values())
    ]
    if collapsed:
        warning = f"Pretraining collapsed (seed {', '.join(collapsed)})."
        blocks.append(Text(warning, style="warning"))
    if results["preset"] == "demo":
        blocks.append(
            Text("Preset demo: small models, for a CPU; not the full recipe.")
        )
    modalities = leaves.get("model.arm.modalities", "both")
    if modalities != "both":
        blocks.append(
            Text(f"A control run: the arms are given the {modalities} alone.")
        )
    facts = {
        "Data": data.name(results["data"]),
        "Stages": ", ".join(leaves.get("stages", ())),
        "Seeds": ", ".join(run.seeds),
        "Date": env.get("date") or f"{date:%Y-%m-%d %H:%M} UTC",
        "Duration": logs.clock(results["seconds"]),
        "Ran on": "; ".join(devices),
        "Peak memory": f"{results['peak_memory_gb']:.2f} GB",
        "System": env.get("platform"),
        "Python": env.get("python"),
        "Versions": ", ".join(f"{k} {v}" for k, v in versions.items() if v),
        "Commit": env.get("commit"),
    }
    return [*blocks, Facts(facts)]


# Results


def _results(run: Finished) -> Section | None:
    """Each labelled split with its curves, then the scores without labels."""
    blocks: list[Block] = []
    for split, table in tables.splits(run.results).items():
        figures = _curves(run, split)
        blocks += [table, Gallery([*figures, _confusion(run, split)], size="medium")]
        if not figures:
            blocks.append(Text(_MOVED))
    for split in run.unlabelled():
        proba = np.concatenate(run.probabilities(split))
        caption = f"{len(proba)} scores, {np.mean(proba > 0.5):.1%} of them above 0.5."
        picture = plots.histogram({"all": proba}, threshold=_threshold(run))
        blocks += [
            Heading(split),
            Text("Its labels are unknown, or all alike: scored, no figures."),
            Gallery([Figure(picture, "Scores of the average", caption)], size="medium"),
        ]
    return Section("Results", blocks) if blocks else None


def _curves(run: Finished, split: str) -> list[Figure]:
    """ROC curves and scores by label of a split; [] without its labels."""
    summary = run.results["summary"][split]
    scores = {
        arm: [
            scored
            for seed in run.seeds
            if (scored := run.scored(split, seed, arm=arm)) is not None
        ]
        for arm in tables.arms(summary)
    }
    scores = {arm: seeds for arm, seeds in scores.items() if seeds}
    if not scores:
        return []
    styles = plots.styles(arm for arm in summary if arm != tables.CONSTANT)
    areas = {
        arm: tables.number(summary[arm]["auroc"]["mean"])
        for arm in tables.shown_arms(summary)
        if arm in scores
    }
    lines = [
        plots.roc_line(f"{arm} {area}", scored.proba, scored.labels, style=styles[arm])
        for arm, area in areas.items()
        for scored in scores[arm]
    ]
    many = f", mean of {len(run.seeds)} seeds" if len(run.seeds) > 1 else ""
    listed = ", ".join(f"{arm} {area}" for arm, area in areas.items())
    figures = [Figure(plots.roc(lines), "ROC curves", f"AUROC{many}: {listed}.")]
    if AVERAGE in scores:
        proba = np.concatenate([scored.proba for scored in scores[AVERAGE]])
        labels = np.concatenate([scored.labels for scored in scores[AVERAGE]])
        groups = {"not hateful": proba[labels == 0], "hateful": proba[labels == 1]}
        means = ", ".join(f"{name} {v.mean():.3f}" for name, v in groups.items())
        figures.append(
            Figure(
                plots.histogram(groups, threshold=_threshold(run)),
                "Scores of the average by label",
                f"Mean{' over all seeds' if many else ''}: {means}.",
            )
        )
    return figures


def _threshold(run: Finished) -> float | None:
    """The dev threshold; None if every seed has its own."""
    thresholds = run.thresholds()
    return thresholds[0] if len(thresholds) == 1 else None


def _confusion(run: Finished, split: str) -> Confusion:
    """Calls of the average at the dev threshold, against the labels."""
    counts, threshold, dev = run.confusion(split), _threshold(run), run.results["dev"]
    rows = []
    for name, cells in (("not hateful", ("tn", "fp")), ("hateful", ("fn", "tp"))):
        total = max(sum(counts[cell] for cell in cells), 1)
        rows.append((name, [(counts[cell], counts[cell] / total) for cell in cells]))
    caption = f"All seeds together, each at its own threshold, chosen on {dev}."
    if threshold is not None:
        caption = f"At the threshold {threshold:.4f}, chosen on {dev}."
    return Confusion(rows, "Confusion matrix of the average", caption)


# Training


def _stage(run: Finished, stage: str) -> Section | None:
    """A stage's collapse panel and curves: losses, dev AUROC, learning rates."""
    figures = curves.figures(run, stage)
    outcomes = [o.get(stage, {}) for o in run.results["seeds"].values()]
    panels = []
    if any("panel" in outcome for outcome in outcomes):
        panels = [tables.pretraining(run.results), tables.dino(run.results)]
    blocks: list[Block] = [panel for panel in panels if panel is not None]
    if STAGES[stage].updates is None or not (figures or blocks):
        return None
    if len(run.seeds) > 1:
        blocks.append(Text("One curve per seed."))
    return Section(STAGES[stage].title, [*blocks, Gallery(figures)])


# The rest


def _files(run: Finished) -> Section:
    """Times, and links to files."""
    blocks: list[Block] = []
    times = tables.stages(run.results)
    if times is not None:
        blocks.append(times)
    blocks.append(Text(f"Everything of this run is in {run.folder}.", style="plain"))
    files = sorted(run.folder.glob(f"*/{EVALUATED}/predictions/*.csv"))
    files += [p for p in [run.folder / "bad_records.jsonl"] if p.exists()]
    names = [path.relative_to(run.folder).as_posix() for path in files]
    if names:
        label = "Predictions (id, proba, label as called)"
        blocks.append(Links(label, [(name, quote(name)) for name in names]))
    if any(run.folder.glob("*/*/events.out.tfevents.*")):
        command = f"tensorboard --logdir {shlex.quote(str(run.folder))}"
        blocks.append(Command("TensorBoard", command))
    return Section("Times and files", blocks)


def _config(run: Finished) -> Section:
    """Every leaf of the config, folded away."""
    leaves = [
        [name, json.dumps(value, ensure_ascii=False)]
        for name, value in sorted(run.leaves.items())
    ]
    title = f"{run.results['config']}, preset {run.results['preset']}"
    table = tables.Table(title, ("leaf", "value"), leaves, left=2)
    return Section("Config", [Fold(f"{len(leaves)} leaves", [table])])
