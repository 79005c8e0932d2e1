"""Checkpoints: the state, the plan and the place in it, in one atomic save (orbax).

Under a stage's folder, `checkpoints/<step>/` holds the arrays of the state and of
the plan; beside them, as JSON, the position: the place in the plan and what the
loop remembers. The last `keep` checkpoints stay, and the best one by a metric.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

Tree = Any
_policies = ocp.training.preservation_policies


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a checkpoint gives back.

    Attributes:
        step: updates done.
        state: the state, on the devices it was asked for on.
        plan: arrays of the plan that was being followed.
        position: JSON, as it was saved.
    """

    step: int
    state: Tree
    plan: dict[str, np.ndarray]
    position: dict[str, Any]


class Checkpoints:
    """The checkpoints of one stage."""

    def __init__(
        self, folder: str | os.PathLike[str], *, keep: int, best: str | None = None
    ):
        """Opens (or makes) a folder of checkpoints.

        Args:
            folder: where they lie.
            keep: how many of the latest stay, at least 1.
            best: name of a metric; the checkpoint with the largest stays as well.

        Raises:
            ValueError: if `keep` is not positive.
        """
        if keep < 1:
            raise ValueError(f"keep at least one checkpoint, got keep={keep}")
        self._best = best
        policies = [_policies.LatestN(keep)]
        if best is not None:
            policies.append(
                _policies.BestN(
                    # Of equals the first, which trained the least.
                    get_metric_fn=lambda m: (m[best], -m["step"]),
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._checkpointer = ocp.training.Checkpointer(
            pathlib.Path(folder).absolute(),
            preservation_policy=_policies.AnyPreservationPolicy(policies),
            # A save that was cut off leaves a temporary folder behind.
            cleanup_tmp_directories=True,
        )

    @property
    def latest(self) -> int | None:
        """The last step that is saved, None if there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    @property
    def best(self) -> int | None:
        """The step with the largest metric, of equals the first; None without any."""
        rated = [
            (entry.metrics[self._best], -entry.step)
            for entry in self._checkpointer.checkpoints
            if self._best is not None and entry.metrics
        ]
        return -max(rated)[1] if rated else None

    def save(
        self,
        step: int,
        state: Tree,
        *,
        plan: dict[str, np.ndarray],
        position: dict[str, Any],
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Starts a save; the arrays are copied before this returns.

        Saving a step that is saved already does nothing: a run is a function of its
        config, so it would be the same.
        """
        if any(entry.step == step for entry in self._checkpointer.checkpoints):
            return
        self._checkpointer.wait()
        self._checkpointer.save_checkpointables_async(
            step,
            {"state": state, "plan": plan},
            custom_metadata=position,
            metrics=None if metrics is None else {**metrics, "step": step},
            force=True,
        )

    def restore_latest(self, like: Tree) -> Saved | None:
        """The last checkpoint, None if there is none; see `restore`."""
        return None if self.latest is None else self.restore(like, step=self.latest)

    def restore(self, like: Tree, *, step: int | None) -> Saved:
        """Reads a checkpoint.

        Args:
            like: a state of the same shapes, on the devices where it is to lie.
            step: which one, as `latest` or `best` say.

        Raises:
            FileNotFoundError: if there is no such checkpoint.
        """
        self._checkpointer.wait()
        if step is None:
            raise FileNotFoundError(f"no checkpoint in {self._checkpointer.directory}")
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        metadata = self._checkpointer.checkpointables_metadata(step)
        loaded = self._checkpointer.load_checkpointables(
            step, {"state": abstract, "plan": None}
        )
        return Saved(step, loaded["state"], loaded["plan"], metadata.custom_metadata)

    def wait(self) -> None:
        """Returns when everything saved is on disk."""
        self._checkpointer.wait()

    def close(self) -> None:
        """Waits, and frees the threads."""
        self._checkpointer.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
