"""Checkpoints: the state, the plan and the position in it, in one atomic save (orbax).

In a stage's folder, `checkpoints/<step>/` holds the arrays of the state and the plan
and, as JSON, the position: the place in the plan and the loop's own variables. The
last `keep` checkpoints are kept, and the best one by each of some metrics.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from memejax import digests
from memejax.errors import UserError

Tree = Any
_policies = ocp.training.preservation_policies
# Files up to this size are verified when a folder of checkpoints is opened, which reads
# them; larger ones hold arrays, and are verified before a checkpoint is restored.
_SMALL = 2**20
# In a checkpoint's JSON: that digests follow when it is committed.
_SEALED = "sealed"


class DamagedCheckpointError(UserError):
    """A checkpoint that is not as it was saved; the message names the file and step."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """A restored checkpoint.

    Attributes:
        step: updates done.
        state: the state, with the requested shardings.
        plan: arrays of the current plan.
        position: JSON, as saved.
        verified: whether it has digests, which have been verified.
    """

    step: int
    state: Tree
    plan: dict[str, np.ndarray]
    position: dict[str, Any]
    verified: bool


class Checkpoints:
    """The checkpoints of one stage."""

    def __init__(
        self, folder: str | os.PathLike[str], *, keep: int, best: Sequence[str] = ()
    ):
        """Open or create a folder of checkpoints.

        Args:
            folder: the folder.
            keep: number of latest checkpoints to keep, at least 1.
            best: metrics; the checkpoint with each one's largest value is kept too.

        Raises:
            ValueError: if `keep` is not positive.
        """
        if keep < 1:
            raise ValueError(f"keep at least one checkpoint, got keep={keep}")
        self._folder = pathlib.Path(folder).absolute()
        # Writes a save's digests as soon as it is committed, not at the next save: a
        # kill between the two would otherwise cost a whole checkpoint.
        self._sealer = futures.ThreadPoolExecutor(1, thread_name_prefix="digests")
        self._sealing: futures.Future[None] | None = None
        self.set_aside: dict[int, str] = {}
        self._set_aside_damaged()
        policies = [_policies.LatestN(keep)]
        policies += [
            _policies.BestN(
                # Ties go to the first, which trained the least.
                get_metric_fn=functools.partial(_rank, name),
                n=1,
                keep_checkpoints_without_metrics=False,
            )
            for name in best
        ]
        self._policy = _policies.AnyPreservationPolicy(policies)
        self._checkpointer = self._open()

    def _open(self) -> Any:
        return ocp.training.Checkpointer(
            self._folder,
            preservation_policy=self._policy,
            # An interrupted save leaves a temporary folder behind.
            cleanup_tmp_directories=True,
        )

    def _steps(self) -> list[int]:
        """Steps that lie in the folder, the last first."""
        if not self._folder.is_dir():
            return []
        names = [path.name for path in self._folder.iterdir() if path.is_dir()]
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def _set_aside_damaged(self, *, step: int | None = None) -> None:
        """Rename checkpoints that are damaged or unfinished, so that none is read.

        Of several processes the first does it, and the others wait.

        Args:
            step: the one to verify whole; None verifies the small files of all.
        """
        if jax.process_index() == 0:
            for number in self._steps() if step is None else [step]:
                reason = problem(
                    self._folder / str(number), largest=_SMALL if step is None else None
                )
                if reason is not None:
                    self.set_aside[number] = reason
                    self._rename(number)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoints are verified")

    def _rename(self, step: int) -> None:
        path, number = self._folder / str(step), 0
        while (to := path.with_name(f"{step}.damaged{number or ''}")).exists():
            number += 1
        path.rename(to)

    def whole(self) -> int | None:
        """Return the last step that is committed and has its digests; None if none.

        Reads the folder alone, so that it answers after an error of the writer.
        """
        steps = self._steps()
        return next((n for n in steps if digests.exists(self._folder / str(n))), None)

    @property
    def latest(self) -> int | None:
        """The last saved step, None if there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def best(self, name: str) -> int | None:
        """Return the first step with a metric's largest value; None without any."""
        rated = [
            (entry.metrics[name], -entry.step)
            for entry in self._checkpointer.checkpoints
            if name in (entry.metrics or {})
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
        self.wait()
        saving = self._checkpointer.save_checkpointables_async(
            step,
            {"state": state, "plan": plan},
            custom_metadata={_SEALED: True, **position},
            metrics=None if metrics is None else {**metrics, "step": step},
            force=True,
        )
        self._sealing = self._sealer.submit(self._seal, saving, step)

    def _seal(self, saving: Any, step: int) -> None:
        saving.result()
        if jax.process_index() == 0:
            digests.write(self._folder / str(step))

    def restore_latest(self, like: Tree) -> Saved | None:
        """Restore the last whole checkpoint, None if there is none; see `restore`.

        Damaged ones after it are renamed, and stand in `set_aside` with the reason.
        """
        self.wait()
        while (step := self.latest) is not None:
            before = len(self.set_aside)
            self._set_aside_damaged(step=step)
            # Of several processes the first alone has the reason; all see the folder.
            if len(self.set_aside) == before and step in self._steps():
                return self._read(like, step)
            self._checkpointer.close()
            self._checkpointer = self._open()
        return None

    def restore(self, like: Tree, *, step: int | None) -> Saved:
        """Restore a checkpoint.

        Args:
            like: a state of the same shapes, with the shardings to restore to.
            step: its step, such as `latest` or `best`.

        Raises:
            FileNotFoundError: if there is no such checkpoint.
            DamagedCheckpointError: if it is not as it was saved.
        """
        self.wait()
        if step is None:
            raise FileNotFoundError(f"no checkpoint in {self._folder}")
        if step in self.set_aside:
            reason = self.set_aside[step]
            raise DamagedCheckpointError(f"the checkpoint of step {step}: {reason}")
        if step in self._steps():
            verify(self._folder / str(step))
        return self._read(like, step)

    def _read(self, like: Tree, step: int) -> Saved:
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        metadata = self._checkpointer.checkpointables_metadata(step)
        loaded = self._checkpointer.load_checkpointables(
            step, {"state": abstract, "plan": None}
        )
        position = dict(metadata.custom_metadata)
        position.pop(_SEALED, None)
        verified = digests.exists(self._folder / str(step))
        return Saved(step, loaded["state"], loaded["plan"], position, verified)

    def wait(self) -> None:
        """Wait until everything saved is on disk."""
        self._checkpointer.wait()
        if self._sealing is not None:
            sealing, self._sealing = self._sealing, None
            sealing.result()

    def close(self) -> None:
        """Wait for pending saves, and release the threads."""
        try:
            self.wait()
        finally:
            self._sealer.shutdown()
            self._checkpointer.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _rank(name: str, metrics: Mapping[str, float]) -> tuple[float, float]:
    # Checkpoints of an earlier memejax lack the metrics of single arms.
    return metrics.get(name, -math.inf), -metrics["step"]


def problem(
    checkpoint: str | os.PathLike[str], *, largest: int | None = None
) -> str | None:
    """Return what is wrong with a checkpoint, in words; None if it is whole.

    One that an earlier version of memejax saved has no digests, and passes.

    Args:
        checkpoint: the folder of a step.
        largest: bytes of the largest file whose contents are read; None reads all.
    """
    path = pathlib.Path(checkpoint)
    if digests.exists(path):
        return digests.problem(path, largest=largest)
    try:
        saved = json.loads((path / "_CHECKPOINT_METADATA").read_text("utf-8"))
        unfinished = _SEALED in (saved.get("custom_metadata") or {})
    except (OSError, ValueError, AttributeError) as error:
        return f"{path / '_CHECKPOINT_METADATA'} cannot be read ({error})"
    return f"{path} was not finished: it has no digests" if unfinished else None


def verify(checkpoint: str | os.PathLike[str]) -> None:
    """Raise where a checkpoint is not as it was saved.

    Args:
        checkpoint: the folder of a step.

    Raises:
        DamagedCheckpointError: naming the step and the file.
    """
    reason = problem(checkpoint)
    if reason is not None:
        step = pathlib.Path(checkpoint).name
        raise DamagedCheckpointError(f"the checkpoint of step {step}: {reason}")
