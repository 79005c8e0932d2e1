"""The problem of both sides: files, captions and sizes of networks."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from memejax.bench.inference.cases import CASES
from memejax.bench.input_pipeline import make_files
from memejax.bench.train_step import problem
from memejax.data import text
from memejax.models import distilbert

# Of the captions of memes: words per caption, median and spread of its logarithm.
WORDS, SPREAD = 11, 0.5
# ImageNet's, which both sides normalise by.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Memes on disk and the sizes of the networks.

    Attributes:
        case: key of CASES.
        networks: their sizes.
        paths: n files of pictures.
        captions: n texts.
        tokenizer: of the captions, on both sides.
        batch: memes per batch.
    """

    case: str
    networks: problem.Problem
    paths: Sequence[str]
    captions: Sequence[str]
    tokenizer: Tokenizer
    batch: int

    @property
    def scores(self) -> bool:
        """Whether probabilities are computed, and not features."""
        return self.case in ("predict", "evaluate")

    @property
    def image(self) -> str | None:
        """The image encoder of a case with one."""
        names = [name for name in CASES[self.case][1] if name != "text"]
        return names[0] if len(names) == 1 else None


def make(
    case: str, size: str, folder: pathlib.Path, *, count: int, batch: int, dtype: str
) -> Problem:
    """Write the files of a case.

    Args:
        case: key of CASES.
        size: one of `train_step.cases.SIZES`.
        folder: of the files.
        count: number of memes.
        batch: memes per batch.
        dtype: of the products.
    """
    networks = problem.problem("finetune", size, dtype=dtype)
    paths = [] if case == "text" else make_files(folder, count, "jpeg")
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(np.log(WORDS), SPREAD, count)).round().astype(int)
    words = ["".join(rng.choice(list("abcdefghij"), 4)) for _ in range(500)]
    captions = [" ".join(rng.choice(words, max(1, n))) for n in lengths]
    # Every token has its row in the tables of both sides.
    known = networks.text.get("vocab_size", distilbert.DistilBert.vocab_size)
    tokenizer = text.train_wordpiece(captions, vocab_size=min(known, 600))
    return Problem(case, networks, paths, captions, tokenizer, batch)


def shape(given: Problem) -> dict[str, Any]:
    """Return the attributes of a case for its figures."""
    lengths = [len(one.ids) for one in given.tokenizer.encode_batch(given.captions)]
    return {
        "unit": f"{CASES[given.case][0]}/s",
        "count": len(given.captions),
        "batch": given.batch,
        "pixels": given.networks.pixels if given.paths else None,
        "tokens at most": given.networks.tokens,
        "tokens, mean": float(np.mean(lengths)),
        "dtype": given.networks.dtype,
    }
