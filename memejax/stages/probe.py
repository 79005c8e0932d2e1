"""The stage "probe": quality of pretrained features.

Nearest neighbours and a linear probe on the network's features, compared with those of
the same network untrained and with the raw pixels; attention maps, and maps of the
embeddings. `python -m memejax.evaluate` does the same for any finished run.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from memejax import datasets, logs, losses, metrics, parallel
from memejax.config import flatten
from memejax.explain import pictures
from memejax.metrics import probes
from memejax.stage import Stage
from memejax.stages.context import Context, Ended
from memejax.stages.parts.image_maps import image_maps

Tree = Any
Embeddings = dict[str, np.ndarray]

# Pictures with an attention map, and points in a map of embeddings.
PICTURES, MAP = 6, 1000
# Most numbers in the raw pixels of a comparison, 800 MB.
MOST_PIXELS = 200_000_000
# Rows to compare with: the network before training, and no network at all.
UNTRAINED, PIXELS = "untrained", "pixels"


def folder_of(name: str) -> str:
    """Return the name of the folder for the probe of a stage."""
    return f"probe-{name}"


def run(context: Context, before: Ended | None) -> Ended:
    """Probe the previous stage's features, unless already done."""
    if before is None or before.weights is None:
        raise ValueError("probe needs a training stage before it in config.stages")
    name = folder_of(before.name)
    outcome = context.outcome(name)
    if outcome is None:
        logs.say("probe: neighbours, linear probe, maps and pictures")
        stage = before.stage()
        outcome = compare(
            context.config,
            context.data,
            stage,
            trained=before.weights(),
            # Depends on the seed alone: the same as at the start of the stage.
            untrained=stage.init().weights(),
            path=context.folder / name,
            **context.config.probe,
        )
        context.finish(name, outcome)
    return Ended(before.name, {name: outcome}, before.stage, before.weights)


def check(
    config: ConfigDict, data: datasets.Data, *, mesh: Any, before: Stage | None
) -> None:
    """Check the split to classify, before a run's folder is claimed.

    Raises:
        ValueError: if there is no such split, or no labelled one.
    """
    del mesh, before
    _target(data, config.probe.split)


def embed(
    embed_fn: Callable[..., Mapping[str, jax.Array]], variables: Tree, feeder: Any
) -> Embeddings:
    """Compute the features of every example of a split, per arm.

    Args:
        embed_fn: `(variables, batch) -> {arm: features [b, d]}`.
        variables: params and batch_stats.
        feeder: one pass over the split in order; weight 0 marks padding.

    Returns:
        Arm -> float32 [n, d], in the split's order.
    """
    rows: dict[str, list[np.ndarray]] = {}
    for step, (_, batch) in enumerate(feeder.chunks(0)):
        outputs = embed_fn(variables, batch)
        # The plan's row, not the batch's: a process has only a part of the batch.
        row = feeder.plan.row(step)
        named = {**outputs, "index": row["index"], "weight": row["weight"]}
        for name, value in jax.device_get(named).items():
            rows.setdefault(name, []).append(value)
    joined = metrics.by_index({k: np.concatenate(v) for k, v in rows.items()})
    return {k: v for k, v in joined.items() if k not in ("index", "weight")}


def compare(
    config: ConfigDict,
    data: datasets.Data,
    stage: Stage,
    *,
    trained: Tree,
    untrained: Tree,
    path: pathlib.Path,
    split: str | None = None,
    k: int = 20,
    examples: int = 10_000,
) -> dict[str, Any]:
    """Compare trained with untrained features, and draw attention maps.

    Args:
        config: the run's config.
        data: "train" fits the neighbours and the linear probe.
        stage: the networks' stage; its `embed` is not None.
        trained: the variables to probe.
        untrained: the variables before the first update.
        path: folder for the pictures.
        split: the split to classify; None: the last one with labels.
        k: number of neighbours.
        examples: maximum per split.

    Returns:
        JSON: split, classes, sizes; `figures`, for each row (the stage's name,
        untrained, pixels) and arm the accuracy (and AUROC for two classes) of kNN and
        linear probe; `panel`, the collapse panel of the trained features.
    """
    target = _target(data, split)
    splits = {name: data.splits[name] for name in ("train", target)}
    rows = {
        name: np.flatnonzero(one.labels >= 0)[:examples] for name, one in splits.items()
    }
    labels = {name: one.labels[rows[name]] for name, one in splits.items()}

    embed_fn = stage.embed
    if embed_fn is None:
        raise ValueError("this stage's network has no features to probe")
    parts = {name: one.take(rows[name]) for name, one in splits.items()}

    def features(variables: Tree) -> dict[str, Embeddings]:
        return {
            name: embed(embed_fn, variables, stage.scoring(part))
            for name, part in parts.items()
        }

    own = path.name.removeprefix("probe-")
    found = {own: features(trained), UNTRAINED: features(untrained)}
    found[PIXELS] = _pixels(splits, rows)
    judge = functools.partial(
        _judge,
        labels=labels["train"],
        truth=labels[target],
        classes=data.classes,
        k=k,
    )
    outcome = {
        "split": target,
        "classes": data.classes,
        "examples": {name: len(known) for name, known in rows.items()},
        "k": k,
        "figures": {
            row: {
                arm: judge(z, by_split[target][arm], linear=row != PIXELS)
                for arm, z in by_split["train"].items()
            }
            for row, by_split in found.items()
        },
        "panel": {
            arm: {k: float(v) for k, v in losses.collapse_panel(z[:2048]).items()}
            for arm, z in found[own][target].items()
        },
    }
    drawn = _draw(config, splits[target], trained, found[own][target], rows[target])
    if parallel.is_first():
        path.mkdir(parents=True, exist_ok=True)
        for name, png in drawn.items():
            (path / f"{name}.png").write_bytes(png)
    scalars = flatten({"figures": outcome["figures"], "panel": outcome["panel"]})
    logs.publish(
        path,
        scalars={k.replace(".", "/"): v for k, v in scalars.items()},
        pictures=drawn,
    )
    return outcome | {"pictures": sorted(drawn)}


def _target(data: datasets.Data, split: str | None) -> str:
    """Return the split to classify, by default the last one with labels."""
    labelled = [name for name, found in data.splits.items() if found.labelled]
    if not labelled or not data.splits["train"].labelled:
        raise ValueError(
            "a probe needs a training split with labels of several classes"
        )
    if split is not None and split not in labelled:
        raise ValueError(f"got split {split!r}, expected one of {sorted(labelled)}")
    return split or labelled[-1]


def _pixels(splits, rows) -> dict[str, Embeddings]:
    """Return the pictures as features; empty if they would not fit in memory."""
    sizes = [
        len(rows[name]) * splits[name].source["image"][np.arange(1)].size
        for name in splits
    ]
    if sum(sizes) > MOST_PIXELS:
        return {name: {} for name in splits}
    return {
        name: {
            "both": split.source["image"][rows[name]].reshape(len(rows[name]), -1)
            / np.float32(255)
        }
        for name, split in splits.items()
    }


def _judge(train, test, *, labels, truth, classes, k, linear) -> dict[str, Any]:
    """Evaluate kNN and, optionally, a linear probe on features."""
    scores = probes.knn(train, labels, test=test, classes=classes, k=k)
    judged = {"knn": probes.report(scores, truth)}
    if linear:
        scores = probes.linear_probe(train, labels, test=test, classes=classes)
        judged["linear"] = probes.report(scores, truth)
    return judged


def _draw(config, split, trained, embeddings, rows) -> dict[str, bytes]:
    """Return name -> PNG: attention maps, and a map of each arm's embeddings."""
    labels = split.labels[rows]
    drawn: dict[str, bytes] = {}
    some = rows[:PICTURES]
    images = np.asarray(split.source["image"][some])
    maps = {
        title: found
        for arm in config.arms
        for title, found in image_maps(config, arm, trained, images=images).items()
    }
    if maps:
        drawn["attention"] = pictures.overlay_grid(images, maps)
    for arm, z in embeddings.items():
        points, index = probes.embedding_map(z, limit=MAP)
        drawn[f"map-{arm}"] = pictures.scatter(
            points, labels[index], title=f"{arm}: {split.name}, t-SNE"
        )
    return drawn
