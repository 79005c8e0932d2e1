"""Damaged memes, pictures, weights, tokenizers and feature stores."""

from __future__ import annotations

import json
import pathlib
import shutil
import signal
import warnings
from collections.abc import Callable

import numpy as np

from memejax.bench.faults.checkpoints import damage_file
from memejax.bench.faults.report import Cases
from memejax.data import hateful_memes, meme_check, records, synthetic_memes, text
from memejax.errors import UserError
from memejax.store import read as store
from memejax.store.shards import columns
from memejax.store.write import StoreWriter
from memejax.weights import checkpoint as weights
from memejax.weights.configs import Architecture

# Seconds after which a case counts as stalled.
STALLED = 60
DAMAGES = ("flip", "flip 50", "truncate", "empty", "remove", "zeros", "foreign")


def inputs(count: int, *, seed: int, folder: pathlib.Path) -> Cases:
    """Damage the inputs of each kind in turn."""
    cases, rng = Cases("inputs"), np.random.default_rng(seed)
    kinds = [_memes(folder), _records(folder), _weights(folder), _store(folder)]
    for number in range(count):
        kind, make, read = kinds[number % len(kinds)]
        case = folder / str(number)
        what = f"{kind}: {make(case, rng)}"
        try:
            with _Limited(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = read(case)
        except UserError:
            cases.add(f"{kind}: refused")
        except ValueError as error:
            # Of the library, for a command to report.
            cases.add(f"{kind}: refused" if str(error) else "wrong")
        except Exception as error:
            cases.add("wrong", wrong=f"{what}: {type(error).__name__}: {error}")
        else:
            wrong = f"{what}: {outcome}" if outcome.startswith("unnoticed") else None
            cases.add("wrong" if wrong else f"{kind}: {outcome}", wrong=wrong)
        shutil.rmtree(case)
    return cases


class _Limited:
    """Raise TimeoutError in a body that takes longer than STALLED seconds."""

    def __enter__(self) -> None:
        def stop(*_: object) -> None:
            raise TimeoutError(f"stalled for {STALLED} s")

        self._old = signal.signal(signal.SIGALRM, stop)
        signal.alarm(STALLED)

    def __exit__(self, *_: object) -> None:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, self._old)


Kind = tuple[
    str,
    Callable[[pathlib.Path, np.random.Generator], str],
    Callable[[pathlib.Path], str],
]


def _damage(folder: pathlib.Path, rng: np.random.Generator) -> str:
    """Damage one file of a folder."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size]
    path = files[int(rng.integers(len(files)))]
    kind = str(rng.choice(DAMAGES))
    return f"{kind} of {path.relative_to(folder)}: {damage_file(path, kind, rng)}"


def _memes(folder: pathlib.Path) -> Kind:
    """Files of a data folder, damaged."""
    whole = folder / "memes"
    synthetic_memes.write(whole, train=16, dev=4, test=4, size=24, seed=0)

    def make(case: pathlib.Path, rng: np.random.Generator) -> str:
        shutil.copytree(whole, case)
        return _damage(case, rng)

    def read(case: pathlib.Path) -> str:
        report = meme_check.check(str(case))
        report.format()
        hateful_memes.read(str(case), on_bad_record="skip")
        # Pixels and letters that are different are still memes.
        return "bad records named" if report.bad else "read"

    return "memes", make, read


# Values of a field that no record should have.
ODD = ("", "\0", "\ud800", "../../etc/passwd", "a" * 200_000, "=cmd|'/c calc'!A1")
ODD += (None, True, -1, 2, 1.5, 10**40, [], {}, "\x1b[2J", "img/missing.png")


def _records(folder: pathlib.Path) -> Kind:
    """Records for prediction with odd fields."""
    whole = folder / "memes"

    def make(case: pathlib.Path, rng: np.random.Generator) -> str:
        case.mkdir()
        shutil.copytree(whole / "img", case / "img")
        record = {"id": 1, "img": "img/00001.png", "text": "words", "label": 0}
        field = str(rng.choice(list(record)))
        value = ODD[int(rng.integers(len(ODD)))]
        line = json.dumps(record | {field: value})
        if rng.random() < 0.2:
            # A name that occurs twice.
            line = f'{{"{field}": 0, {line[1:]}'
        (case / "memes.jsonl").write_text(line + "\n", "utf-8")
        return f"{field}={value!r:.60}"

    def read(case: pathlib.Path) -> str:
        line = (case / "memes.jsonl").read_bytes()
        try:
            found = [records.read_given(records.parse(line), name="line 1")]
        except records.RecordError:
            return "refused"
        captions = [meme.text or "" for meme in found]
        text.encode(
            text.train_wordpiece(["some words"], vocab_size=30), captions, length=9
        )
        "".join(meme.id for meme in found).encode("utf-8")
        return "read"

    return "records", make, read


def _weights(folder: pathlib.Path) -> Kind:
    """A folder of DistilBERT's files, damaged, or with an odd value in its config."""
    whole = folder / "weights"
    whole.mkdir()
    sizes = dict(hidden=8, layers=1, heads=2, mlp=8, vocab_size=30, max_length=16)
    _write_weights(whole, sizes)
    tokenizer = text.train_wordpiece(["some words of a caption"], vocab_size=30)
    text.save_tokenizer(tokenizer, str(whole))

    def make(case: pathlib.Path, rng: np.random.Generator) -> str:
        shutil.copytree(whole, case)
        if rng.random() < 0.5:
            return _damage(case, rng)
        path = case / "config.json"
        config = json.loads(path.read_text("utf-8"))
        key = str(rng.choice(sorted(config)))
        value = [0, -1, 10**9, "384", None, [], {}, float("nan"), True][
            int(rng.integers(9))
        ]
        path.write_text(json.dumps(config | {key: value}), "utf-8")
        return f"config.json: {key}={value!r}"

    def read(case: pathlib.Path) -> str:
        loaded = weights.load(str(case))
        found = weights.open_checkpoint(str(case))
        if found.tokenizer is not None:
            text.encode(text.load_tokenizer(str(found.tokenizer)), ["a b"], length=8)
        return "read" if loaded.variables else "unnoticed: no variables"

    return "weights", make, read


def _write_weights(path: pathlib.Path, sizes: dict[str, int]) -> None:
    """Write a DistilBERT of random values in Hugging Face's format."""
    import jax

    from memejax.models.distilbert import DistilBert

    ids = np.zeros((1, 4), np.int32)
    variables = DistilBert(**sizes).init(jax.random.key(0), ids, ids, train=False)
    weights.save(path, Architecture("distilbert", sizes), jax.device_get(variables))


def _store(folder: pathlib.Path) -> Kind:
    """A feature store of two shards, damaged."""
    whole = folder / "features"
    rng = np.random.default_rng(0)
    writer = StoreWriter(
        whole,
        parts={"data": 1},
        columns=columns(image=4, text=3, entities=4, k=2),
        chunk=4,
        memes=[
            {"id": str(i), "split": "train", "caption": "c", "label": 0, "image": "i"}
            for i in range(8)
        ],
        facts={},
    )
    for shard in range(writer.count):
        writer.write(
            shard,
            {
                name: np.zeros((4, *column.shape), column.dtype)
                if column.dtype not in ("float32",)
                else rng.normal(size=(4, *column.shape)).astype("float32")
                for name, column in columns(image=4, text=3, entities=4, k=2).items()
            },
        )

    def make(case: pathlib.Path, rng: np.random.Generator) -> str:
        shutil.copytree(whole, case)
        return _damage(case, rng)

    def read(case: pathlib.Path) -> str:
        store.open_store(case)
        return "unnoticed"

    return "store", make, read
