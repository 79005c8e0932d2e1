"""The teller of metrics, and what it remembers from one checkpoint to the next."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from memejax import logs


class NonFiniteLossError(FloatingPointError):
    """The loss is not finite; the message names the step."""


@dataclasses.dataclass
class Memory:
    """What the loop remembers, in the checkpoint: JSON only.

    Attributes:
      averages: of the metrics since the last line, as `logs.Averages` gives them.
      panel: of the last line that had one.
      warned: whether its collapse was told.
      best: rating so far; None before the first evaluation.
      since_best: evaluations since then.
      ended: whether those were too many.
      seconds: that the stage has run.
    """

    averages: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    panel: dict[str, float] = dataclasses.field(default_factory=dict)
    warned: bool = False
    best: float | None = None
    since_best: int = 0
    ended: bool = False
    seconds: float = 0.0


class Teller:
    """Takes the metrics of finished updates: averages, lines, warnings."""

    def __init__(
        self,
        logger: logs.Logger,
        memory: Memory,
        *,
        every: int,
        batch: int,
        total: int,
        is_collapsed: Callable[..., tuple[bool, str]],
    ):
        """Goes on from what is remembered.

        Args:
          logger: gets the lines.
          memory: is kept up to date.
          every: updates between lines.
          batch: examples an update.
          total: updates of the stage.
          is_collapsed: an arm's panel -> whether it shows collapse, and why.
        """
        self._logger, self._memory = logger, memory
        self._is_collapsed = is_collapsed
        self._every, self._batch, self._total = every, batch, total
        self._averages = logs.Averages(memory.averages)

    def take(self, step: int, values: Any) -> None:
        """Metrics of the chunk that ended at `step`: scalars, or [steps] each.

        Raises:
          NonFiniteLossError: naming the step.
        """
        fetched = {k: np.atleast_1d(v) for k, v in jax.device_get(values).items()}
        count = len(fetched["loss"])
        for i in range(count):
            at = step - count + 1 + i
            row = {name: float(column[i]) for name, column in fetched.items()}
            if not math.isfinite(row["loss"]):
                raise NonFiniteLossError(
                    f"the loss is {row['loss']} at step {at}; the last checkpoint is "
                    "good. A lower learning rate, a longer warm-up or clipping "
                    "(optimizer.groups.*.clip) are what helps most"
                )
            self._averages.add(row)
            if at % self._every == 0 or at == self._total:
                self._tell(at)
        self._memory.averages = self._averages.state()

    def _tell(self, step: int) -> None:
        means = self._averages.means()
        self._averages.clear()
        self._logger.progress(step, self._batch, means)
        panel = {
            name.removeprefix("collapse/"): value
            for name, value in means.items()
            if name.startswith("collapse/")
        }
        if panel:
            self._memory.panel = panel
        reasons = self._reasons()
        # A random network's outputs are all alike; give it a tenth of the run.
        if reasons and not self._memory.warned and 10 * step >= self._total:
            self._memory.warned = True
            logs.say(f"WARNING: COLLAPSED at step {step}: {'; '.join(reasons)}")
        elif panel and not reasons:
            self._memory.warned = False

    def _reasons(self) -> list[str]:
        arms: dict[str, dict[str, float]] = {}
        for name, value in self._memory.panel.items():
            arm, figure = name.split("/")
            arms.setdefault(arm, {})[figure] = value
        verdicts = {arm: self._is_collapsed(panel) for arm, panel in arms.items()}
        return [f"{arm}: {why}" for arm, (yes, why) in verdicts.items() if yes]

    def verdict(self) -> dict[str, Any]:
        """The last panel and whether it shows a collapse; {} without a panel."""
        if not self._memory.panel:
            return {}
        reasons = self._reasons()
        return {
            "panel": self._memory.panel,
            "collapsed": bool(reasons),
            "why_collapsed": reasons,
        }
