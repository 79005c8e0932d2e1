"""Checkpoints: the state, the plan and the position in it, in one atomic save (orbax).

In a stage's folder, `checkpoints/<step>/` holds the arrays of the state and the plan
and, as JSON, the position: the place in the plan and the loop's own variables. The
last `keep` checkpoints are kept, and the best one by a metric.
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
    """A restored checkpoint.

    Attributes:
        step: updates done.
        state: the state, with the requested shardings.
        plan: arrays of the current plan.
        position: JSON, as saved.
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
        """Open or create a folder of checkpoints.

        Args:
            folder: the folder.
            keep: number of latest checkpoints to keep, at least 1.
            best: a metric; the checkpoint with its largest value is kept as well.

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
                    # Ties go to the first, which trained the least.
                    get_metric_fn=lambda m: (m[best], -m["step"]),
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._checkpointer = ocp.training.Checkpointer(
            pathlib.Path(folder).absolute(),
            preservation_policy=_policies.AnyPreservationPolicy(policies),
            # An interrupted save leaves a temporary folder behind.
            cleanup_tmp_directories=True,
        )

    @property
    def latest(self) -> int | None:
        """The last saved step, None if there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    @property
    def best(self) -> int | None:
        """The first step with the largest metric, None if there is none."""
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
        """Start an asynchronous save; the arrays are copied before this returns.

        Saving the same step again does nothing: a run is a function of its config, so
        the checkpoint would be identical.
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
        """Restore the last checkpoint, None if there is none; see `restore`."""
        return None if self.latest is None else self.restore(like, step=self.latest)

    def restore(self, like: Tree, *, step: int | None) -> Saved:
        """Restore a checkpoint.

        Args:
            like: a state of the same shapes, with the shardings to restore to.
            step: its step, such as `latest` or `best`.

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
        """Wait until everything saved is on disk."""
        self._checkpointer.wait()

    def close(self) -> None:
        """Wait for pending saves, and release the threads."""
        self._checkpointer.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
