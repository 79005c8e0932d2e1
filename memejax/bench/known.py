"""Known memes: what is found again after edits of the picture, and how fast.

    python -m memejax.bench.known --root FOLDER

FOLDER has memes in the layout of the Hateful Memes challenge. A list of some of them,
drawn by --seed, is matched with edited copies of their pictures, and with as many other
memes:

    itself     the picture as it is
    jpeg       compressed again as a JPEG of quality 40
    half       half as wide and high
    crop       cut by 2.5 % of its sides at every edge
    cut        5 % of its height cut off the lower edge
    border     a white border of 5 % of its sides around it
    mirror     left and right exchanged
    recaption  a white band over the upper fifth, with another meme's caption

For each edit: how many are found, how many of them as themselves or as a copy with the
same words, and the distance to their own hash. The caption of `recaption` is the new
one, so to find it is right by the picture and wrong by the words. Among the other memes
may be copies of those on the list: the pairs with other words are listed, to be looked
at. Look-ups are of random hashes in a list of --known random ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from memejax.bench import pairs
from memejax.bench.command_line import Parser
from memejax.bench.edits import EDITS, recaption
from memejax.data import hateful_memes, images, pdq
from memejax.data.hateful_memes import Meme
from memejax.data.known_file import BENIGN, HATEFUL, KnownMeme
from memejax.data.known_memes import KnownMemes, Match
from memejax.data.same_words import same_words
from memejax.errors import UserError, command

# Look-ups, or pictures, timed at once.
BATCH = 1000
# Shares of edits between two captions, as of --max-edits.
SHARES = (0, 0.05, 0.1, 0.2, 0.3)


@command
def main() -> None:
    """Run the benchmark."""
    parser = Parser("known", __doc__, pairs=5)
    parser.add_argument(
        "--root", required=True, metavar="FOLDER", help="folder with train.jsonl ..."
    )
    parser.number("--memes", 1000, text="memes on the list, and as many others")
    parser.number("--known", 100_000, text="random hashes to look up in")
    parser.number("--seed", 0, text="seed of the choice of memes")
    options = parser.parse_args()
    pdq.require()
    listed, others = _chosen(options.root, options.memes, options.seed)
    known, hashes = _known(listed)
    figures: dict[str, Any] = {"data": _about(listed, known)}
    own = [meme.text for meme in listed]
    for name, edit in EDITS.items():
        edited = _hashes(edit(_picture(meme)) for meme in listed)
        figures[name] = _recall(known, hashes, listed, edited, own)
    new = [meme.text for meme in others]
    edited = _hashes(
        recaption(_picture(meme), text) for meme, text in zip(listed, new, strict=True)
    )
    figures["recaption"] = _recall(known, hashes, listed, edited, new)
    figures["others"] = _others(known, listed, others)
    figures["words"] = _words(known, listed, others, seed=options.seed)
    figures["speed"] = _speed(
        listed, count=options.known, runs=options.pairs, seed=options.seed
    )
    pairs.write("known", figures, options.out)


def _chosen(root: str, count: int, seed: int) -> tuple[list[Meme], list[Meme]]:
    """Draw memes for the list and as many others, none of them twice."""
    splits = hateful_memes.read(root, check_images=False).splits
    memes = list({m.id: m for split in splits.values() for m in split}.values())
    if len(memes) < 2 * count:
        raise UserError(
            f"{root} has {len(memes)} memes, expected at least {2 * count}: give "
            f"--memes={len(memes) // 2}"
        )
    order = np.random.default_rng(seed).permutation(len(memes))
    drawn = [memes[i] for i in order[: 2 * count]]
    return drawn[:count], drawn[count:]


def _known(memes: Sequence[Meme]) -> tuple[KnownMemes, np.ndarray]:
    """Return a list of memes, and the hash of each."""
    hashes, qualities, errors = pdq.compute_all([meme.image for meme in memes])
    for error in errors.values():
        raise error
    known = KnownMemes(
        KnownMeme(
            meme.id,
            pdq.to_hex(bits),
            quality,
            meme.text,
            HATEFUL if meme.label == 1 else BENIGN,
        )
        for meme, bits, quality in zip(memes, hashes, qualities.tolist(), strict=True)
    )
    return known, hashes


def _about(memes: Sequence[Meme], known: KnownMemes) -> dict[str, Any]:
    """Describe the pictures: sizes, and how many are too plain."""
    sides = [max(images.open_size(meme.image)) for meme in memes]
    return {
        "list": known.summary(),
        "longer side, pixels: least, median, most": [
            int(of(sides)) for of in (np.min, np.median, np.max)
        ],
    }


def _picture(meme: Meme) -> Image.Image:
    return Image.fromarray(images.load(meme.image))


def _hashes(pictures: Iterable[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    """Return hashes uint8 [n, 32] and qualities [n] of decoded pictures."""
    made = [pdq.hash_pixels(np.asarray(picture)) for picture in pictures]
    return np.stack([bits for bits, _ in made]), np.array([one for _, one in made])


def _recall(
    known: KnownMemes,
    hashes: np.ndarray,
    memes: Sequence[Meme],
    hashed: tuple[np.ndarray, np.ndarray],
    captions: Sequence[str],
) -> dict[str, Any]:
    """Match edited pictures, given their hashes and qualities, and their captions."""
    edited, qualities = hashed
    distance = np.bitwise_count(edited ^ hashes).sum(1)
    figures: dict[str, Any] = {
        "distance to its own hash: mean, 95th percentile, largest": [
            round(float(distance.mean()), 2),
            float(np.percentile(distance, 95)),
            int(distance.max()),
        ]
    }
    for name, words in (("by hash", False), ("by hash and words", True)):
        found = known.match(edited, captions, qualities=qualities, same_words=words)
        figures[name] = {
            "found": sum(match is not None for match in found),
            "found as itself": _as_itself(found, memes),
        }
    return figures | {"of": len(memes)}


def _as_itself(found: Sequence[Match | None], memes: Sequence[Meme]) -> int:
    """Count matches with the meme itself, or with one of the same words."""
    texts = {meme.id: meme.text for meme in memes}
    return sum(
        match is not None
        and (match.id == meme.id or same_words(texts[match.id], meme.text))
        for match, meme in zip(found, memes, strict=True)
    )


def _others(
    known: KnownMemes, listed: Sequence[Meme], others: Sequence[Meme]
) -> dict[str, Any]:
    """Match memes that are not on the list, and compare the captions of the matches."""
    texts = {meme.id: meme.text for meme in listed}
    truth = {meme.id: meme.label for meme in listed}
    hashes, qualities, _ = pdq.compute_all([meme.image for meme in others])
    captions = [meme.text for meme in others]
    figures: dict[str, Any] = {"of": len(others)}
    for name, words in (("by hash", False), ("by hash and words", True)):
        found = known.match(hashes, captions, qualities=qualities, same_words=words)
        matched = [
            (meme, match)
            for meme, match in zip(others, found, strict=True)
            if match is not None
        ]
        same = [
            (meme, match)
            for meme, match in matched
            if same_words(meme.text, texts[match.id])
        ]
        figures[name] = {
            "found": len(matched),
            "with the same words": len(same),
            "with other words": len(matched) - len(same),
            "of another label": sum(m.label != truth[k.id] for m, k in matched),
            "pairs with other words: id, known id, distance": [
                [meme.id, match.id, match.distance]
                for meme, match in matched
                if (meme, match) not in same
            ],
        }
    return figures


def _words(
    known: KnownMemes, listed: Sequence[Meme], others: Sequence[Meme], *, seed: int
) -> dict[str, dict[str, float]]:
    """Match other memes by the share of edits that captions may differ by.

    And the price of it: captions of which one word is replaced by one of another meme,
    and which are still taken for the same words.
    """
    rng = np.random.default_rng(seed)
    spare = [word for meme in others for word in meme.text.split()]
    reworded = []
    for meme in listed:
        words = meme.text.split()
        if len(words) > 1:
            words[rng.integers(len(words))] = spare[rng.integers(len(spare))]
            reworded.append((meme.text, " ".join(words)))
    hashes, qualities, _ = pdq.compute_all([meme.image for meme in others])
    captions = [meme.text for meme in others]
    figures = {}
    for share in SHARES:
        found = known.match(
            hashes, captions, qualities=qualities, same_words=True, max_edits=share
        )
        same = [same_words(a, b, max_edits=share) for a, b in reworded]
        figures[f"max edits {share}"] = {
            "others found": sum(match is not None for match in found),
            "one word replaced, taken as the same": round(float(np.mean(same)), 4),
        }
    return figures


def _speed(
    memes: Sequence[Meme], *, count: int, runs: int, seed: int
) -> dict[str, list[float]]:
    """Time look-ups one by one and by the thousand, and hashing: each per second."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 256, (count, pdq.BYTES), np.uint8)
    known = KnownMemes(
        KnownMeme(str(i), pdq.to_hex(row), 100, "", HATEFUL)
        for i, row in enumerate(bits)
    )
    queries = rng.integers(0, 256, (BATCH, pdq.BYTES), np.uint8)
    # The search is arranged at the first look-up.
    known.match(queries)

    def together() -> int:
        known.match(queries)
        return BATCH

    def one_by_one() -> int:
        for i in range(BATCH):
            known.match(queries[i : i + 1])
        return BATCH

    def hashing() -> int:
        paths = [meme.image for meme in memes[:BATCH]]
        pdq.compute_all(paths, threads=1)
        return len(paths)

    timed = {
        f"look-ups/s, {BATCH} at once": together,
        "look-ups/s, one by one": one_by_one,
        "pictures/s read and hashed, one thread": hashing,
    }
    return {name: _rates(function, runs) for name, function in timed.items()}


def _rates(function: Callable[[], int], runs: int) -> list[float]:
    rates = []
    for _ in range(runs):
        began = time.perf_counter()
        done = function()
        rates.append(round(done / (time.perf_counter() - began), 1))
    return sorted(rates)


if __name__ == "__main__":
    main()
