"""The stage "heads": a head on stored features, for all seeds in one program.

Files in a seed's folder:

    heads/metrics.jsonl   loss and AUROC on the dev split after each epoch
    heads/checkpoints     the one with the best AUROC
    heads/outcome.json    marks the seed as done

The first seed that is not done trains all that are not: minutes at most, so that an
interrupted training starts again.
"""

from __future__ import annotations

import functools
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import datasets, feeders, folder, logs, parallel, steps
from memejax.checkpoint import Checkpoints
from memejax.data import plans
from memejax.stage import BEST, Stage
from memejax.stages.context import Context, Ended
from memejax.stages.finetune import check_dev
from memejax.stages.parts.heads import closed, stored
from memejax.stages.parts.heads.kinds import HEADS, check_attributes, make_head
from memejax.stages.parts.heads.scaling import FEATURES
from memejax.stages.parts.heads.scores import make_scores
from memejax.stages.parts.heads.stored import HeadData
from memejax.stages.parts.heads.training import (
    Fitted,
    HeadTrainer,
    Job,
    make_apply_fn,
)

Tree = Any
NAME = "heads"
# Memes per batch of an evaluation.
_BATCH = 512
load = stored.load


def devices(config: ConfigDict) -> Mesh:
    """Return the largest mesh that the seeds can be split over evenly."""
    return parallel.devices_for_seeds(config.seeds, config.parallel.devices)


def about(config: ConfigDict) -> str:
    """Return the head and its features in words."""
    origin = config.features or config.data.root or "the built-in memes"
    return f"the head {config.heads.head!r} on features of {origin}"


def updates(config: ConfigDict, data: datasets.Data) -> dict[str, int]:
    """Return the planned updates; none of a head without a learning rate."""
    if HEADS[config.heads.head].fit != "gradient":
        return {}
    n, c = len(data.splits["train"].ids), config.heads
    return {NAME: -(-n // c.batch) * max(1, round(c.epochs))}


def check(
    config: ConfigDict, data: HeadData, *, mesh: Mesh, before: Stage | None
) -> None:
    """Build the head and trace its first update, before a run's folder is claimed.

    Raises:
        ValueError: if the head does not fit its features or its optimizer, or the dev
            split or train lacks one of the labels.
    """
    del before
    check_dev(data)
    check_attributes(config.heads)
    if HEADS[config.heads.head].fit == "gradient":
        _trainer(config, data, [config.seed], mesh=parallel.mesh(1)).trace()


def run(context: Context, before: Ended | None) -> Ended:
    """Train the head for this seed and all others that are not done.

    The outcome has `steps` and `seconds` (of all seeds trained together, divided by
    their number), `best_step` and `best`, the AUROC on the dev split that chose it, and
    `parameters`, the number that was trained.
    """
    del before  # The first stage of a run.
    if context.outcome(NAME) is None:
        config = context.config
        path = context.folder.parent
        seeds = [
            seed
            for seed in range(config.seed, config.seed + config.seeds)
            if not (path / str(seed) / NAME / "outcome.json").exists()
        ]
        _train(context, path, seeds)
    if context.seed == context.config.seed:
        # Even if the last start was killed before it.
        stored.keep_encoders(context.config, context.folder.parent)
    stage = functools.cache(lambda: _stage(context))
    return Ended(NAME, {NAME: context.outcome(NAME)}, stage)


def _columns(data: datasets.Data) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the columns of all splits, one after the other, and all labels."""
    splits = list(data.splits.values())
    columns = {
        name: np.concatenate([np.asarray(split.source[name]) for split in splits])
        for name in FEATURES
    }
    return columns, np.concatenate([split.labels for split in splits])


def _jobs(data: datasets.Data, seeds: Sequence[int]) -> list[Job]:
    """Return a job per seed: train on train, choose by the dev split."""
    rows, start = {}, 0
    for name, split in data.splits.items():
        rows[name] = np.arange(start, start + len(split.ids))
        start += len(split.ids)
    return [Job(seed, rows["train"], rows[data.dev]) for seed in seeds]


def _trainer(
    config: ConfigDict, data: HeadData, seeds: Sequence[int], *, mesh: Mesh
) -> HeadTrainer:
    columns, labels = _columns(data)
    return HeadTrainer(
        make_head(config.heads),
        config.heads,
        columns,
        labels,
        jobs=_jobs(data, seeds),
        mesh=mesh,
        retrieval=HEADS[config.heads.head].retrieval,
        prompts=data.start,
        vectorize=config.parallel.vectorize,
    )


def _train(context: Context, path: pathlib.Path, seeds: Sequence[int]) -> None:
    """Fit the head for some seeds, and save what each has learnt."""
    config, data = context.config, context.data
    began = time.perf_counter()
    kind = HEADS[config.heads.head]
    if kind.fit == "gradient":
        mesh = parallel.devices_for_seeds(len(seeds), config.parallel.devices)
        trainer = _trainer(config, data, seeds, mesh=mesh)
        found = trainer.fit(lambda line: logs.say(f"{NAME} {line}"))
        updates = trainer.steps
    else:
        found, updates = [_closed(config, data)] * len(seeds), 0
    seconds = (time.perf_counter() - began) / len(seeds)
    for seed, fitted in zip(seeds, found, strict=True):
        _save(
            config,
            data,
            path / str(seed) / NAME,
            fitted,
            {
                "steps": updates,
                "best_step": fitted.step,
                "best": fitted.rating,
                "seconds": round(seconds, 2),
                "parameters": sum(
                    np.size(x) for x in jax.tree.leaves(fitted.variables["params"])
                ),
            },
        )


def _closed(config: ConfigDict, data: HeadData) -> Fitted:
    """Fit a head that has no learning rate; the same for all seeds."""
    columns, labels = _columns(data)
    (job,) = _jobs(data, [config.seed])
    c = config.heads
    if HEADS[c.head].fit in ("logistic", "kernel"):
        return closed.fit(columns, labels, job, c)
    factor = 1.0 if data.similarity is None else data.similarity[0]
    found = {
        "prompts": np.asarray(data.zero_shot, np.float32),
        "logit_scale": np.float32(np.log(factor)),
    }
    variables = {"params": {}, "batch_stats": found}
    logits = make_scores(c)(variables, columns)
    return closed.unfitted(variables, logits, labels, job)


def _save(
    config: ConfigDict,
    data: HeadData,
    path: pathlib.Path,
    fitted: Fitted,
    outcome: dict[str, Any],
) -> None:
    """Write a seed's curve and checkpoint, and at last its outcome."""
    logger = logs.Logger(path, title=NAME, total=fitted.step)
    for step, rating in fitted.curve.items():
        logger.metrics(step, data.dev, {BEST: rating})
    logger.close()
    state = _state(_served(config, data, fitted.variables))
    plan = plans.sequential(1, batch=1).as_arrays()
    with Checkpoints(path / "checkpoints", keep=1, best=[BEST]) as saves:
        saves.save(
            fitted.step, state, plan=plan, position={}, metrics={BEST: fitted.rating}
        )
    folder.write_json(path / "outcome.json", outcome)


def _served(config: ConfigDict, data: HeadData, variables: Tree) -> Tree:
    """Return a head's variables with the store of the memes that vote."""
    if not HEADS[config.heads.head].retrieval:
        return variables
    train = data.splits["train"]
    columns = {name: jnp.asarray(train.source[name]) for name in FEATURES}
    apply_fn = make_apply_fn(make_head(config.heads))
    (_, embeddings), _ = apply_fn(variables, columns, train=False)
    store = {"embeddings": embeddings, "labels": jnp.asarray(train.labels)}
    own = {**variables["batch_stats"], "store": store}
    return {**variables, "batch_stats": own}


def _like(config: ConfigDict, data: HeadData) -> Tree:
    """Return variables of the shapes of a trained head's."""
    kind = HEADS[config.heads.head].fit
    if kind == "none":
        prompts = jnp.zeros_like(jnp.asarray(data.zero_shot))
        stats = {"prompts": prompts, "logit_scale": jnp.zeros(())}
        return {"params": {}, "batch_stats": stats}
    widths = dict(zip(FEATURES, data.facts["widths"], strict=True))
    scaling = "unit" if kind == "kernel" else config.heads.scaling
    fields = {"standard": ("mean", "scale"), "unit": ("mean",), "none": ()}[scaling]
    scales: Tree = {
        name: {field: jnp.zeros(d) for field in fields}
        for name, d in widths.items()
        if fields
    }
    if kind == "kernel":
        n, number = len(data.splits["train"].ids), jnp.zeros(())
        support = {name: jnp.zeros((n, d)) for name, d in widths.items()}
        setting = {"gamma": number, "image_share": number}
        params: Tree = {"alpha": jnp.zeros(n), "bias": number}
        scales |= {"kernel": setting, "support": support}
        return {"params": params, "batch_stats": scales}
    zeros = {f"{name}_bd": jnp.zeros((2, d)) for name, d in widths.items()}
    made = make_head(config.heads).init(jax.random.key(0), **zeros, train=False)
    variables = {"params": made["params"], "batch_stats": scales}
    return _served(config, data, variables)


def _state(variables: Tree) -> steps.State:
    """Return a state that holds variables alone."""
    tree = jax.tree.map(jnp.asarray, variables)
    return steps.init_state(tree, optax.identity(), key=jax.random.key(0))


def _stage(context: Context) -> Stage:
    """Return the trained head as a stage that scores, and trains no more."""
    config, data, mesh = context.config, context.data, parallel.mesh(1)
    shapes = jax.eval_shape(lambda: _state(_like(config, data)))
    abstract = parallel.abstract_like(shapes, parallel.replicated(mesh))
    scores = make_scores(config.heads)

    def predict(variables: Tree, batch: Any) -> dict[str, jax.Array]:
        rows = batch["index"]
        columns = {name: batch["data"][name][rows] for name in FEATURES}
        return scores(variables, columns)

    def trained(*_: Any) -> Any:
        raise ValueError("a head is trained for all seeds at once")

    plan = plans.sequential(len(data.splits["train"].ids), batch=_BATCH)
    return Stage(
        init=trained,
        abstract=abstract,
        run_chunk=trained,
        feeder=feeders.GatherFeeder({}, plan),
        scoring=functools.partial(feeders.one_pass, mesh=mesh, batch=_BATCH),
        predict=jax.jit(predict),
    )
