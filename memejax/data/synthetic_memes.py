"""Built-in memes: a benchmark of the Hateful Memes layout with known Bayes scores.

Nothing in it is offensive: a meme is a picture of a patterned patch
(`synthetic_pictures`) with a caption of everyday words, and "hateful" is only the name
of label 1. It keeps the logic of the real challenge: neither picture nor caption alone
is informative.

A picture shows *concept* c, a caption has one *keyword* k, both of K, and

    clean label = (c + k) mod 2.

Memes come in *quads*: two pictures (c even, c odd) with two captions (k even, k odd),
two of the four memes hateful. So each hateful meme has two benign confounders, one
with the same caption and one with the same picture, and any function of pictures
alone, or of captions alone, even a memorised one, has AUROC 1/2 exactly on every split.
A split goes through the K x K cells in turn: all equally often in each K^2 memes.

Three knobs relax that, in this order for each meme:

    label_noise eta     y = clean label, flipped with probability eta
    image_leak a        with probability a the badge of a picture shows y, else a fair
                        coin: P(cue = y) = (1 + a) / 2
    text_leak b         the same for the cue word of the caption

With them p(c, k, m, n, y) = p(y | c, k) p(m | y) p(n | y) / K^2 for cues m and n, which
`bayes` (of `synthetic_bayes`) sums over.

With a `decoy` the patch that shows the concept lies off the centre, beside a second
patch that says nothing (`synthetic_truth` has the boxes of both, by id).

Everything derives from (seed, split, quad), so a meme does not depend on the sizes of
the splits, and a knob changes only the values that it controls.
"""

import argparse
import dataclasses
import functools
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from memejax.data import synthetic_pictures
from memejax.data.synthetic_bayes import bayes, check_knobs
from memejax.errors import reported, user_errors

# A caption belongs to the split whose number is its hash (see _caption).
SPLITS = {"train": 0, "dev_seen": 1, "test_unseen": 2}
KEYWORDS = tuple("garden river bicycle window market winter guitar bridge".split())
CUE_WORDS = ("morning", "evening")
DISTRACTORS = tuple(
    """
    the a my your our this that when where while after before with without under
    near and but then still always never maybe again very quite almost just we you
    they someone everybody nobody friend neighbor teacher doctor brother aunt walk
    jump read wait sing dance paint carry open find bring keep little tall early new
    green blue round quiet warm happy lucky sunny bread coffee table chair paper
    letter train street house door lamp basket apple soup picture
    """.split()
)

_PICTURE_BATCH = 32  # About 1 MB of float32, which stays in a core's cache.


@dataclasses.dataclass(frozen=True)
class Meme:
    """A meme and its latent variables.

    The picture is a function of (quad, concept, image_cue): memes that agree in these
    have identical pixels.
    """

    text: str
    label: int
    clean_label: int
    quad: int
    concept: int
    keyword: int
    image_cue: int
    text_cue: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """Memes written for each split, image files, and the scores of `bayes`."""

    root: Path
    sizes: dict[str, int]
    images: int
    bayes: dict[str, dict[str, float]]

    def __str__(self) -> str:
        sizes = ", ".join(f"{n} {split}" for split, n in self.sizes.items())
        lines = [f"{self.root}: {sizes} memes, {self.images} image files"]
        lines.append("Bayes-optimal    AUROC  accuracy")
        for name, scores in self.bayes.items():
            lines.append(
                f"{name:<14}{scores['auroc']:>8.4f}{scores['accuracy']:>10.4f}"
            )
        return "\n".join(lines)


def write(
    root: str | os.PathLike[str],
    *,
    train: int = 8000,
    dev: int = 1000,
    test: int = 2000,
    size: int = 48,
    concepts: int = 4,
    image_leak: float = 0.0,
    text_leak: float = 0.0,
    label_noise: float = 0.0,
    decoy: bool = False,
    seed: int = 0,
) -> Summary:
    """Write the data set: the same arguments give the same bytes.

    The folder gets `img/`, `train.jsonl`, `dev_seen.jsonl` and `test_unseen.jsonl`
    (`id` int, `img`, `label`, `text` on each line), and `bayes.json` with the knobs
    and the exact scores. Two memes with one picture share its file, named after the
    first of them: the file identifies the picture, so that features can be cached and
    confounders found by it. Under `image_leak` a picture whose badge follows the label
    is drawn twice, once with each badge.

    Args:
        root: folder, made if missing; empty, or with a data set of the same arguments.
        train: number of memes in train.jsonl, a positive multiple of 4.
        dev: of dev_seen.jsonl, likewise.
        test: of test_unseen.jsonl, likewise.
        size: side of a picture in pixels, >= 16.
        concepts: K, of pictures and of keywords: 2, 4, 6 or 8.
        image_leak: in [0, 1].
        text_leak: in [0, 1].
        label_noise: in [0, 0.5].
        decoy: whether pictures have a second patch, see `synthetic_pictures`; captions,
            labels and the rest of the pictures are the same with it and without it.
        seed: >= 0.

    Returns:
        Summary.

    Raises:
        ValueError: for an argument out of range, or a folder with other contents.
    """
    root = Path(root)
    sizes = dict(zip(SPLITS, (train, dev, test), strict=True))
    if size < 16:
        raise ValueError(f"size {size}: expected at least 16 pixels")
    knobs = {
        "concepts": concepts,
        "image_leak": float(image_leak),
        "text_leak": float(text_leak),
        "label_noise": float(label_noise),
    }
    scores = bayes(**knobs)
    drawn = {name: memes(name, n, **knobs, seed=seed) for name, n in sizes.items()}
    made = {"sizes": sizes, "size": size, **knobs, "seed": seed}
    if decoy:
        made["decoy"] = True
    _write_facts(root, {"knobs": made, "bayes": scores})
    (root / "img").mkdir(exist_ok=True)
    images = [
        _write_split(root, drawn, split=split, size=size, decoy=decoy, seed=seed)
        for split in SPLITS
    ]
    return Summary(root=root, sizes=sizes, images=sum(images), bayes=scores)


def memes(
    split: str,
    n: int,
    *,
    concepts: int = 4,
    image_leak: float = 0.0,
    text_leak: float = 0.0,
    label_noise: float = 0.0,
    seed: int = 0,
) -> list[Meme]:
    """Draw the memes of a split with their latent variables, quad after quad.

    No two quads share a caption, no caption is in two splits, and the memes of a
    larger `n` begin with those of a smaller one.

    Args:
        split: "train", "dev_seen" or "test_unseen".
        n: number of memes, a positive multiple of 4.
        concepts: K, of pictures and of keywords: 2, 4, 6 or 8.
        image_leak: in [0, 1].
        text_leak: in [0, 1].
        label_noise: in [0, 0.5].
        seed: >= 0.

    Returns:
        n memes; four in a row are a quad: captions (even, odd) with the picture of the
        even concept, then with that of the odd concept.

    Raises:
        ValueError: for an argument out of range.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    if n < 4 or n % 4:
        raise ValueError(f"{n} memes of {split}: expected a positive multiple of 4")
    if seed < 0:
        raise ValueError(f"seed {seed}: expected at least 0")
    check_knobs(concepts, image_leak, text_leak=text_leak, label_noise=label_noise)
    taken: set[str] = set()
    found: list[Meme] = []
    for quad in range(n // 4):
        rng = _rng(seed, SPLITS[split], quad, 0)
        # Always drawn, so that a knob changes only the values that it controls.
        flips = rng.random((2, 2)) < label_noise
        leaks = rng.random((2, 2)) < [[image_leak], [text_leak]]
        coins = rng.integers(0, 2, (2, 2))
        pair, keywords = _cell(quad, concepts)
        texts = [_caption(rng, SPLITS[split], keyword=k, taken=taken) for k in keywords]
        for i, j in np.ndindex(2, 2):
            clean = (pair[i] + keywords[j]) % 2
            label = clean ^ int(flips[i, j])
            image_cue = label if leaks[0, i] else int(coins[0, i])
            text_cue = label if leaks[1, j] else int(coins[1, j])
            text = texts[j].replace("*", CUE_WORDS[text_cue])
            latent = clean, quad, pair[i], keywords[j], image_cue, text_cue
            found.append(Meme(text, label, *latent))
    return found


def _rng(seed: int, *key: int) -> np.random.Generator:
    """Return the generator of a split, of a quad's words or of one of its pictures."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _cell(quad: int, concepts: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the (even, odd) concepts and the (even, odd) keywords of a quad.

    Every K/2 quads in a row have each concept once and each keyword once, and every
    (K/2)^2 have each pair of concept and keyword once.
    """
    half = concepts // 2
    digits = [quad // half**place % half for place in range(4)]
    # Each sum includes the first digit, and those of a concept and of a keyword differ
    # by the second: hence the two statements above.
    even, odd = digits[0], (digits[0] + digits[2]) % half
    first = (digits[0] + digits[1]) % half
    second = (digits[0] + digits[1] + digits[3]) % half
    return (2 * even, 2 * odd + 1), (2 * first, 2 * second + 1)


def _caption(
    rng: np.random.Generator, split: int, *, keyword: int, taken: set[str]
) -> str:
    """Draw a caption of 5 to 11 words, new to its split, with "*" for the cue word."""
    while True:
        words = [DISTRACTORS[i] for i in rng.permutation(len(DISTRACTORS))]
        words = [KEYWORDS[keyword], "*", *words[: rng.integers(3, 10)]]
        text = " ".join(words[i] for i in rng.permutation(len(words)))
        # The hash distributes captions among the splits, so that none is in two
        # although splits are drawn independently.
        if zlib.crc32(text.encode()) % len(SPLITS) == split and text not in taken:
            taken.add(text)
            return text


def _write_facts(root: Path, contents: dict[str, Any]) -> None:
    """Write bayes.json first, and never into a folder with other contents."""
    text = json.dumps(contents, indent=2) + "\n"
    facts = root / "bayes.json"
    if facts.exists() and facts.read_text(encoding="utf-8") != text:
        raise ValueError(
            f"{facts} has other knobs than {contents['knobs']}: expected an empty "
            "folder or one with the same knobs"
        )
    if not facts.exists() and root.exists() and any(root.iterdir()):
        raise ValueError(f"{root} is not empty: expected an empty or a new folder")
    root.mkdir(parents=True, exist_ok=True)
    facts.write_text(text, encoding="utf-8")


def numbered(
    sizes: Mapping[str, int], split: str, *, seed: int
) -> Iterator[tuple[int, int]]:
    """Yield the id of each line of a split, and the place of its meme in `memes`.

    Args:
        sizes: number of memes of each split.
        split: one of them.
        seed: of the data set.
    """
    names = list(SPLITS)
    # Ids continue those of the splits before it, whether or not these are written yet.
    first = sum(sizes[name] for name in names[: names.index(split)])
    order = _rng(seed, SPLITS[split]).permutation(sizes[split])
    yield from enumerate(order.tolist(), start=first)


def picture_rng(meme: Meme, split: str, *, seed: int) -> np.random.Generator:
    """Return the generator of a meme's picture, for `synthetic_pictures`."""
    return _rng(seed, SPLITS[split], meme.quad, 1 + meme.concept % 2)


def _write_split(
    root: Path,
    drawn: dict[str, list[Meme]],
    *,
    split: str,
    size: int,
    decoy: bool,
    seed: int,
) -> int:
    """Write the pictures and shuffled lines of a split; return the number of files."""
    pictures: dict[tuple[int, int, int], tuple[str, Meme]] = {}
    lines = []
    sizes = {name: len(found) for name, found in drawn.items()}
    for number, at in numbered(sizes, split, seed=seed):
        meme = drawn[split][at]
        key = meme.quad, meme.concept, meme.image_cue
        img, _ = pictures.setdefault(key, (f"img/{number:05d}.png", meme))
        row = {"id": number, "img": img, "label": meme.label, "text": meme.text}
        lines.append(json.dumps(row) + "\n")
    draw = functools.partial(synthetic_pictures.draw, size=size, decoy=decoy)
    _write_pictures(root, list(pictures.values()), draw, split=split, seed=seed)
    # After its pictures: the jsonl of a split exists only once the split is complete.
    (root / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return len(pictures)


def _write_pictures(
    root: Path,
    pictures: Sequence[tuple[str, Meme]],
    draw: Callable[..., np.ndarray],
    *,
    split: str,
    seed: int,
) -> None:
    """Draw and save the pictures of a split, each the one of a meme."""

    def write_batch(start: int) -> None:
        batch = pictures[start : start + _PICTURE_BATCH]
        drawn = [meme for _, meme in batch]
        images = draw(
            np.array([meme.concept for meme in drawn]),
            np.array([meme.image_cue for meme in drawn]),
            rngs=[picture_rng(meme, split, seed=seed) for meme in drawn],
        )
        for image, (name, _) in zip(images, batch, strict=True):
            Image.fromarray(image).save(root / name, compress_level=1)

    # numpy and zlib release the interpreter's lock.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(write_batch, range(0, len(pictures), _PICTURE_BATCH)))


def main(argv: Sequence[str] | None = None) -> None:
    """Write a data set and print its summary."""
    parser = argparse.ArgumentParser(
        prog="python -m memejax.data.synthetic_memes",
        description="Write the built-in memes in the layout of Hateful Memes, and the "
        "best possible scores on them to bayes.json.",
    )
    parser.add_argument("root", metavar="DIR", help="a new or empty folder")
    options = {
        "train": (8000, "number of training memes, a multiple of 4"),
        "dev": (1000, "number of memes in dev_seen, likewise"),
        "test": (2000, "number of memes in test_unseen, likewise"),
        "size": (48, "side of a picture in pixels, at least 16"),
        "concepts": (4, "number of patterns and of keywords: 2, 4, 6 or 8"),
        "image_leak": (0.0, "probability that the badge of a picture shows the label"),
        "text_leak": (0.0, "probability that the cue word of a caption shows it"),
        "label_noise": (0.0, "probability that a label is flipped, 0 to 0.5"),
        "seed": (0, "random seed"),
    }
    for name, (value, text) in options.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(value),
            default=value,
            metavar="N" if isinstance(value, int) else "P",
            help=f"{text} (default: %(default)s)",
        )
    parser.add_argument(
        "--decoy",
        action="store_true",
        help="put the patterned patch off the centre, beside one without a pattern",
    )
    options = vars(parser.parse_args(argv))
    with reported(), user_errors():
        print(write(**options))


if __name__ == "__main__":
    main()
