"""Collecting the finished runs of a study for its page."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from scipy import stats

from memejax import folder, metrics
from memejax.curriculum import toy
from memejax.datasets import labelled
from memejax.datasets.labelled import LabelledData
from memejax.report import study as pages
from memejax.reproduce.study.arms import REFERENCE, SETUPS, ArmSpec

# Scores whose correlations are shown, and the loss.
COMPARED = (
    "aadt",
    "entropy",
    "bald",
    "margin",
    "least_confidence",
    "variance",
    "gradient_length",
    "loss",
)
# Arms whose easiest and hardest pictures are shown, and the number of each per class.
SHOWN, PICTURES = ("dsac-aadt-easy-10", "dsac-entropy-easy-10", "dsac-bald-easy-10"), 8


def collect(
    specs: Sequence[ArmSpec],
    workdir: pathlib.Path,
    *,
    data: str,
    config: ConfigDict,
    pictures: bool,
) -> pages.Study:
    """Collect the study from the finished runs.

    Args:
        specs: the arms; the reference must be finished.
        workdir: the study's folder, with one folder per arm.
        data: one of `SETUPS`.
        config: config of the reference.
        pictures: whether to collect the pictures and plots that only the page shows.
    """
    c = config
    found = [_arm(spec, workdir / spec.name, c, pictures) for spec in specs]
    more: dict[str, Any] = {}
    facts = folder.read_json(workdir / REFERENCE / "results.json")["data"]
    if pictures:
        loaded = labelled.load(c, range(c.seed, c.seed + c.seeds))
        more = dict(
            labels=loaded.labels[loaded.train[0]],
            class_names=loaded.classes,
            pictures=_pictures(workdir, loaded),
            correlations=_correlations(workdir / REFERENCE, loaded),
            toy=_toy(),
            notes=_notes(workdir, loaded),
        )
    return pages.Study(
        title=f"Curricula on {SETUPS[data].title}, {_network(c)}",
        preset=c.preset,
        size=(
            f"{c.seeds} seeds, {c.train.steps:,} updates of {c.train.batch} examples, "
            f"{facts['train']:,} training pictures{_rate(c)}"
        ),
        data=facts,
        arms=found,
        reference=REFERENCE,
        band=SETUPS[data].band,
        **more,
    )


def _arm(
    spec: ArmSpec, path: pathlib.Path, config: ConfigDict, pictures: bool
) -> pages.Arm:
    """An arm; without errors if unfinished, so that it still counts as declared."""
    about: dict[str, Any] = dict(
        name=spec.name,
        title=spec.title,
        group=spec.group,
        primary=spec.primary,
        score=spec.score,
        favour=spec.favour,
        ratio=spec.ratio,
        variant=spec.variant,
    )
    drawn = pictures and spec.group == "dsac"
    found = pages.read_arm(path, probabilities=drawn, **about)
    if found is not None:
        return found
    nothing = np.zeros((config.seeds, 0))
    return pages.Arm(
        **about,
        updates=config.train.steps,
        seconds=0.0,
        steps=np.zeros(0, int),
        validation_error=nothing,
        test_error=nothing,
        finished=False,
    )


def _pictures(workdir: pathlib.Path, data: LabelledData):
    """(arm, class, update) -> pictures with the lowest and with the highest scores."""
    found = {}
    for arm in SHOWN:
        drawn = pages.read_draws(workdir / arm)
        # The first, the middle and the last draw.
        shown = {step: saved for step, saved in drawn[:1] + drawn[-1:]}
        shown |= dict(drawn[len(drawn) // 2 :][:1])
        for label, name in enumerate(data.classes):
            for step, saved in sorted(shown.items()):
                # Stable, so that ties always show the same pictures.
                rows = saved["rows"][np.argsort(saved["uncertainty"], kind="stable")]
                rows = rows[data.labels[rows] == label]
                if len(rows):
                    found[arm, name, step] = (
                        data.images[rows[:PICTURES]],
                        data.images[rows[::-1][:PICTURES]],
                    )
    return found


def _correlations(path: pathlib.Path, data: LabelledData) -> pages.Correlations:
    """Spearman correlations of the final uniform networks' scores, mean over seeds."""
    with np.load(path / "scores.npz") as saved:
        scores = {name: saved[name] for name in COMPARED}
    names = [*COMPARED, *data.difficulty]
    matrices = []
    for i, rows in enumerate(data.train):
        columns = [scores[name][i] for name in COMPARED]
        columns += [values[rows] for values in data.difficulty.values()]
        # Spearman's correlation is Pearson's of the ranks.
        matrices.append(np.corrcoef([stats.rankdata(column) for column in columns]))
    return pages.Correlations(names, np.mean(matrices, axis=0))


def _network(config: ConfigDict) -> str:
    """Readable name of the network and of the label noise."""
    name = {
        "perceptron": "perceptron",
        "convnet": "small convolutional network",
        "resnet": "ResNet",
    }[config.model.network]
    if config.model.network == "perceptron":
        name += " " + "-".join(map(str, config.model.perceptron.hidden))
    noise = config.data.label_noise
    wrong = f", {noise:.0%} of the labels wrong" if noise else ""
    return f"{name}{wrong}"


def _rate(config: ConfigDict) -> str:
    """The schedule of the learning rate, unless it is the studies' cosine."""
    schedule = config.train.optimizer.schedule
    return "" if schedule == "cosine" else f", {schedule} learning rate"


def _notes(workdir: pathlib.Path, data: LabelledData) -> list[str]:
    """Note on how well scores separate hard from easy pictures, if both are known."""
    file = workdir / "union" / "scores.npz"
    if not file.exists():
        return []
    with np.load(file) as saved:
        rows, scores = saved["rows"], {name: saved[name] for name in COMPARED}
    separations = []
    for name, values in scores.items():
        areas = [
            metrics.auroc(value, ~np.isin(row, data.easy))
            for row, value in zip(rows, values, strict=True)
        ]
        separations.append(f"{name} {np.mean(areas):.3f}")
    return [
        "Trained on easy and hard pictures together, the scores separate the hard ones "
        "from the easy ones with these AUROCs (mean over seeds): "
        f"{', '.join(separations)}."
    ]


def _toy() -> pages.Toy:
    example = toy.disagreement_example()
    return pages.Toy(
        x=example.inputs,
        curves={
            "AADT of the mean": example.aadt,
            "entropy of the mean": example.entropy,
            "entropy of a member": example.member_entropy,
            "BALD": example.bald,
        },
        caption=(
            "At 0 the labels themselves are uncertain and all members agree on that; "
            "far from the training examples each is certain, but of different labels. "
            "Only BALD is low in the first region and high in the second."
        ),
        train=example.train_inputs,
    )
