"""What a finished run learned, from its folder alone."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp
from tokenizers import Tokenizer

from memejax import folder
from memejax.checkpoint import verify
from memejax.data import text
from memejax.outcomes import evaluated

Tree = Any


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a seed of a finished run learned.

    Attributes:
        folder: the run's.
        seed: which one.
        config: the run's.
        results: what its results.json holds.
        variables: params and batch_stats as numpy arrays, those that gave the test
            scores.
        tokenizer: the run's.
    """

    folder: pathlib.Path
    seed: int
    config: ConfigDict
    results: Mapping[str, Any]
    variables: Mapping[str, Tree]
    tokenizer: Tokenizer

    @property
    def outcomes(self) -> Mapping[str, Any]:
        """What results.json says of this seed, a stage."""
        return self.results["seeds"][str(self.seed)]

    def threshold(self, arm: str) -> float | None:
        """The arm's threshold, chosen on the dev split; None if that had no labels."""
        # Every split's report is at the dev split's threshold.
        found = evaluated(self.outcomes)
        reports = found["splits"] if found else {}
        return next((float(rows[arm]["threshold"]) for rows in reports.values()), None)


def restore(workdir: str | os.PathLike[str], *, seed: int = 0) -> Restored:
    """Reads the fine-tuned variables that gave a run's test scores.

    No data set, accelerator or optimizer is needed: of the checkpoint only what a
    prediction uses is read.

    Args:
        workdir: the run's folder.
        seed: which of its seeds.

    Raises:
        ValueError: if the folder holds no finished run that was fine-tuned and
            evaluated, or not this seed, saying what is there and what to do.
    """
    where = pathlib.Path(workdir).absolute()
    config, results = read_finished(where)
    outcomes = results["seeds"].get(str(seed))
    if outcomes is None:
        raise ValueError(
            f"{where} has the seeds {', '.join(results['seeds'])}, asked for {seed}"
        )
    found = evaluated(outcomes)
    # Networks on stored features have no arms: they read no pictures or captions.
    if found is None or "arms" not in config:
        raise ValueError(
            f"the run in {where} ran the stages {', '.join(outcomes)}: expected one "
            "with finetune and evaluate in its stages"
        )
    step = found["checkpoint"]
    saved = where / str(seed) / found["stage"] / "checkpoints" / str(step)
    if not saved.is_dir():
        raise ValueError(f"{saved}, which gave the run's test scores, is not there")
    return Restored(
        folder=where,
        seed=seed,
        config=config,
        results=results,
        variables=_variables(saved),
        tokenizer=text.load_tokenizer(os.fspath(where / "tokenizer")),
    )


def encoders_of(restored: Restored, arm: str) -> dict[str, dict[str, Tree]]:
    """The variables of an arm's encoders.

    Args:
        restored: a run.
        arm: one of the run's.

    Returns:
        Of `image_encoder` and of `text_encoder` the collections that it has.

    Raises:
        ValueError: if the arm lacks one of them.
    """
    config, found = restored.config, {}
    # A text encoder that arms share lies under the first of them.
    sharing = config.arms if config.model.share_text else ()
    holders = {"image_encoder": (arm,), "text_encoder": (arm, *sharing)}
    for part, names in holders.items():
        for name in names:
            trees = {
                collection: tree.get(f"arms_{name}", {}).get(part)
                for collection, tree in restored.variables.items()
            }
            found[part] = {k: tree for k, tree in trees.items() if tree}
            if found[part]:
                break
        else:
            raise ValueError(
                f"the run in {restored.folder} has no {part} in its arm {arm!r}: "
                "expected one with model.arm.modalities=both"
            )
    return found


def read_finished(
    workdir: str | os.PathLike[str],
) -> tuple[ConfigDict, dict[str, Any]]:
    """What a finished run's config.json and results.json hold; no checkpoint is read.

    Args:
        workdir: the run's folder.

    Raises:
        ValueError: if the folder holds no finished run of a classifier of memes, saying
            what is there and what to do.
    """
    where = pathlib.Path(workdir).absolute()
    if not where.is_dir():
        raise ValueError(f"no folder {where}, expected a finished run's")
    config, results = (
        folder.read_json(where / f"{name}.json") for name in ("config", "results")
    )
    there = ", ".join(sorted(entry.name for entry in where.iterdir())) or "nothing"
    if config is None:
        inner = sorted(path.parent.name for path in where.glob("*/config.json"))
        hint = f"; did you mean its folder {' or '.join(inner)}?" if inner else ""
        raise ValueError(
            f"no run in {where}: there is no config.json, there is {there}{hint}"
        )
    if results is None:
        raise ValueError(
            f"the run in {where} is not finished: there is no results.json, there is "
            f"{there}; start its command again with the same --workdir, it resumes"
        )
    folder.check_layout(where)
    if not results["seeds"]:
        raise ValueError(
            f"the run in {where} is a {config['name']!r}, which trains no classifier "
            "of memes: expected one that fine-tunes"
        )
    return ConfigDict(config), results


def _variables(saved: pathlib.Path) -> dict[str, Tree]:
    """The variables that a checkpoint evaluates with, as numpy arrays."""
    verify(saved)
    found = ocp.checkpointables_metadata(saved).metadata
    state = found["state"] if found else None
    if not state or not state.get("params"):
        raise ValueError(f"{saved} is no checkpoint of a run, or is damaged")
    # An average of the parameters, where one was kept, is what was evaluated.
    source = "average" if state.get("average") else "params"
    like = {
        name: jax.tree.map(
            _empty if name in (source, "batch_stats") else _left_out, tree
        )
        for name, tree in state.items()
    }
    loaded = ocp.load_checkpointables(saved, {"state": like})["state"]
    variables = {
        "params": loaded[source],
        "batch_stats": loaded.get("batch_stats") or {},
    }
    for path, leaf in jax.tree.leaves_with_path(variables):
        if not np.all(np.isfinite(leaf)):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(f"{saved} holds values of {name} that are not finite")
    return variables


def _empty(leaf: Any) -> np.ndarray:
    """What asks orbax for a leaf as a numpy array."""
    return np.empty(leaf.shape, leaf.dtype)


def _left_out(_: Any) -> Any:
    """What asks orbax to leave a leaf on disk."""
    return ocp.PLACEHOLDER
