"""The context of a stage."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import build, dataset
from memejax.loop import Signals


@dataclasses.dataclass(frozen=True)
class Context:
    """What a stage is run with.

    Attributes:
      config: the run's.
      data: of all splits.
      mesh: the devices.
      seed: of parameters, order and randomness.
      folder: of the seed; a stage's own is in it.
      signals: of the loop.
    """

    config: ConfigDict
    data: dataset.Data
    mesh: Mesh
    seed: int
    folder: pathlib.Path
    signals: Signals

    def stage(self, make: Callable[..., build.Stage], **more: Any) -> build.Stage:
        """The stage that `make`, a function of `build`, makes for this seed."""
        return make(self.config, self.data, seed=self.seed, mesh=self.mesh, **more)
