"""What a representation is worth: neighbours, a linear probe, maps and pictures.

    python -m memejax.evaluate --workdir=RUN

looks at the last checkpoint of every stage of a run, beside the same network
untrained and the raw pixels, and adds what it finds to the run's results.json and
report.html. A run whose stages name `probe` does so for its pretraining by itself.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import (
    build,
    dataset,
    folder,
    logs,
    losses,
    metrics,
    parallel,
    probes,
    report,
)
from memejax.checkpoint import Checkpoints
from memejax.report import pictures
from memejax.scores import score_dataset as score_dataset

Tree = Any
Embeddings = dict[str, np.ndarray]

# Pictures whose attention is drawn, and points of a map.
PICTURES, MAP = 6, 1000
# Numbers in the raw pixels of a comparison, 800 MB.
MOST_PIXELS = 200_000_000
# What stands beside the network: itself before training, and no network at all.
UNTRAINED, PIXELS = "untrained", "pixels"


def embed(
    embed_fn: Callable[..., Mapping[str, jax.Array]], variables: Tree, feeder: Any
) -> Embeddings:
    """The features of every example of a split, an arm.

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
        # The plan's row, not the batch's, of which a process has a part only.
        row = feeder.plan.row(step)
        named = {**outputs, "index": row["index"], "weight": row["weight"]}
        for name, value in jax.device_get(named).items():
            rows.setdefault(name, []).append(value)
    joined = metrics.by_index({k: np.concatenate(v) for k, v in rows.items()})
    return {k: v for k, v in joined.items() if k not in ("index", "weight")}


def probe(
    config: ConfigDict,
    data: dataset.Data,
    stage: build.Stage,
    *,
    trained: Tree,
    untrained: Tree,
    mesh: Mesh,
    where: pathlib.Path,
) -> dict[str, Any]:
    """Compares trained with untrained features, and draws what the network sees.

    Args:
      config: the run's; `probe` is the section.
      data: "train" is remembered by the neighbours and the linear probe, the split
        `probe.split` is what they are asked about.
      stage: whose networks.
      trained: the variables to look at.
      untrained: the same before the first update.
      mesh: the devices.
      where: folder of the pictures.

    Returns:
      JSON: split, classes, sizes; `figures`, a row (the stage's name, untrained,
      pixels) and an arm the accuracy (and AUROC, of two classes) of kNN and linear
      probe; `panel`, the collapse panel of the trained features.
    """
    c = config.probe
    asked = c.split or _last_labelled(data)
    if asked not in data.splits:
        raise ValueError(
            f"probe.split is {asked!r}, the data has {sorted(data.splits)}"
        )
    splits = {name: data.splits[name] for name in ("train", asked)}
    rows = {
        name: np.flatnonzero(split.labels >= 0)[: c.examples]
        for name, split in splits.items()
    }
    labels = {name: split.labels[rows[name]] for name, split in splits.items()}

    def features(variables: Tree) -> dict[str, Embeddings]:
        return {
            name: embed(
                stage.embed,
                variables,
                build.part_feeder(config, split, rows[name], mesh),
            )
            for name, split in splits.items()
        }

    own = where.name.removeprefix("probe-")
    found = {own: features(trained), UNTRAINED: features(untrained)}
    found[PIXELS] = _pixels(splits, rows)
    judge = functools.partial(
        _judge,
        labels=labels["train"],
        truth=labels[asked],
        classes=data.classes,
        k=c.k,
    )
    outcome = {
        "split": asked,
        "classes": data.classes,
        "examples": {name: len(known) for name, known in rows.items()},
        "k": c.k,
        "figures": {
            row: {
                arm: judge(z, by_split[asked][arm], linear=row != PIXELS)
                for arm, z in by_split["train"].items()
            }
            for row, by_split in found.items()
        },
        "panel": {
            arm: {k: float(v) for k, v in losses.collapse_panel(z[:2048]).items()}
            for arm, z in found[own][asked].items()
        },
    }
    drawn = _draw(config, splits[asked], trained, found[own][asked], rows[asked])
    if parallel.is_first():
        where.mkdir(parents=True, exist_ok=True)
        for name, png in drawn.items():
            (where / f"{name}.png").write_bytes(png)
    scalars = folder.flatten({"figures": outcome["figures"], "panel": outcome["panel"]})
    logs.publish(
        where,
        scalars={k.replace(".", "/"): v for k, v in scalars.items()},
        pictures=drawn,
    )
    return outcome | {"pictures": sorted(drawn)}


def _last_labelled(data: dataset.Data) -> str:
    """The split that is asked about where the config names none."""
    return [n for n, split in data.splits.items() if split.labelled][-1]


def _pixels(splits, rows) -> dict[str, Embeddings]:
    """The pictures themselves as features; none where they would fill the memory."""
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
    """kNN and linear probe of one kind of features."""
    scores = probes.knn(train, labels, test=test, classes=classes, k=k)
    judged = {"knn": probes.report(scores, truth)}
    if linear:
        scores = probes.linear_probe(train, labels, test=test, classes=classes)
        judged["linear"] = probes.report(scores, truth)
    return judged


def _draw(config, split, trained, embeddings, rows) -> dict[str, bytes]:
    """Name -> PNG: what the network looks at, and a map of each arm's embeddings."""
    labels = split.labels[rows]
    drawn: dict[str, bytes] = {}
    some = rows[:PICTURES]
    images = np.asarray(split.source["image"][some])
    maps = {
        title: found
        for arm in config.arms
        for title, found in build.image_maps(
            config, arm, trained, images=images
        ).items()
    }
    if maps:
        drawn["attention"] = pictures.overlay_grid(images, maps)
    for arm, z in embeddings.items():
        points, index = probes.embedding_map(z, limit=MAP)
        drawn[f"map-{arm}"] = pictures.scatter(
            points, labels[index], title=f"{arm}: {split.name}, t-SNE"
        )
    return drawn


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m memejax.evaluate",
        description="Probes the checkpoints of a run's stages by neighbours and a "
        "linear probe, and adds what it finds to results.json and report.html.",
    )
    parser.add_argument(
        "--workdir", required=True, metavar="RUN", help="the run's folder"
    )
    where = pathlib.Path(parser.parse_args().workdir)
    results = run(where)
    report.console(results)
    logs.say(f"added to {where / 'results.json'} and {where / 'report.html'}")


def run(where: pathlib.Path) -> dict[str, Any]:
    """Probes every stage of every seed of a run, and returns its new results.

    Raises:
      ValueError: if there is no run in the folder, or no checkpoint in it.
    """
    saved = folder.read_json(where / "config.json")
    results = folder.read_json(where / "results.json")
    if saved is None or results is None:
        raise ValueError(f"{where} holds no finished run (config.json, results.json)")
    config = ConfigDict(saved)
    mesh = build.mesh(config)
    data = dataset.load(config, where)
    for seed in results["seeds"]:
        for name, make in STAGES.items():
            if not (where / seed / name / "checkpoints").exists():
                continue
            stage = make(config, data, seed=int(seed), mesh=mesh)
            untrained = jax.device_get(stage.state.weights())
            stage.give_up()
            outcome = probe(
                config,
                data,
                stage,
                untrained=untrained,
                trained=restore(
                    where / seed / name, stage, keep=config.checkpoint.keep
                ),
                mesh=mesh,
                where=where / seed / f"probe-{name}",
            )
            folder.write_json(where / seed / f"probe-{name}" / "outcome.json", outcome)
            results["seeds"][seed][f"probe-{name}"] = outcome
    folder.write_json(where / "results.json", results)
    report.write(where)
    return results


STAGES = {"pretrain": build.pretrain, "finetune": build.finetune}


def restore(where: pathlib.Path, stage: build.Stage, *, keep: int) -> Tree:
    """The variables to use of a stage's last checkpoint."""
    with Checkpoints(where / "checkpoints", keep=keep) as saves:
        return saves.restore(stage.state, step=saves.latest).state.weights()


if __name__ == "__main__":
    main()
