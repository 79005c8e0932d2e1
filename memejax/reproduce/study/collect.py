"""Finished runs of a study -> what its page is made from."""

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

# Scores that the correlations are of; the loss is one more.
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
# Arms whose easiest and hardest pictures are shown, so many of each.
SHOWN, PICTURES = ("dsac-aadt-easy-10", "dsac-entropy-easy-10", "dsac-bald-easy-10"), 12


def collect(
    specs: Sequence[ArmSpec],
    workdir: pathlib.Path,
    *,
    data: str,
    config: ConfigDict,
    pictures: bool,
) -> pages.Study:
    """The study from whatever is finished.

    Args:
        specs: the arms; the reference must be finished.
        workdir: the study's folder, with a folder an arm.
        data: one of `SETUPS`.
        config: of the reference.
        pictures: whether to collect what only the page shows.

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
            f"{facts['train']:,} training pictures"
        ),
        data=facts,
        arms=found,
        reference=REFERENCE,
        band=SETUPS[data].band,
        **more,
    )


def _arm(
    spec: ArmSpec, where: pathlib.Path, config: ConfigDict, pictures: bool
) -> pages.Arm:
    """An arm; an unfinished one without errors, so that it still counts as declared."""
    about: dict[str, Any] = dict(
        name=spec.name,
        title=spec.title,
        group=spec.group,
        primary=spec.primary,
        score=spec.score,
        favour=spec.favour,
        ratio=spec.ratio,
    )
    drawn = pictures and spec.group == "dsac"
    found = pages.read_arm(where, probabilities=drawn, **about)
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
    """(arm, update) -> pictures of the lowest and of the highest scores."""
    found = {}
    for arm in SHOWN:
        drawn = pages.read_draws(workdir / arm)
        # The first, the middle and the last time.
        for step, saved in (drawn[:1] + drawn[len(drawn) // 2 :][:1] + drawn[-1:])[:3]:
            # Stable, so that the same pictures are shown of equal scores.
            rows = saved["rows"][np.argsort(saved["uncertainty"], kind="stable")]
            found[arm, step] = (
                data.images[rows[:PICTURES]],
                data.images[rows[::-1][:PICTURES]],
            )
    return found


def _correlations(where: pathlib.Path, data: LabelledData) -> pages.Correlations:
    """Spearman's, of the last uniform networks' scores; the mean over seeds."""
    with np.load(where / "scores.npz") as saved:
        scores = {name: saved[name] for name in COMPARED}
    names = [*COMPARED, *data.difficulty]
    matrices = []
    for i, rows in enumerate(data.train):
        columns = [scores[name][i] for name in COMPARED]
        columns += [values[rows] for values in data.difficulty.values()]
        # Spearman's is Pearson's of the ranks.
        matrices.append(np.corrcoef([stats.rankdata(column) for column in columns]))
    return pages.Correlations(names, np.mean(matrices, axis=0))


def _network(config: ConfigDict) -> str:
    """The network, and what is wrong with its labels, for a person."""
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


def _notes(workdir: pathlib.Path, data: LabelledData) -> list[str]:
    """Whether scores tell hard pictures from easy ones, where both are known."""
    file = workdir / "union" / "scores.npz"
    if not file.exists():
        return []
    with np.load(file) as saved:
        rows, scores = saved["rows"], {name: saved[name] for name in COMPARED}
    told = []
    for name, values in scores.items():
        areas = [
            metrics.auroc(value, ~np.isin(row, data.easy))
            for row, value in zip(rows, values, strict=True)
        ]
        told.append(f"{name} {np.mean(areas):.3f}")
    return [
        "Trained on easy and hard pictures together, the scores tell the hard ones "
        f"from the easy ones with these AUROCs (mean over seeds): {', '.join(told)}."
    ]


def _toy() -> pages.Toy:
    seen = toy.disagreement_example()
    return pages.Toy(
        x=seen.inputs,
        curves={
            "AADT of the mean": seen.aadt,
            "entropy of the mean": seen.entropy,
            "entropy of a member": seen.member_entropy,
            "BALD": seen.bald,
        },
        caption=(
            "At 0 the labels themselves are uncertain and every member knows it; far "
            "from the training examples each is certain, but not of the same. Only "
            "BALD is low in the first place and high in the second."
        ),
        train=seen.train_inputs,
    )
