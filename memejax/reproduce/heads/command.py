"""The comparison of heads: its plan, its measurements, and its table."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memejax import atomic, folder, logs, metrics
from memejax.metrics import significance
from memejax.reproduce.heads import methods, protocol
from memejax.reproduce.heads.methods import BASELINES, METHODS, Inputs, Scored
from memejax.reproduce.heads.protocol import Memes, Trial
from memejax.reproduce.performance.parts import (
    Measured,
    machine,
    to_csv,
    to_html,
    to_markdown,
)
from memejax.stages.parts.heads.stored import class_prompts
from memejax.store.read import Store, open_store

NAME = "heads"
FORMATS = {"md": to_markdown, "csv": to_csv, "html": to_html}
# AUROC on Hateful Memes, dev_seen / test_seen, of CLIP ViT-L/14 (RGCL: at 336 pixels,
# test_seen).
PUBLISHED = {
    "concat": "79.0 / 83.7",
    "align": "81.6 / 85.8",
    "cross": "82.6 / 85.1",
    "rgcl": "- / 87.0",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """A checked comparison.

    Attributes:
        workdir: folder of the scores and the table.
        store: of the features.
        inputs: of the methods.
        trials: of all seeds.
        seeds: number of seeds.
        names: methods that are compared.
        table_only: whether only finished methods are shown.
    """

    workdir: pathlib.Path
    store: Store
    inputs: Inputs
    trials: Sequence[Trial]
    seeds: int
    names: Sequence[str]
    table_only: bool


def prepare(
    *,
    features: str | None,
    preset: str = "demo",
    workdir: str | os.PathLike[str] | None = None,
    seeds: int = 20,
    names: Sequence[str] = (),
    table_only: bool = False,
) -> Plan:
    """Plan a comparison, and check that it can be made.

    Args:
        features: the store.
        preset: "demo", or "full" to search the published settings too.
        workdir: folder of the scores and the table; default `runs/heads`.
        seeds: number of paired seeds, from 0; at least 2.
        names: methods to measure; all if empty. The best baseline is always there.
        table_only: whether to measure nothing.

    Raises:
        ValueError: if an argument is not as above, or the store does not serve.
    """
    if features is None:
        raise ValueError(
            "heads needs --features=STORE, the folder that python -m memejax.extract "
            "--config=configs/heads.py:PRESET --out=STORE wrote"
        )
    if preset not in methods.SEARCH:
        raise ValueError(
            f"got preset {preset!r}, expected one of {list(methods.SEARCH)}"
        )
    unknown = sorted(set(names) - set(METHODS))
    if unknown or seeds < 2:
        raise ValueError(
            f"got methods {unknown or list(names)} and {seeds} seeds, expected some of "
            f"{list(METHODS)} and at least 2 seeds"
        )
    store = open_store(features)
    memes = protocol.read_memes(store)
    return Plan(
        pathlib.Path(workdir or "runs/heads"),
        store,
        _inputs(store, memes)._replace(
            search=methods.SEARCH[preset], wide=preset == "full"
        ),
        protocol.trials(memes, range(seeds)),
        seeds,
        [name for name in METHODS if not names or name in {*names, *BASELINES}],
        table_only,
    )


def _inputs(store: Store, memes: Memes) -> Inputs:
    columns = {
        name: np.concatenate([split.column(name) for split in store.splits.values()])
        for name in ("image", "text", "image_shared")
        if name in store.facts["columns"]
    }
    if not store.facts.get("prompts"):
        return Inputs(memes, columns)
    scale = store.facts.get("similarity")
    return Inputs(
        memes,
        columns,
        start=class_prompts(store, "start")[0],
        zero_shot=class_prompts(store, "zero_shot")[1],
        scale=1.0 if scale is None else scale[0],
    )


def perform(plan: Plan) -> Measured:
    """Measure what is missing, and write the table as Markdown, CSV, HTML and JSON.

    Raises:
        ValueError: if the folder has scores of another store or other seeds; if nothing
            is measured and `table_only` is set.
    """
    found: dict[str, Scored | None] = {}
    for name in plan.names:
        if methods.not_applicable(name, plan.inputs):
            found[name] = None
            continue
        saved = _read(plan, name)
        if saved is None and not plan.table_only:
            logs.say(f"{name}: {len(plan.trials)} trainings and their search")
            saved = METHODS[name](plan.inputs, plan.trials, logs.say)
            _write(plan, name, saved)
        if saved is not None:
            found[name] = saved
    if not any(found.values()):
        raise ValueError(f"no method is measured in {plan.workdir}")
    made = table(plan, found)
    plan.workdir.mkdir(parents=True, exist_ok=True)
    for suffix, render in FORMATS.items():
        atomic.write_text(plan.workdir / f"{NAME}.{suffix}", render(made))
    folder.write_json(
        plan.workdir / f"{NAME}.json",
        {"figures": made.figures, "machine": made.machine, "preset": made.preset},
    )
    return made


def _key(plan: Plan, name: str) -> str:
    """Return what a method's scores depend on."""
    grids = [methods.STRENGTHS, methods.SHARES, methods.GAMMAS, methods.PENALTIES]
    settings = [methods.settings_of(name, plan.inputs), *map(list, grids)]
    content = [plan.store.key, plan.seeds, settings, name]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _path(plan: Plan, name: str) -> pathlib.Path:
    return plan.workdir / NAME / f"{name}.npz"


def _read(plan: Plan, name: str) -> Scored | None:
    """Return a method's saved scores, None if it is not measured."""
    path = _path(plan, name)
    if not path.exists():
        return None
    with np.load(path) as file:
        if str(file["key"]) != _key(plan, name):
            raise ValueError(
                f"{path} is of other features, seeds or settings: choose another "
                "--workdir, or delete it"
            )
        count = int(file["parameters"])
        return Scored(
            file["logits"],
            file["settings"].tolist(),
            float(file["seconds"]),
            None if count < 0 else count,
        )


def _write(plan: Plan, name: str, scored: Scored) -> None:
    path = _path(plan, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(path) as file:
        np.savez(
            file,
            allow_pickle=False,
            key=np.array(_key(plan, name)),
            logits=scored.logits.astype(np.float32),
            settings=np.array(scored.settings),
            seconds=scored.seconds,
            parameters=-1 if scored.parameters is None else scored.parameters,
        )


def table(plan: Plan, found: Mapping[str, Scored | None]) -> Measured:
    """Compare methods by their scores."""
    memes, folds = plan.inputs.memes, _places(plan, "fold")
    others = [name for name in plan.trials[-1].tests if name != "fold"]
    scored = {name: one for name, one in found.items() if one is not None}
    figures = {name: _figures(plan, one) for name, one in scored.items()}
    baselines = [name for name in BASELINES if name in scored]
    best = max(baselines, key=lambda name: figures[name]["fold"]["auroc"][0])
    compared = [name for name in scored if name not in BASELINES]
    trials = [plan.trials[i] for i in folds]

    def on_folds(name: str) -> list[np.ndarray]:
        logits = scored[name].logits
        return [logits[i][plan.trials[i].tests["fold"]] for i in folds]

    for name in compared:
        figures[name]["difference"] = protocol.difference(
            memes, trials, on_folds(name), on_folds(best)
        )
    # Declared beforehand: all heads that can take these features.
    p = significance.holm([figures[name]["difference"]["p"] for name in compared])
    for name, adjusted in zip(compared, p.tolist(), strict=True):
        figures[name]["difference"]["p_holm"] = adjusted
    rows = [
        _row(name, found[name], figures.get(name), others, best)
        for name in plan.names
        if name in found
    ]
    return Measured(
        name=NAME,
        title="Heads on stored features",
        preset=plan.store.facts["preset"],
        protocol=(
            f"{plan.seeds} seeds, each five folds of train by caption; settings and "
            "checkpoint chosen on a fifth of the training memes, by caption"
        ),
        columns=[
            "head",
            "AUROC, five folds",
            f"difference to {best}",
            "p (Holm)",
            *(f"AUROC, {name}" for name in others),
            "without seen memes",
            "accuracy",
            "Brier",
            "parameters",
            "s per training",
            "published",
        ],
        rows=[*rows, _constant(plan, others)],
        figures={"rows": figures, "best_baseline": best, "key": plan.store.key},
        machine=machine(),
        notes=_notes(plan, best),
    )


def _places(plan: Plan, test: str) -> list[int]:
    return [i for i, trial in enumerate(plan.trials) if test in trial.tests]


def _figures(plan: Plan, scored: Scored) -> dict[str, Any]:
    """Return mean and deviation over seeds of every figure, by test."""
    memes, found = plan.inputs.memes, {}
    for test in ("fold", *(n for n in plan.trials[-1].tests if n != "fold")):
        by_seed: dict[int, list[dict[str, float]]] = {}
        for i in _places(plan, test):
            trial = plan.trials[i]
            rows = trial.tests[test]
            own = protocol.figures(scored.logits[i][rows], memes.labels[rows])
            new = rows[protocol.unseen(memes, trial, rows)]
            both = len(np.unique(memes.labels[new])) == 2
            own["unseen"] = (
                metrics.auroc(scored.logits[i][new], memes.labels[new])
                if both
                else float("nan")
            )
            own["unseen_memes"] = len(new)
            by_seed.setdefault(trial.job.seed, []).append(own)
        means = [
            {k: float(np.mean([fold[k] for fold in folds])) for k in folds[0]}
            for folds in by_seed.values()
        ]
        found[test] = {k: metrics.mean_std([one[k] for one in means]) for k in means[0]}
        found[test]["by_seed"] = [one["auroc"] for one in means]
    chosen, counts = np.unique(list(scored.settings), return_counts=True)
    return found | {
        "settings": dict(zip(chosen.tolist(), counts.tolist(), strict=True)),
        "seconds": scored.seconds,
        "parameters": scored.parameters,
    }


def _row(
    name: str,
    scored: Scored | None,
    own: Mapping[str, Any] | None,
    others: Sequence[str],
    best: str,
) -> list[str]:
    """Return a method's cells."""
    if scored is None or own is None:
        empty = ["-"] * (len(others) + 7)
        return [name, "not applicable", *empty, PUBLISHED.get(name, "")]
    fold, compared = own["fold"], own.get("difference")
    difference, p = ("best baseline" if name == best else ""), ""
    if compared is not None:
        difference = (
            f"{compared['mean']:+.4f} [{compared['low']:+.4f}, {compared['high']:+.4f}]"
        )
        p = f"{compared['p_holm']:.3f}"
    return [
        name,
        _spread(fold["auroc"]),
        difference,
        p,
        *(_spread(own[other]["auroc"]) for other in others),
        _spread(fold["unseen"]),
        f"{fold['accuracy'][0]:.4f}",
        f"{fold['brier'][0]:.4f}",
        "-" if own["parameters"] is None else f"{own['parameters']:,}",
        f"{own['seconds']:.2f}",
        PUBLISHED.get(name, ""),
    ]


def _constant(plan: Plan, others: Sequence[str]) -> list[str]:
    """Return the cells of a predictor that knows only the share of hateful memes."""
    memes = plan.inputs.memes
    share = float(np.mean(memes.labels[memes.splits["train"]]))
    figures = [f"{max(share, 1 - share):.4f}", f"{share * (1 - share):.4f}"]
    half = ["0.5000"] * len(others)
    return ["constant", "0.5000", "", "", *half, "0.5000", *figures, "0", "-", ""]


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _spread(figure: tuple[float, float]) -> str:
    return f"{figure[0]:.4f} ± {figure[1]:.4f}"


def _notes(plan: Plan, best: str) -> list[str]:
    encoders = " and ".join(plan.store.facts["encoders"].values())
    sizes = ", ".join(
        f"{n} of {name}" for name, n in plan.store.facts["splits"].items()
    )
    return [
        f"Features: {encoders}. Memes: {sizes}.",
        "AUROC, five folds: mean over the folds, then mean ± standard deviation over "
        "the seeds, which share folds and memes; accuracy at 0.5 and Brier score are "
        "those of the folds.",
        f"Difference: to {best}, the best of the linear baselines in the five folds; "
        f"95 % interval and p over {protocol.RESAMPLES} draws of captions, p adjusted "
        "by Holm for all heads.",
        "Without seen memes: five folds without memes whose caption or picture "
        f"(difference hashes {protocol.SAME_PICTURE} of 64 bits apart at most) is "
        "among the training memes.",
        "Search: "
        + "; ".join(plan.inputs.search)
        + ("" if plan.inputs.wide else f"; cross {methods.WIDEST} wide only")
        + f"; linear: C of {_list(methods.STRENGTHS)}, and shares of the pictures of "
        f"{_list(methods.SHARES)}; kernel: these shares, gamma of "
        f"{_list(methods.GAMMAS)}, penalty of {_list(methods.PENALTIES)}.",
        "Published: AUROC in % on Hateful Memes, dev_seen / test_seen, with CLIP "
        "ViT-L/14: comparable with that encoder and those memes alone.",
        "Not applicable: the head needs towers that share a space, such as a CLIP's.",
    ]
