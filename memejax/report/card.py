"""The model card of an export: data, recipe, results, and code that loads it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memejax.metrics import AVERAGE
from memejax.outcomes import evaluated, watched
from memejax.report import loading, tables
from memejax.report.cells import Table, is_number, number
from memejax.report.finished import Finished

_USE = """\
A score that helps people who moderate to choose what to look at first. It is made for
memes like those it was trained on, with known words: the caption goes in as text and is
not read from the picture.

Not for removing or punishing anything without a person's judgement, and not for
anything but memes. The score is a rank before it is a probability: choose a threshold
on labelled memes of your own, and look again when what people post changes.

Known limits. The people who labelled the training memes decided what counts as hateful,
in one language and at one time; what they missed or exaggerated is learned. Words and
faces that are frequent in hateful training memes raise the score of harmless memes
about the same groups, among them memes by members of these groups. It fails first on
irony, quotation, other languages, new slurs and words hidden in the picture. No figures
below are broken down by the group that a meme is about: measure that before use."""


def card(
    run: Finished,
    seed: str,
    *,
    parts: Sequence[loading.Part],
    leaves: Mapping[str, Any] | None = None,
) -> str:
    """Return the card as Markdown, with the front matter of the hub.

    Args:
        run: a finished run.
        seed: the one that was exported.
        parts: contents of the export.
        leaves: dotted name -> value of the config that was served, where it is not the
            run's: a head's, with its encoders' models and sizes.

    Returns:
        The text; its figures are those of the seed in results.json.
    """
    results, leaves = run.results, run.leaves if leaves is None else leaves
    title = f"{results['config']}, preset {results['preset']}: is this meme hateful?"
    sections = {
        "": "\n\n".join(_about(results, leaves)),
        "Data": _data(results, leaves, seed),
        "Recipe": "\n".join(f"- {line}" for line in _recipe(results, leaves, seed)),
        "Intended use and limits": _USE,
        "Results": "\n\n".join(_results(results, seed)),
        "Contents, and code that loads them": loading.section(leaves, parts),
        "Licence": _licence(leaves),
        "Versions": _versions(run),
    }
    body = [
        f"## {name}\n\n{text}\n" if name else f"{text}\n"
        for name, text in sections.items()
    ]
    return "\n".join([_front_matter(leaves), f"# {title}\n", *body])


def _front_matter(leaves: Mapping[str, Any]) -> str:
    """YAML for the hub; JSON strings and lists are YAML too."""
    fields = {
        "library_name": "memejax",
        # The hub has no name for a picture and its text; a picture is what is judged.
        "pipeline_tag": "image-classification",
        "license": "apache-2.0" if _is_free(leaves) else "unknown",
        "tags": ["hateful-memes", "multimodal", "content-moderation", "jax", "flax"],
    }
    lines = [f"{name}: {json.dumps(value)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---", ""])


def _about(results: Mapping[str, Any], leaves: Mapping[str, Any]) -> Iterator[str]:
    arms = leaves["arms"]
    images = " and ".join(
        f"{leaves[f'model.image.{arm}.name']} ({arm})" for arm in arms
    )
    if "heads.head" in leaves:
        yield (
            "A classifier of memes by memejax: a picture of "
            f"{leaves['data.image_size']} pixels a side and its caption of at most "
            f"{leaves['data.text_length']} tokens give the probability that the meme "
            f"is hateful, by the head {leaves['heads.head']} on the features of two "
            f"frozen encoders: {images} and {leaves['model.text.name']}."
        )
        yield from _limits(results, leaves)
        return
    joined = leaves["model.arm.fusion"]
    yield (
        "A classifier of memes by memejax: a "
        f"picture of {leaves['data.image_size']} pixels a side and its caption of at "
        f"most {leaves['data.text_length']} tokens give the probability that the meme "
        f"is hateful, the mean over the image encoders {images}. Each is paired "
        f"with a text encoder ({leaves['model.text.name']}); the embeddings are joined "
        f"by {joined} under a linear classifier."
    )
    modalities = leaves["model.arm.modalities"]
    if modalities != "both":
        yield f"A control: it looks at the {modalities} alone."
    yield from _limits(results, leaves)


def _limits(results: Mapping[str, Any], leaves: Mapping[str, Any]) -> Iterator[str]:
    if leaves["data.root"] is None:
        yield (
            "Trained on memes made by memejax itself, whose label is the parity of "
            "a pattern and a keyword: for trying things out, of no use on real memes."
        )
    elif results["preset"] == "demo":
        yield "Preset demo: models small enough for a CPU, not for moderation."


def _data(results: Mapping[str, Any], leaves: Mapping[str, Any], seed: str) -> str:
    root = leaves["data.root"]
    name = (
        "built-in memes" if root is None else os.path.basename(os.path.normpath(root))
    )
    reports = _evaluated(results, seed)["splits"]
    rows = []
    sizes = results["data"]["sizes"]
    for split, n in sorted(sizes.items(), key=lambda item: item[0] != "train"):
        known = reports.get(split, {}).get(AVERAGE)
        share = f"{known['positives']} ({known['positives'] / n:.1%})" if known else "-"
        role = "training" if split == "train" else ""
        if split == results["dev"]:
            role = "chose the checkpoint and the threshold"
        rows.append([split, str(n), share, role])
    table = Table("", ("split", "memes", "hateful", "used for"), rows)
    return f"{name}: {sum(sizes.values())} memes.\n\n{loading.pipes(table)}"


def _recipe(
    results: Mapping[str, Any], leaves: Mapping[str, Any], seed: str
) -> Iterator[str]:
    outcomes = results["seeds"][seed]
    seeds = f", of {len(results['seeds'])}" if len(results["seeds"]) > 1 else ""
    yield (
        f"config {results['config']}, preset {results['preset']}, seed {seed}{seeds}, "
        f"products in {leaves['model.dtype']}"
    )
    starts = {k: v for k, v in leaves.items() if k.startswith("weights.")}
    for leaf, start in starts.items():
        if isinstance(start, str):
            start = os.path.basename(start) if os.path.isabs(start) else start
            yield f"starts from {start} ({leaf})"
    found = watched(outcomes)
    if found is not None:
        objective = _listed(leaves, "pretrain.objective.")
        verdict = "collapsed" if found.get("collapsed") else "did not collapse"
        yield (
            f"pretraining: {leaves['pretrain.method']}"
            f"{f' ({objective})' if objective else ''}, {found['steps']} updates of "
            f"{leaves['pretrain.batch']} memes, {_optimizer(leaves, 'pretrain')}; "
            f"its features {verdict}"
        )
    chosen = _evaluated(results, seed)
    found = outcomes[chosen["stage"]]
    if "heads.head" in leaves:
        yield from _head(leaves, found, results["dev"])
        return
    balance = ", classes weighted alike" if leaves["finetune.balance"] else ""
    kind = leaves.get("curriculum.kind")
    # "uniform" is no curriculum: shuffled passes.
    order = f", drawn by {kind}" if kind not in (None, "uniform") else ""
    yield (
        f"fine-tuning: binary cross entropy of each arm{balance}{order}, "
        f"{found['steps']} updates of {leaves['finetune.batch']} memes, "
        f"{_optimizer(leaves, 'finetune')}; of these the checkpoint of update "
        f"{chosen['checkpoint']}, the best AUROC on {results['dev']}"
    )


def _head(
    leaves: Mapping[str, Any], found: Mapping[str, Any], dev: str
) -> Iterator[str]:
    """Describe the training of a head."""
    head = leaves["heads.head"]
    if not found["steps"]:
        yield f"head {head}: chosen by the AUROC on {dev}"
        return
    yield (
        f"head {head}: {found['parameters']:,} parameters, {found['steps']} updates of "
        f"{leaves['heads.batch']} memes, {_optimizer(leaves, 'heads')}; of these the "
        f"checkpoint of update {found['best_step']}, the best AUROC on {dev}"
    )


def _evaluated(results: Mapping[str, Any], seed: str) -> Mapping[str, Any]:
    found = evaluated(results["seeds"][seed])
    if found is None:
        raise ValueError(f"seed {seed} of the run was not evaluated")
    return found


def _optimizer(leaves: Mapping[str, Any], stage: str) -> str:
    prefix = f"{stage}.optimizer."
    rates = _listed(
        {k: v for k, v in leaves.items() if k.endswith(".lr")}, f"{prefix}groups."
    )
    return (
        f"{leaves[f'{prefix}rule']} with the schedule {leaves[f'{prefix}schedule']}, "
        f"weight decay {leaves[f'{prefix}weight_decay']}, learning rates {rates}"
    )


def _listed(leaves: Mapping[str, Any], prefix: str) -> str:
    """Leaves below a prefix as "name value, name value"."""
    return ", ".join(
        f"{name.removeprefix(prefix).removesuffix('.lr')} {value}"
        for name, value in leaves.items()
        if name.startswith(prefix)
    )


def _results(results: Mapping[str, Any], seed: str) -> Iterator[str]:
    reports = _evaluated(results, seed)["splits"]
    yield (
        "AUROC with its 95 % interval over resampled memes; F1 is at the threshold "
        f"that {results['dev']} chose. The row constant is a predictor that knows only "
        "the share of hateful memes."
    )
    steps = _evaluated(results, seed).get("checkpoints", {})
    if len(set(steps.values())) > 1:
        yield (
            "The row of a single arm is of its own best checkpoint; the weights here "
            "are those of the average's."
        )
    for split in sorted(reports, key=lambda name: (name == results["dev"], name)):
        rows = []
        for arm in tables.shown_arms(reports[split]):
            report = reports[split][arm]
            area = number(report["auroc"])
            low, high = report["auroc_low"], report["auroc_high"]
            if is_number(low) and is_number(high) and arm != tables.CONSTANT:
                area += f" [{low:.3f}, {high:.3f}]"
            figures = ("accuracy", "threshold_accuracy", "f1")
            rows.append([arm, area, *(number(report[name]) for name in figures)])
        columns = (split, "AUROC", "accuracy at 0.5", "accuracy at threshold", "F1")
        table = loading.pipes(Table("", columns, rows))
        if split == results["dev"]:
            table += "\n\nThis split chose checkpoint and threshold: it is optimistic."
        yield table
    if not reports:
        yield "No labelled split was scored, so there is no figure."
    if len(results["seeds"]) > 1:
        yield tables.sentence(results)


def _licence(leaves: Mapping[str, Any]) -> str:
    if _is_free(leaves):
        return "Apache 2.0, as memejax; data and start are its own."
    return (
        "memejax is Apache 2.0. These weights come from the data above and the "
        "checkpoints they started from: look up what their licences require of a "
        "model, and set `license` above, before you share it."
    )


def _is_free(leaves: Mapping[str, Any]) -> bool:
    """Whether the weights are made from nothing but memejax."""
    return leaves["data.root"] is None and not any(
        isinstance(v, str) for k, v in leaves.items() if k.startswith("weights.")
    )


def _versions(run: Finished) -> str:
    packages = {"python": run.environment.get("python")}
    packages |= run.environment.get("packages", {})
    known = [f"{name} {version}" for name, version in packages.items() if version]
    return f"The run: {', '.join(known)}."
