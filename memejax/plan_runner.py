"""Chunks of a plan that may be drawn again while its stage runs."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from memejax import atomic, feeders, logs, parallel
from memejax.stage import Refresh


class PlanRunner:
    """The plan of a stage, drawn again before the updates of its `Refresh`.

    Attributes:
        feeder: of the current plan.
    """

    def __init__(
        self,
        feeder: feeders.Feeder,
        refresh: Refresh | None,
        *,
        logger: logs.Logger,
        path: pathlib.Path,
    ):
        """Start with the plan of a feeder.

        Args:
            feeder: of the first plan.
            refresh: its draws; None if it is never drawn again.
            logger: gets the figures of each draw.
            path: the stage's folder, for the arrays of each draw.
        """
        self.feeder = feeder
        self._refresh, self._logger, self._path = refresh, logger, path

    def chunks(self, start: int, state: Callable[[], Any]) -> Iterator[tuple[int, Any]]:
        """Yield the chunks from a step on; nothing is read ahead past a new plan.

        Args:
            start: the first step.
            state: gives the state after the chunks before.
        """
        refresh, total = self._refresh, len(self.feeder.plan)
        again = refresh.steps if refresh else ()
        while start < total:
            if refresh and start in again:
                self._draw(refresh, state(), start)
            stop = min((step for step in again if step > start), default=total)
            yield from self.feeder.chunks(start, stop)
            start = stop

    def _draw(self, refresh: Refresh, state: Any, step: int) -> None:
        new = refresh.draw(state, self.feeder.plan, step)
        self.feeder = self.feeder.with_plan(new.plan)
        self._logger.metrics(step, logs.DRAWN, new.values)
        if new.arrays and parallel.is_first():
            drawn = self._path / "refreshes"
            drawn.mkdir(exist_ok=True)
            arrays: dict[str, Any] = dict(new.arrays)
            with atomic.replacing(drawn / f"{step}.npz") as file:
                np.savez_compressed(file, **arrays)
