"""The methods that are compared, each with the settings of its search.

A method gets columns, memes and trials, and gives scores of all memes for every trial.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from memejax import metrics, parallel
from memejax.reproduce.heads.protocol import Memes, Trial
from memejax.stages.parts.heads import closed
from memejax.stages.parts.heads.kinds import ATTRIBUTES, HEADS, make_head
from memejax.stages.parts.heads.scores import make_scores
from memejax.stages.parts.heads.training import Fitted, HeadTrainer

# C of logistic regression, from the strongest penalty on.
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
# Shares of the pictures in a linear model, and in a kernel.
SHARES = (0.3, 0.45)
GAMMAS, PENALTIES = (2.0, 4.0), (1.0, 0.3, 0.1)
# Settings of a head that is trained by gradient descent, by preset: two widths and two
# rates; "full" adds the head as published, 1024 wide, which takes a CPU hours. One is
# chosen for every trial.
_SMALL: dict[str, dict[str, Any]] = {
    "64 wide, 3e-4": dict(width=64, layers=1, lr=3e-4, epochs=10.0),
    "64 wide, 2e-3": dict(width=64, layers=1, lr=2e-3, epochs=10.0),
    "256 wide, 3e-4": dict(width=256, layers=1, lr=3e-4, epochs=10.0),
    "256 wide, 2e-3": dict(width=256, layers=1, lr=2e-3, epochs=10.0),
}
SEARCH = {"demo": _SMALL, "full": _SMALL | {"as published": dict(lr=1e-4, epochs=20.0)}}
# Searched in one width, but by "full": with all pairs of 256 features a head has 17 M
# parameters, and 24 of them take two cores ten minutes.
NARROW, WIDEST = {"cross"}, 64
# Heads trained at once: their states have to fit into memory together.
TOGETHER = 24


class Inputs(NamedTuple):
    """Inputs of the methods.

    Attributes:
        memes: of the store.
        columns: `image`, `text` and, of towers that share a space, `image_shared`;
            float32 `[n, d]`.
        start: prompts that a MemeCLIP starts from, float32 `[2, d]`; None without.
        zero_shot: prompts of zero-shot, float32 `[2, e]`; None without.
        scale: factor of the cosine in a logit.
        search: settings of a head that is trained by gradient descent, by name.
        wide: whether those of `NARROW` are searched in every width.
    """

    memes: Memes
    columns: Mapping[str, np.ndarray]
    start: np.ndarray | None = None
    zero_shot: np.ndarray | None = None
    scale: float = 1.0
    search: Mapping[str, Mapping[str, Any]] = SEARCH["demo"]
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Scored:
    """Scores of one method.

    Attributes:
        logits: of all memes, float `[trials, n]`.
        settings: the chosen one of each trial.
        seconds: of one training, the search included.
        parameters: that are trained; None if they depend on the captions.
    """

    logits: np.ndarray
    settings: Sequence[str]
    seconds: float
    parameters: int | None


Say = Callable[[str], None]


def tfidf(inputs: Inputs, trials: Sequence[Trial], say: Say) -> Scored:
    """Score by logistic regression on TF-IDF of words and pairs of words."""
    del say
    began, memes = time.perf_counter(), inputs.memes
    logits, chosen = [], []
    for trial in trials:
        own, held_out = trial.job.train, trial.job.held_out
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
        words.fit([memes.captions[i] for i in own])
        x = words.transform(memes.captions)
        best: tuple[float, np.ndarray, str] = (-1.0, np.zeros(0), "")
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=closed.MOST)
            model.fit(x[own], memes.labels[own])
            scores = model.decision_function(x)
            rating = metrics.auroc(scores[held_out], memes.labels[held_out])
            if rating > best[0]:
                best = rating, scores, f"C {strength:.2g}"
        logits.append(best[1])
        chosen.append(best[2])
    seconds = (time.perf_counter() - began) / len(trials)
    return Scored(np.stack(logits), chosen, seconds, None)


def logistic(names: Sequence[str], scaling: str = "unit") -> Callable[..., Scored]:
    """Make logistic regression on one kind of features, or both."""
    shares = SHARES if len(names) > 1 else (0.5,)
    settings = [f"share {s}, C {c:g}" for s in shares for c in STRENGTHS]

    def score(inputs: Inputs, trials: Sequence[Trial], say: Say) -> Scored:
        del say
        began = time.perf_counter()
        found = [
            closed.fit_logistic(
                inputs.columns,
                inputs.memes.labels,
                trial.job,
                strengths=STRENGTHS,
                shares=shares,
                balance=False,
                scaling=scaling,
                names=names,
            )
            for trial in trials
        ]
        seconds = (time.perf_counter() - began) / len(trials)
        return _scored(found, [settings[f.step - 1] for f in found], seconds)

    return score


def kernel(inputs: Inputs, trials: Sequence[Trial], say: Say) -> Scored:
    """Score by kernel logistic regression on both features."""
    began = time.perf_counter()
    settings = [
        f"gamma {g:g}, share {s}, penalty {p:g}"
        for g in GAMMAS
        for s in SHARES
        for p in PENALTIES
    ]
    found = []
    for place, trial in enumerate(trials, start=1):
        one = closed.fit_kernel(
            inputs.columns,
            inputs.memes.labels,
            trial.job,
            gammas=GAMMAS,
            penalties=PENALTIES,
            shares=SHARES,
        )
        found.append(dataclasses.replace(one, variables=_sizes(one)))
        if place % 12 == 0:
            say(f"kernel: {place}/{len(trials)}")
    seconds = (time.perf_counter() - began) / len(trials)
    return _scored(found, [settings[f.step - 1] for f in found], seconds)


def head(name: str) -> Callable[..., Scored]:
    """Make the search and the trainings of a head that descends a gradient."""

    def score(inputs: Inputs, trials: Sequence[Trial], say: Say) -> Scored:
        began = time.perf_counter()
        best: list[tuple[Fitted, str]] = []
        for setting, changes in settings_of(name, inputs).items():
            say(f"{name}: {setting}")
            found = _fit(name, changes, inputs, trials, say)
            if not best:
                best = [(fitted, setting) for fitted in found]
            best = [
                (new, setting) if new.rating > old.rating else (old, before)
                for new, (old, before) in zip(found, best, strict=True)
            ]
        seconds = (time.perf_counter() - began) / len(trials)
        return _scored([f for f, _ in best], [s for _, s in best], seconds)

    return score


def settings_of(name: str, inputs: Inputs) -> dict[str, Mapping[str, Any]]:
    """Return the settings that are searched for a head, by name."""
    narrow = name in NARROW and not inputs.wide
    return {
        setting: changes
        for setting, changes in inputs.search.items()
        if not narrow or changes["width"] <= WIDEST
    }


def _fit(
    name: str,
    changes: Mapping[str, Any],
    inputs: Inputs,
    trials: Sequence[Trial],
    say: Say,
) -> list[Fitted]:
    """Train a head with one setting for all trials, some at once."""
    section, kind = _section(name, **changes), HEADS[name]
    columns = {"image": inputs.columns[kind.image], "text": inputs.columns["text"]}
    size = min(TOGETHER, len(trials))
    # The last few are filled up with repetitions, so that one program serves all.
    jobs = [trial.job for trial in trials]
    jobs += jobs[: -len(jobs) % size]
    trainer = HeadTrainer(
        make_head(section),
        section,
        columns,
        inputs.memes.labels,
        jobs=jobs[:size],
        mesh=parallel.devices_for_seeds(size),
        retrieval=kind.retrieval,
        prompts=inputs.start if kind.prompts == "start" else None,
        vectorize=jax.devices()[0].platform != "cpu",
        most=max(len(job.train) for job in jobs),
    )
    found = []
    for start in range(0, len(jobs), size):
        lines: list[str] = []
        part = trainer.fit(lines.append, jobs=jobs[start : start + size])
        # Their variables would fill the memory.
        found += [dataclasses.replace(one, variables=_sizes(one)) for one in part]
        say(f"{name}: {lines[-1]}; {min(start + size, len(trials))}/{len(trials)}")
    return found[: len(trials)]


def _sizes(fitted: Fitted) -> Any:
    params = fitted.variables["params"]
    return {"params": sum(np.size(x) for x in jax.tree.leaves(params))}


def zero_shot(inputs: Inputs, trials: Sequence[Trial], say: Say) -> Scored:
    """Score by the prompts of both classes alone."""
    del say
    began = time.perf_counter()
    found = {"prompts": inputs.zero_shot, "logit_scale": math.log(inputs.scale)}
    columns = {"image": inputs.columns["image_shared"]}
    scores = make_scores(ConfigDict(dict(head="zero_shot")))
    logits = np.asarray(scores({"batch_stats": found}, columns)["head"], np.float64)
    seconds = time.perf_counter() - began
    return Scored(np.tile(logits, (len(trials), 1)), ["-"] * len(trials), seconds, 0)


def _scored(found: Sequence[Fitted], settings: Sequence[str], seconds: float) -> Scored:
    logits = [fitted.average() for fitted in found]
    count = sum(np.size(x) for x in jax.tree.leaves(found[0].variables["params"]))
    if isinstance(found[0].variables["params"], int):
        count = found[0].variables["params"]
    return Scored(np.stack(logits), settings, seconds, int(count))


def _section(name: str, *, lr: float, epochs: float, **changes: Any) -> ConfigDict:
    """Return the section `heads` of a setting."""
    attributes: dict[str, Any] = dict.fromkeys(ATTRIBUTES)
    return ConfigDict(
        dict(
            head=name,
            scaling="standard",
            balance=False,
            epochs=epochs,
            batch=64,
            optimizer=dict(
                rule="adamw",
                schedule="cosine",
                warmup=0,
                weight_decay=1e-2,
                clip=0.1,
                groups=dict(all=dict(pattern=".*", lr=lr)),
            ),
            **attributes | changes,
        )
    )


# In the order of the table: the linear baselines, then the heads.
BASELINES: dict[str, Callable[..., Scored]] = {
    "TF-IDF": tfidf,
    "picture": logistic(("image",)),
    "caption": logistic(("text",)),
    "linear, standardised": logistic(("image", "text"), "standard"),
    "linear": logistic(("image", "text")),
}
SPECIAL = {"none": zero_shot, "kernel": kernel}
METHODS: dict[str, Callable[..., Scored]] = BASELINES | {
    name: SPECIAL[kind.fit] if kind.fit in SPECIAL else head(name)
    for name, kind in HEADS.items()
    if kind.fit != "logistic"
}


def not_applicable(name: str, inputs: Inputs) -> bool:
    """Whether a method needs towers that share a space, and these do not."""
    kind = HEADS.get(name)
    return kind is not None and kind.prompts is not None and inputs.start is None
