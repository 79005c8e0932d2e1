"""Restore the trained variables of a finished run from its folder alone."""

from __future__ import annotations

import copy
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

from memejax import digests, folder, frozen
from memejax.checkpoint import verify
from memejax.console import say
from memejax.data import text
from memejax.errors import UserError
from memejax.metrics import AVERAGE
from memejax.outcomes import evaluated

Tree = Any
# Stands for every seed of a run.
ALL = "all"


@dataclasses.dataclass(frozen=True)
class Restored:
    """A restored seed of a finished run.

    Attributes:
        folder: the run's folder.
        seed: the seed.
        config: the run's config; of a head with its encoders' model, arm and sizes.
        results: content of its results.json.
        variables: params and batch_stats as numpy arrays, those behind the test
            scores; of a head, `encoders` and `head`, which have them each.
        tokenizer: the run's tokenizer.
        encoders: of a network on graphs, those behind its features; None of others.
    """

    folder: pathlib.Path
    seed: int
    config: ConfigDict
    results: Mapping[str, Any]
    variables: Mapping[str, Tree]
    tokenizer: Tokenizer
    encoders: frozen.Frozen | None = None

    @property
    def outcomes(self) -> Mapping[str, Any]:
        """The outcomes of this seed in results.json, by stage."""
        return self.results["seeds"][str(self.seed)]

    def threshold(self, arm: str) -> float | None:
        """Return the arm's threshold, chosen on the dev split; None without labels."""
        # Every split's report uses the dev split's threshold.
        found = evaluated(self.outcomes)
        reports = found["splits"] if found else {}
        return next((float(rows[arm]["threshold"]) for rows in reports.values()), None)


def restore(
    workdir: str | os.PathLike[str],
    *,
    seed: int = 0,
    arm: str = AVERAGE,
    graphs: bool = False,
) -> Restored:
    """Restore the fine-tuned variables behind a run's test scores.

    Each of several arms has its own best checkpoint, and so has their average.

    No data set, accelerator or optimizer is needed: only the part of the checkpoint
    that predictions use is read.

    Args:
        workdir: the run's folder.
        seed: one of its seeds.
        arm: whose checkpoint to read; an unknown one has the average's.
        graphs: whether it may be a network on the memes' graphs, on stored features.

    Raises:
        ValueError: if the folder holds no finished run that was fine-tuned and
            evaluated, or not this seed; the message describes what was found.
    """
    path = pathlib.Path(workdir).absolute()
    config, results = read_finished(path)
    outcomes = results["seeds"].get(str(seed))
    if outcomes is None:
        raise ValueError(
            f"got seed {seed}, but {path} has the seeds {', '.join(results['seeds'])}"
        )
    found = evaluated(outcomes)
    of_graphs = graphs and "graph" in config and config.graph.kind == "stored"
    if found is None or not (of_graphs or {"arms", "heads"} & set(config)):
        kind = f" of the kind {config.graph.kind!r}" if "graph" in config else ""
        raise ValueError(
            f"the run in {path} ran the stages {', '.join(outcomes)}{kind}: expected "
            f"one with finetune{', heads or graph' if graphs else ' or heads'}, and "
            "evaluate, in its stages"
        )
    # An earlier memejax had one checkpoint for all.
    step = found.get("checkpoints", {}).get(arm, found["checkpoint"])
    saved = path / str(seed) / found["stage"] / "checkpoints" / str(step)
    if not saved.is_dir():
        aside = saved.with_name(f"{saved.name}.damaged")
        reason = (
            f"was damaged, and is {aside} now" if aside.is_dir() else "is not there"
        )
        raise ValueError(f"{saved}, which gave the run's test scores, {reason}")
    variables = _variables(saved)
    encoders = None
    if of_graphs:
        encoders = frozen.load(path)
        tokenizer = encoders.tokenizer
    elif "heads" in config:
        encoders = frozen.load(path)
        config = _with_encoders(config, encoders.config)
        variables = {"encoders": encoders.variables, "head": variables}
        tokenizer = encoders.tokenizer
    else:
        tokenizer = text.load_tokenizer(os.fspath(path / "tokenizer"))
    return Restored(path, seed, config, results, variables, tokenizer, encoders)


def _with_encoders(config: ConfigDict, encoders: ConfigDict) -> ConfigDict:
    """Return a head's config with the models, the arm and the sizes of its encoders."""
    joined = copy.deepcopy(config).unlock()
    joined.model, joined.arms = encoders.model, encoders.arms
    for name in ("image_size", "resize", "text_length"):
        joined.data[name] = encoders.data[name]
    return joined.lock()


def encoders_of(restored: Restored, arm: str) -> dict[str, dict[str, Tree]]:
    """Return the variables of an arm's encoders.

    Args:
        restored: a run.
        arm: one of the run's arms.

    Returns:
        "image_encoder" and "text_encoder" -> collection -> variables.

    Raises:
        ValueError: if the arm lacks one of them.
    """
    config, found = restored.config, {}
    # A shared text encoder is stored under the first arm that has it.
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
    """Return a finished run's config and results, without reading a checkpoint.

    Args:
        workdir: the run's folder.

    Raises:
        ValueError: if the folder holds no finished run of a classifier of memes; the
            message describes what was found.
    """
    path = pathlib.Path(workdir).absolute()
    if not path.is_dir():
        raise ValueError(f"no folder {path}, expected a finished run's")
    config, results = folder.read_config(path), folder.read_json(path / "results.json")
    there = ", ".join(sorted(entry.name for entry in path.iterdir())) or "nothing"
    if config is None:
        inner = sorted(file.parent.name for file in path.glob("*/config.json"))
        hint = f"; did you mean its folder {' or '.join(inner)}?" if inner else ""
        raise ValueError(
            f"no run in {path}: there is no config.json, there is {there}{hint}"
        )
    if results is None:
        raise ValueError(
            f"the run in {path} is not finished: there is no results.json, there is "
            f"{there}; run its command again with the same --workdir to resume it"
        )
    folder.check_layout(path)
    if not results["seeds"]:
        raise ValueError(
            f"the run in {path} is a {config['name']!r}, which trains no classifier "
            "of memes: expected one that fine-tunes"
        )
    return ConfigDict(config), results


def seeds_of(workdir: str | os.PathLike[str], seed: str) -> tuple[str, ...]:
    """Return one seed of a finished run, or all of them.

    Args:
        workdir: the run's folder.
        seed: a number, or "all".

    Raises:
        ValueError: if the folder holds no finished run with that seed.
    """
    _, results = read_finished(workdir)
    known = tuple(results["seeds"])
    if seed != ALL and seed not in known:
        raise UserError(
            f"got seed {seed}, but {workdir} has the seeds {', '.join(known)}"
        )
    return known if seed == ALL else (seed,)


def _variables(saved: pathlib.Path) -> dict[str, Tree]:
    """Return the variables that a checkpoint evaluates with, as numpy arrays."""
    verify(saved)
    if not digests.exists(saved):
        say(
            f"WARNING: {saved} was saved by an earlier memejax, without digests: "
            "damage would go unnoticed"
        )
    found = ocp.checkpointables_metadata(saved).metadata
    state = found["state"] if found else None
    # Zero-shot has no parameters, and its prompts as statistics.
    if not state or not (state.get("params") or state.get("batch_stats")):
        raise ValueError(f"{saved} is no checkpoint of a run, or is damaged")
    # An average of the parameters, if kept, was evaluated instead of them.
    source = "average" if state.get("average") else "params"
    like = {
        name: jax.tree.map(
            _empty if name in (source, "batch_stats") else _left_out, tree
        )
        for name, tree in state.items()
    }
    loaded = ocp.load_checkpointables(saved, {"state": like})["state"]
    variables = {
        "params": loaded.get(source) or {},
        "batch_stats": loaded.get("batch_stats") or {},
    }
    for path, leaf in jax.tree.leaves_with_path(variables):
        if not np.all(np.isfinite(leaf)):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(f"{saved} holds values of {name} that are not finite")
    return variables


def _empty(leaf: Any) -> np.ndarray:
    """Return the template that makes orbax restore a leaf as a numpy array."""
    return np.empty(leaf.shape, leaf.dtype)


def _left_out(_: Any) -> Any:
    """Return the template that makes orbax skip a leaf."""
    return ocp.PLACEHOLDER
