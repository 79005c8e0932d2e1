"""A finished run, read from its folder."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np

from memejax import folder as folders
from memejax import logs, metrics
from memejax.data import hateful_memes
from memejax.metrics import AVERAGE
from memejax.outcomes import evaluated, evaluated_seeds
from memejax.report import tables
from memejax.stages.evaluate import NAME as EVALUATED
from memejax.store.read import open_store


class Finished:
    """What a run's folder holds.

    Attributes:
        folder: its absolute path.
        results: what results.json holds.
        leaves: dotted name -> value of the config, {} without config.json.
        environment: what it ran on, {} without environment.json.
        seeds: the seeds' names.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        """Reads the folder's JSON files.

        Raises:
            ValueError: if there is no results.json.
        """
        self.folder = pathlib.Path(folder).absolute()
        self.results: dict[str, Any] = folders.read_json(self.folder / "results.json")
        if self.results is None:
            raise ValueError(
                f"{self.folder} has no results.json; expected a finished run's folder"
            )
        config = folders.read_json(self.folder / "config.json") or {}
        self.leaves = folders.flatten(config)
        self.environment = folders.read_json(self.folder / "environment.json") or {}
        self.seeds = sorted(self.results["seeds"], key=int)

    def lines(self, seed: str, stage: str) -> list[dict[str, Any]]:
        """The lines of a stage's metrics.jsonl, none without the stage."""
        path = self.folder / seed / stage / "metrics.jsonl"
        return logs.read_metrics(path) if path.exists() else []

    def predictions(self, seed: str, split: str, arm: str = AVERAGE) -> pathlib.Path:
        """The file of an arm's probabilities."""
        suffix = "" if arm == AVERAGE else f".{arm}"
        return self.folder / seed / EVALUATED / "predictions" / f"{split}{suffix}.csv"

    def probabilities(self, split: str) -> list[np.ndarray]:
        """The average's probabilities of each seed that scored the split."""
        paths = [self.predictions(seed, split) for seed in self.seeds]
        return [metrics.read_predictions(path)[1] for path in paths if path.exists()]

    def scores(self, split: str) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
        """Arm -> each seed's probabilities and labels, `[n]`, of a labelled split.

        The labels come from the data. Only what gives the reported AUROC is returned:
        nothing where the data have gone or have other labels now.
        """
        labels = self._labels(split)
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for arm in tables.arms(self.results["summary"][split]):
            for seed in self.seeds:
                path = self.predictions(seed, split, arm)
                if not path.exists():
                    continue
                ids, proba, _ = metrics.read_predictions(path)
                keys = map(hateful_memes.id_key, ids)
                truth = np.array([labels.get(key, -1) for key in keys], int)
                found_there = evaluated(self.results["seeds"][seed]) or {}
                report = found_there["splits"][split][arm]
                if set(truth.tolist()) == {0, 1} and np.isclose(
                    metrics.auroc(proba, truth), report["auroc"], rtol=0, atol=1e-6
                ):
                    found.setdefault(arm, []).append((proba, truth))
        return found

    def thresholds(self) -> list[float]:
        """Each evaluated seed's threshold of the average, chosen on the dev split."""
        return [
            rows[AVERAGE]["threshold"]
            for splits in evaluated_seeds(self.results)
            for rows in list(splits.values())[:1]
        ]

    def confusion(self, split: str) -> dict[str, int]:
        """tn, fp, fn and tp of the average at the dev threshold, over all seeds."""
        counts = [
            splits[split][AVERAGE]["confusion"]
            for splits in evaluated_seeds(self.results)
        ]
        return {key: sum(c[key] for c in counts) for key in ("tn", "fp", "fn", "tp")}

    def unlabelled(self) -> list[str]:
        """The splits that were scored and have no figures."""
        first = self.seeds[0] if self.seeds else ""
        return [
            split
            for split in sorted(self.results["data"].get("sizes", {}))
            if split not in self.results["summary"]
            and self.predictions(first, split).exists()
        ]

    def _labels(self, split: str) -> dict[str, int]:
        """Id -> label, from the data; {} where they have gone."""
        store = self.leaves.get("features")
        if store is not None:
            return _stored_labels(store, split)
        root = pathlib.Path(self.leaves.get("data.root") or self.folder / "memes")
        # Held-out memes are of the training file.
        for name in (split, self.leaves.get("data.train", "train")):
            path = root / f"{name}.jsonl"
            if path.exists():
                memes, _ = hateful_memes.read_jsonl(
                    os.fspath(path), root=os.fspath(root), split=name
                )
                return {hateful_memes.id_key(meme.id): meme.label for meme in memes}
        return {}


def _stored_labels(store: str, split: str) -> dict[str, int]:
    """Id -> label, from stored features; {} where they have gone."""
    try:
        found = open_store(store).splits[split]
    except (ValueError, KeyError):
        return {}
    pairs = zip(found.ids, found.labels.tolist(), strict=True)
    return {hateful_memes.id_key(name): label for name, label in pairs}
