"""A finished run, read from its folder."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from memejax import folder as folders
from memejax import logs, metrics
from memejax.config import flatten
from memejax.data import hateful_memes
from memejax.data.hateful_memes import Meme, id_key
from memejax.metrics import AVERAGE
from memejax.outcomes import evaluated, evaluated_seeds
from memejax.stages.evaluate import NAME as EVALUATED
from memejax.store.read import open_store


@dataclasses.dataclass(frozen=True)
class Scored:
    """Predictions of one arm and seed on a labelled split.

    Attributes:
        ids: of the memes, `[n]`.
        proba: P(hateful), float64 `[n]`.
        labels: 0 or 1, int `[n]`, from the data.
    """

    ids: list[str]
    proba: np.ndarray
    labels: np.ndarray


class Finished:
    """Content of a finished run's folder.

    Attributes:
        folder: its absolute path.
        results: content of results.json.
        leaves: dotted name -> value of the config; {} without config.json.
        environment: versions and devices; {} without environment.json.
        seeds: names of the seeds.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        """Read the folder's JSON files.

        Raises:
            ValueError: if there is no results.json.
        """
        self.folder = pathlib.Path(folder).absolute()
        self.results: dict[str, Any] = folders.read_json(self.folder / "results.json")
        if self.results is None:
            raise ValueError(
                f"{self.folder} has no results.json; expected a finished run's folder"
            )
        config = folders.read_config(self.folder) or {}
        self.leaves = flatten(config)
        self.environment = folders.read_json(self.folder / "environment.json") or {}
        self.seeds = sorted(self.results["seeds"], key=int)
        self._memes: dict[str, dict[str, Meme]] = {}

    def lines(self, seed: str, stage: str) -> list[dict[str, Any]]:
        """Lines of a stage's metrics.jsonl; [] without the stage."""
        path = self.folder / seed / stage / "metrics.jsonl"
        return logs.read_metrics(path) if path.exists() else []

    def predictions(self, seed: str, split: str, arm: str = AVERAGE) -> pathlib.Path:
        """Path of an arm's probabilities."""
        suffix = "" if arm == AVERAGE else f".{arm}"
        return self.folder / seed / EVALUATED / "predictions" / f"{split}{suffix}.csv"

    def probabilities(self, split: str) -> list[np.ndarray]:
        """The average's probabilities of each seed that scored the split."""
        paths = [self.predictions(seed, split) for seed in self.seeds]
        return [metrics.read_predictions(path)[1] for path in paths if path.exists()]

    def report(self, seed: str, split: str, arm: str = AVERAGE) -> dict[str, Any]:
        """A seed's figures of an arm on a split; {} if it has none."""
        found = evaluated(self.results["seeds"][seed]) or {}
        return found.get("splits", {}).get(split, {}).get(arm, {})

    def scored(self, split: str, seed: str, *, arm: str = AVERAGE) -> Scored | None:
        """Predictions beside the labels, which come from the data.

        None unless they give the reported AUROC: the data have gone, or have other
        labels now.
        """
        path, report = self.predictions(seed, split, arm), self.report(seed, split, arm)
        if not path.exists() or not report:
            return None
        ids, proba, _ = metrics.read_predictions(path)
        memes = self.memes(split)
        known = (memes.get(id_key(name)) for name in ids)
        labels = np.array([-1 if meme is None else meme.label for meme in known], int)
        if set(labels.tolist()) != {0, 1} or not np.isclose(
            metrics.auroc(proba, labels), report["auroc"], rtol=0, atol=1e-6
        ):
            return None
        return Scored(ids, proba, labels)

    def thresholds(self) -> list[float]:
        """Each evaluated seed's threshold of the average, chosen on the dev split."""
        return [
            rows[AVERAGE]["threshold"]
            for splits in evaluated_seeds(self.results)
            for rows in list(splits.values())[:1]
        ]

    def confusion(self, split: str) -> dict[str, int]:
        """Counts tn, fp, fn, tp of the average at the dev threshold, over all seeds."""
        counts = [
            splits[split][AVERAGE]["confusion"]
            for splits in evaluated_seeds(self.results)
        ]
        return {key: sum(c[key] for c in counts) for key in ("tn", "fp", "fn", "tp")}

    def unlabelled(self) -> list[str]:
        """Splits that were scored and have no figures."""
        first = self.seeds[0] if self.seeds else ""
        return [
            split
            for split in sorted(self.results["data"].get("sizes", {}))
            if split not in self.results["summary"]
            and self.predictions(first, split).exists()
        ]

    def memes(self, split: str) -> dict[str, Meme]:
        """`id_key` of each meme of a split -> its record; {} if the data have gone.

        Of memes that were held out of the training file, the whole file.
        """
        if split not in self._memes:
            self._memes[split] = self._read(split)
        return self._memes[split]

    def _read(self, split: str) -> dict[str, Meme]:
        store = self.leaves.get("features")
        if store is not None:
            return _stored(store, split, self.leaves.get("data.root"))
        root = pathlib.Path(self.leaves.get("data.root") or self.folder / "memes")
        for name in (split, self.leaves.get("data.train", "train")):
            path = root / f"{name}.jsonl"
            if path.exists():
                memes, _ = hateful_memes.read_jsonl(
                    os.fspath(path), root=os.fspath(root), split=name
                )
                return {id_key(meme.id): meme for meme in memes}
        return {}


def _stored(store: str, split: str, root: str | None) -> dict[str, Meme]:
    """The memes of a feature store; {} if it has gone."""
    try:
        found = open_store(store)
        own = found.splits[split]
    except (ValueError, KeyError):
        return {}
    pictures = pathlib.Path(root or found.facts.get("root") or "")
    rows = zip(own.ids, own.images, own.captions, own.labels.tolist(), strict=True)
    return {
        id_key(name): Meme(name, str(pictures / image), text, label, split, store, 0)
        for name, image, text, label in rows
    }
