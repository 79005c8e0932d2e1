"""Explanations of a network on graphs of built-in memes, for `bench.explain`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from memejax.bench.explain.figures import Found, inside, shuffled
from memejax.data.records import Meme
from memejax.data.synthetic_truth import Truth
from memejax.predict.explain.graph_explainer import make_graph_explainer
from memejax.restored import Restored

# Memes explained at once.
CHUNK = 50


def study(restored: Restored, memes: Sequence[tuple[Meme, Truth]]) -> dict[str, Any]:
    """Explain memes by a network on graphs, and by the same with shuffled weights.

    An entity finds the pattern if it has the largest value, towards the call, and the
    pattern's centre lies in it.

    Args:
        restored: a run on built-in memes with a decoy.
        memes: n memes with their truths.

    Returns:
        As `bench.explain.study`, without deletion curves.
    """
    found = Found()
    for run, suffix in ((restored, ""), (shuffled(restored), ", shuffled weights")):
        explainer = make_graph_explainer(run)
        for start in range(0, len(memes), CHUNK):
            part = memes[start : start + CHUNK]
            for one, (_, known) in zip(
                explainer.explain([meme for meme, _ in part]), part, strict=True
            ):
                sign = 1 if one.logit >= 0 else -1
                if one.words is not None:
                    first = int(np.argmax(sign * one.words.left_out))
                    hit = one.words.texts[first] == known.keyword
                    found.hit(f"keyword: leave one out{suffix}", hit)
                if one.entities is None or known.pattern is None:
                    continue
                at = one.entities.boxes / np.tile(one.entities.size[::-1], 2)
                for name in ("covered", "left_out"):
                    values = sign * getattr(one.entities, name)
                    box = tuple(at[int(np.argmax(values))].tolist())
                    hits = (
                        inside(_centre(known.pattern), box),
                        inside(_centre(known.decoy), box),
                    )
                    found.hit(f"pattern: entity {_NAMES[name]}{suffix}", *hits)
    return found.figures()


_NAMES = {"covered": "covered", "left_out": "left out of the graph"}


def _centre(box: Any) -> np.ndarray:
    left, top, right, bottom = box
    return np.array([(left + right) / 2, (top + bottom) / 2])
