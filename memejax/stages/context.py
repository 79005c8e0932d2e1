"""Inputs and outputs of a stage."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import folder, logs, parallel
from memejax.checkpoint import Checkpoints
from memejax.loop import LoopOptions, loop
from memejax.signals import Signals
from memejax.stage import Evaluation, Stage
from memejax.stages.parts import parameters

Tree = Any


@dataclasses.dataclass(frozen=True)
class Context:
    """Inputs of a stage.

    Attributes:
        config: the run's config.
        data: all splits, as loaded by the run's first stage.
        mesh: the devices.
        seed: seeds parameters, order and randomness.
        folder: the seed's folder, which holds the stage folders.
        signals: for the loop.
        options: for the loop.
        made: stages of the config's first seed, as `stages.check_runs` built them.
    """

    config: ConfigDict
    data: Any
    mesh: Mesh
    seed: int
    folder: pathlib.Path
    signals: Signals
    options: LoopOptions
    made: Mapping[str, Stage] = dataclasses.field(default_factory=dict)

    def checked(self, name: str) -> Stage | None:
        """Return a stage that was built when the config was checked, None if not.

        Its step is traced, which would take seconds again.
        """
        made = self.made.get(name)
        return made if made is not None and self.seed == self.config.seed else None

    def train(
        self, stage: Stage, name: str, evaluation: Evaluation | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Train a stage to its end in the folder `name`; see `loop`."""
        path = self.folder / name
        if stage.groups is not None:
            logs.say(f"{name}: {parameters.write(stage, path)}")
        return loop(stage, self.options, path, self.signals, evaluation)

    def outcome(self, name: str) -> Any:
        """Return the saved outcome of a stage, None if it has not ended."""
        # On a network file system a new file is not visible to all machines at once.
        return parallel.from_first(
            folder.read_json(self.folder / name / "outcome.json")
        )

    def finish(self, name: str, outcome: Mapping[str, Any]) -> None:
        """Save a stage's outcome, which marks it as done."""
        folder.write_json(self.folder / name / "outcome.json", outcome)

    def last_weights(self, name: str, stage: Stage) -> Tree:
        """Return the variables of the last checkpoint in the folder `name`."""
        checkpoints = self.folder / name / "checkpoints"
        with Checkpoints(checkpoints, keep=self.options.keep) as saves:
            return saves.restore(stage.abstract, step=saves.latest).state.weights()


class Weights:
    """Final variables of a stage, kept in memory for the next one or read again.

    The first call hands over the kept ones, so that they exist only once.
    """

    def __init__(self, read: Callable[[], Tree], kept: Tree | None = None):
        """Return `kept` from the first call; every other call reads them."""
        self._read, self._kept = read, kept

    def __call__(self) -> Tree:
        """Return the variables."""
        kept, self._kept = self._kept, None
        return self._read() if kept is None else kept


@dataclasses.dataclass(frozen=True)
class Ended:
    """Outputs of a stage that has ended.

    Attributes:
        name: of the folder that it trained in.
        outcomes: folder -> outcome as JSON, for this stage alone.
        stage: makes the stage, once.
        weights: returns its final variables; None if it has none.
    """

    name: str
    outcomes: Mapping[str, Any]
    stage: Callable[[], Stage]
    weights: Callable[[], Tree] | None = None
