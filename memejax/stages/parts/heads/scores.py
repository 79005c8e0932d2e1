"""Scores of a trained head: pure functions of its variables and a meme's features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from memejax.models.feature_heads import zero_shot_logits
from memejax.stages.parts.heads.closed import kernel_scores
from memejax.stages.parts.heads.kinds import HEADS, make_head
from memejax.stages.parts.heads.training import make_apply_fn, vote

Tree = Any
# Names of a head's scores: its classifier's, and the vote of the nearest memes.
HEAD, VOTE = "head", "vote"


def score_names(section: ConfigDict) -> tuple[str, ...]:
    """Return the names of the scores of the section `heads`."""
    return (HEAD, VOTE) if HEADS[section.head].retrieval else (HEAD,)


def make_scores(section: ConfigDict) -> Callable[..., dict[str, jax.Array]]:
    """Make `(variables, columns) -> {score: logits [b]}` of the section `heads`.

    Variables of a trained head have the collections `params` and `batch_stats`, the
    latter with what scales its inputs and, if neighbours vote, `store`: the embeddings
    and labels of the training memes. Those of a kernel machine are of
    `closed.fit_kernel`; zero-shot has `prompts` in batch_stats, and their scale.
    """
    kind = HEADS[section.head]
    if kind.fit == "none":

        def prompted(variables: Tree, columns: Mapping[str, jax.Array]):
            found = variables["batch_stats"]
            logits = zero_shot_logits(
                columns["image"],
                found["prompts"],
                hateful=(False, True),
                logit_scale=found["logit_scale"],
            )
            return {HEAD: logits}

        return prompted
    if kind.fit == "kernel":
        return lambda variables, columns: {HEAD: kernel_scores(variables, columns)}
    apply_fn = make_apply_fn(make_head(section))

    def scores(variables: Tree, columns: Mapping[str, jax.Array]):
        (logits, embeddings), _ = apply_fn(variables, columns, train=False)
        if not kind.retrieval:
            return {HEAD: logits}
        store = variables["batch_stats"]["store"]
        return {HEAD: logits, VOTE: vote(embeddings, store)}

    return scores
