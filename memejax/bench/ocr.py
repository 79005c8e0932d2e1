"""Captions read off pictures: words found, seconds, and what they cost a classifier.

    python -m memejax.bench.ocr --features=STORE

STORE is one of `python -m memejax.extract --config=configs/heads.py:offline`, whose
pictures are still there. Some of its training memes are read by RapidOCR and compared
with their given captions; then heads are cross-validated on these memes, by caption,
and the memes that are scored have either the given captions or those read. The heads
are trained on given captions in both cases.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from memejax.bench import pairs
from memejax.bench.command_line import Parser
from memejax.command_line import prepare
from memejax.config import load_config
from memejax.errors import command, user_errors

if TYPE_CHECKING:
    from memejax import frozen

FOLDS = 5
BATCH = 32
Columns = Mapping[str, np.ndarray]


@command
def main() -> None:
    """Run the study."""
    parser = Parser("ocr", __doc__)
    parser.add_argument(
        "--features", required=True, metavar="STORE", help="a store of features"
    )
    parser.number("--memes", 1000, text="training memes that are read")
    parser.number("--repeats", 5, text="divisions into folds")
    options = parser.parse_args()
    prepare()
    # Imported here to keep --help fast.
    from memejax import frozen
    from memejax.data import ocr
    from memejax.store.read import open_store

    with user_errors():
        store = open_store(options.features)
        kept = frozen.load(store.folder)
    train = store.splits["train"]
    rng = np.random.default_rng(0)
    n = min(options.memes, len(train.ids))
    chosen = np.sort(rng.choice(len(train.ids), n, replace=False))
    root = pathlib.Path(store.facts["root"] or pathlib.Path(options.features) / "memes")
    given = [train.captions[i] for i in chosen]
    read, seconds = _read([str(root / train.images[i]) for i in chosen])
    counts = np.sum(
        [ocr.common_words(a, b) for a, b in zip(read, given, strict=True)], axis=0
    )
    texts = encode_captions(kept, read)
    image, text = (train.column(name)[chosen] for name in ("image", "text"))
    # Every meme twice: with its given caption, and with the one read.
    columns = {"image": np.tile(image, (2, 1)), "text": np.concatenate([text, texts])}
    labels = np.asarray(train.labels)[chosen]
    rows: dict[str, Any] = {
        "words": {
            "memes": n,
            "recall": counts[0] / counts[2],
            "precision": counts[0] / counts[1],
            "without words": sum(not caption for caption in read),
            "seconds per picture": seconds,
        }
    }
    for head in ("linear", "kernel"):
        scores = cross_validated(
            head, columns, labels, captions=given, repeats=options.repeats
        )
        rows[head] = compare(scores, labels)
    pairs.write("ocr", rows, options.out)


def _read(paths: Sequence[str]) -> tuple[list[str], float]:
    """Read the captions of pictures; return them, and the seconds per picture."""
    from memejax.data import ocr

    reader = ocr.CaptionReader()
    reader.read(paths[0])  # Loads the models.
    began = time.perf_counter()
    captions = [reader.read(path).caption for path in paths[1:]]
    seconds = (time.perf_counter() - began) / max(len(captions), 1)
    return [reader.read(paths[0]).caption, *captions], seconds


def encode_captions(kept: frozen.Frozen, captions: Sequence[str]) -> np.ndarray:
    """Return the features of captions by a store's encoder, float32 `[n, d]`."""
    from memejax import parallel
    from memejax.extract.encoders import make_encoders
    from memejax.extract.sources import Source

    source = Source(
        kept.config,
        kept.tokenizer,
        kept.variables["image_encoder"],
        kept.variables["text_encoder"],
        kept.names,
    )
    return (
        make_encoders(source, mesh=parallel.mesh(1), batch=BATCH).text(captions).pooled
    )


def cross_validated(
    head: str,
    columns: Columns,
    labels: np.ndarray,
    *,
    captions: Sequence[str],
    repeats: int,
) -> np.ndarray:
    """Score memes by heads that were trained on others, with both captions.

    Args:
        head: "linear" or "kernel", with the settings of configs/heads.py.
        columns: `image` and `text`, `[2 n, d]`: given captions, then those read.
        labels: `[n]`.
        captions: the given ones; memes that share one are in one fold.
        repeats: divisions into folds.

    Returns:
        Logits `[repeats, 2, n]`.
    """
    from memejax.data.hateful_memes import normalise_caption
    from memejax.stages.parts.heads import closed
    from memejax.stages.parts.heads.training import Job

    n = len(labels)
    keys = [normalise_caption(c) or f"\0{i}" for i, c in enumerate(captions)]
    groups = np.unique(keys, return_inverse=True)[1]
    c = load_config(f"configs/heads.py:offline,head={head}").heads
    twice = np.tile(labels, 2)
    scores = np.zeros((repeats, 2, n))
    for repeat in range(repeats):
        for rest, fold in _folds(labels, groups, np.arange(n), seed=repeat):
            own, held_out = next(_folds(labels, groups, rest, seed=repeat))
            job = Job(repeat, own, held_out)
            fitted = closed.fit(columns, twice, job, c)
            logits = np.asarray(fitted.logits["head"]).reshape(2, n)
            scores[repeat][:, fold] = logits[:, fold]
    return scores


def _folds(labels: np.ndarray, groups: np.ndarray, rows: np.ndarray, *, seed: int):
    """Yield (the rest, the fold) of some rows, by caption, both labels evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for rest, fold in folds.split(rows, labels[rows], groups[rows]):
        yield rows[rest], rows[fold]


def compare(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Compare the AUROC with given captions and with those read.

    Args:
        scores: `[repeats, 2, n]`.
        labels: `[n]`.

    Returns:
        Both AUROCs, the mean over the repeats; `cost`, their difference, with its 95 %
        interval by a bootstrap over the memes of each class, the same for both sides.
    """
    from memejax import metrics

    def area(rows: np.ndarray) -> np.ndarray:
        return np.mean(
            [[metrics.auroc(s[rows], labels[rows]) for s in pair] for pair in scores],
            axis=0,
        )

    given, read = area(np.arange(len(labels)))
    rng = np.random.default_rng(0)
    classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    drawn = []
    for _ in range(1000):
        rows = np.concatenate([rng.choice(c, len(c)) for c in classes])
        one, other = area(rows)
        drawn.append(one - other)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "given": float(given),
        "read": float(read),
        "cost": float(given - read),
        "cost_low": float(low),
        "cost_high": float(high),
    }


if __name__ == "__main__":
    main()
