"""The surroundings of a stage, and what one stage hands to the next."""

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
    """Everything that a stage is run with.

    Attributes:
        config: the run's.
        data: of all splits, as the first stage of the run loaded it.
        mesh: the devices.
        seed: of parameters, order and randomness.
        folder: of the seed; a stage's own is in it.
        signals: of the loop.
        options: of the loop.
    """

    config: ConfigDict
    data: Any
    mesh: Mesh
    seed: int
    folder: pathlib.Path
    signals: Signals
    options: LoopOptions

    def train(
        self, stage: Stage, name: str, evaluation: Evaluation | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Run a stage in the folder `name` to its end; see `loop`."""
        path = self.folder / name
        if stage.groups is not None:
            logs.say(f"{name}: {parameters.write(stage, path)}")
        return loop(stage, self.options, path, self.signals, evaluation)

    def outcome(self, name: str) -> Any:
        """Return the outcome of a stage that ended before, None if it did not."""
        # A folder on a network shows a new file to one machine before the other.
        return parallel.from_first(
            folder.read_json(self.folder / name / "outcome.json")
        )

    def finish(self, name: str, outcome: Mapping[str, Any]) -> None:
        """Write a stage's outcome: it is not run again."""
        folder.write_json(self.folder / name / "outcome.json", outcome)

    def last_weights(self, name: str, stage: Stage) -> Tree:
        """Return the variables of the last checkpoint in the folder `name`."""
        checkpoints = self.folder / name / "checkpoints"
        with Checkpoints(checkpoints, keep=self.options.keep) as saves:
            return saves.restore(stage.abstract, step=saves.latest).state.weights()


class Weights:
    """Variables that a stage ended with: kept for the next, or read again.

    The first call gives the kept ones away, so that they are held once.
    """

    def __init__(self, read: Callable[[], Tree], kept: Tree | None = None):
        """Keep `kept` for the first call; any other call reads them."""
        self._read, self._kept = read, kept

    def __call__(self) -> Tree:
        """Return the variables."""
        kept, self._kept = self._kept, None
        return self._read() if kept is None else kept


@dataclasses.dataclass(frozen=True)
class Ended:
    """A stage that has ended.

    Attributes:
        name: of the folder that it trained in.
        outcomes: folder -> outcome as JSON, of this stage alone.
        stage: makes the stage, once.
        weights: variables that it ended with; None if it has none to give.
    """

    name: str
    outcomes: Mapping[str, Any]
    stage: Callable[[], Stage]
    weights: Callable[[], Tree] | None = None
