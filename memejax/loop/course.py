"""The course of a plan: its chunks, and the draws between them."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from memejax import build, feeders, folder, logs, parallel


class Course:
    """The plan that a stage follows, drawn again where the stage says so.

    Attributes:
      feeder: of the plan as it is by now.
    """

    def __init__(
        self,
        feeder: feeders.Feeder,
        refresh: build.Refresh | None,
        *,
        logger: logs.Logger,
        where: pathlib.Path,
    ):
        """Begins with a plan.

        Args:
          feeder: of that plan.
          refresh: where it is drawn again; None where it never is.
          logger: gets the figures of what is drawn.
          where: the stage's folder, for the arrays of what is drawn.
        """
        self.feeder = feeder
        self._refresh, self._logger, self._where = refresh, logger, where

    def chunks(self, start: int, state: Callable[[], Any]) -> Iterator[tuple[int, Any]]:
        """Chunks from a step on; nothing is read ahead past a new plan.

        Args:
          start: the first step.
          state: gives the state that the chunks before led to.
        """
        refresh, total = self._refresh, len(self.feeder.plan)
        again = refresh.steps if refresh else ()
        while start < total:
            if refresh and start in again:
                self._draw(refresh, state(), start)
            stop = min((step for step in again if step > start), default=total)
            yield from self.feeder.chunks(start, stop)
            start = stop

    def _draw(self, refresh: build.Refresh, state: Any, step: int) -> None:
        new = refresh.draw(state, self.feeder.plan, step)
        self.feeder = self.feeder.with_plan(new.plan)
        self._logger.metrics(step, "curriculum", new.values)
        if new.arrays and parallel.is_first():
            where = self._where / "refreshes"
            where.mkdir(exist_ok=True)
            arrays: dict[str, Any] = dict(new.arrays)
            with folder.replacing(where / f"{step}.npz") as file:
                np.savez_compressed(file, **arrays)
