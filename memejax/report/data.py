"""The section on a run's data: its name, its folder, its splits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from memejax.report import tables
from memejax.report.blocks import Block, Facts, Section
from memejax.report.cells import Table
from memejax.report.finished import Finished

_NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10"}


def section(run: Finished) -> Section:
    """Facts of the data, and a table of its splits."""
    data = run.results["data"]
    memes, words = _are_memes(run), data.get("vocabulary")
    bayes = {
        f"Best possible, {name}": f"AUROC {tables.number(best['auroc'])}, accuracy "
        f"{tables.number(best['accuracy'])}"
        for name, best in data.get("bayes", {}).items()
    }
    facts = {
        "Folder": data.get("root"),
        "Features": data.get("features"),
        "Classes": None if memes else _classes(run.results),
        "Vocabulary": f"{words} tokens" if words else None,
        "Captions cut": data.get("truncated_captions") if memes else None,
        "Bad records left out": data.get("bad_records") if memes else None,
        **bayes,
    }
    blocks: list[Block] = [Facts(facts)]
    if data.get("sizes"):
        blocks.append(_splits(run, memes=memes))
    return Section("Data", blocks)


def name(data: Mapping[str, Any]) -> str:
    """The data's name for a person.

    Args:
        data: the facts in results.json.
    """
    # Runs of before there was other data have no name.
    kind: str = data.get("name", "memes")
    root: str | None = data.get("root")
    if kind != "memes":
        return _NAMES.get(kind, kind) + ("" if root else ", built in")
    if root is None:
        return "built-in memes"
    return os.path.basename(os.path.normpath(root))


def _are_memes(run: Finished) -> bool:
    return run.results["data"].get("name", "memes") == "memes"


def _splits(run: Finished, *, memes: bool) -> Table:
    """Sizes of the splits, and of memes the share that is hateful."""
    sizes, dev = run.results["data"]["sizes"], run.results["dev"]
    chose = any(
        outcome.get("best_step")
        for outcomes in run.results["seeds"].values()
        for outcome in outcomes.values()
    )
    rows = []
    for split, n in sorted(sizes.items(), key=lambda item: (item[0] != "train", item)):
        used = "training" if split == "train" else "-"
        if split == dev and chose:
            used = "checkpoint, threshold"
        elif split in run.results["summary"]:
            used = "evaluation"
        elif split in run.unlabelled():
            used = "scores, without labels"
        row = [split, used, f"{n:,}"]
        if memes:
            hateful = _hateful(run, split)
            row.append("-" if hateful is None else f"{hateful:,} ({hateful / n:.1%})")
        rows.append(row)
    columns = ("memes", "hateful") if memes else ("examples",)
    return Table("Splits", ("", "used for", *columns), rows, left=2)


def _hateful(run: Finished, split: str) -> int | None:
    """Hateful memes of a split; None if that is not known any more."""
    sizes = run.results["data"]["sizes"]
    for seed in run.seeds:
        report = run.report(seed, split)
        if report:
            return report["positives"]
    labels = [meme.label for meme in run.memes(split).values()]
    dev = run.results["dev"]
    if split == "train" and len(labels) == sizes[split] + sizes.get(dev, 0):
        # The dev split was held out of the training file.
        held_out = _hateful(run, dev) if dev in sizes else None
        return None if held_out is None else labels.count(1) - held_out
    known = len(labels) == sizes[split] and -1 not in labels
    return labels.count(1) if known and sizes[split] else None


def _classes(results: Mapping[str, Any]) -> int | None:
    """Number of classes; None if the results do not have it."""
    probes = (
        outcome["classes"]
        for stages in results["seeds"].values()
        for name, outcome in stages.items()
        if name.startswith("probe-")
    )
    return results["data"].get("classes") or next(probes, None)
