"""The log of a stage: metrics.jsonl, TensorBoard events, progress on the console.

Of several processes the first writes and prints, and the others do neither.

A line of metrics.jsonl is a function of the config but for its `clock`: resuming a
run drops the lines past the checkpoint and writes the same ones again.
"""

from __future__ import annotations

import io
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from memejax import atomic, parallel
from memejax.console import ProgressBar
from memejax.console import clock as clock
from memejax.console import say as say
from memejax.console import say_if_slow as say_if_slow
from memejax.console import terminal as terminal

if TYPE_CHECKING:
    from rich.console import Console

# "split" of a line about a plan drawn from the current model.
DRAWN = "curriculum"


class Averages:
    """Means of the metrics since the last line; NaN values count as absent."""

    def __init__(self, sums: Mapping[str, list[float]] | None = None):
        self._sums = {k: list(v) for k, v in (sums or {}).items()}

    def add(self, metrics: Mapping[str, float]) -> None:
        """Add the metrics of one update."""
        for name, value in metrics.items():
            if not math.isnan(value):
                entry = self._sums.setdefault(name, [0.0, 0])
                entry[0] += value
                entry[1] += 1

    def means(self) -> dict[str, float]:
        """Return name -> mean."""
        return {name: total / count for name, (total, count) in self._sums.items()}

    def clear(self) -> None:
        """Start over."""
        self._sums = {}

    def state(self) -> dict[str, list[float]]:
        """Return JSON from which `Averages(...)` continues."""
        return {name: list(entry) for name, entry in self._sums.items()}


class Logger:
    """Writes a stage's metrics.jsonl and TensorBoard events, and shows its progress.

    On a terminal the progress is a live bar, elsewhere a line per report.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        title: str,
        total: int,
        start: int = 0,
        console: Console | None = None,
    ):
        """Open the files of a stage that continues after update `start`.

        Args:
            folder: the stage's.
            title: start of its progress lines.
            total: updates of the stage.
            start: updates done already; lines past it are dropped.
            console: terminal for the bar, which begins with the first update that is
                done; None takes standard output, if it is a terminal.
        """
        self._title, self._total = title, total
        self._since, self._measured = (time.perf_counter(), start), False
        self._file = self._events = self._console = self._bar = None
        if not parallel.is_first():
            return
        self._folder = pathlib.Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "metrics.jsonl"
        _keep_lines(path, start)
        self._file = path.open("a", encoding="utf-8")
        # Imported here: it takes a second, and longer if torch is installed.
        from tensorboardX import SummaryWriter

        self._events = SummaryWriter(
            str(self._folder), purge_step=start if start else None
        )
        self._console = terminal() if console is None else console

    def metrics(
        self, step: int, split: str, values: Mapping[str, float], **clock: float
    ) -> None:
        """Write a line of metrics.jsonl and its scalars."""
        if self._file is None or self._events is None:
            return
        line = {"step": step, "split": split, **values}
        if clock:
            line["clock"] = clock
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in {**values, **clock}.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def histogram(self, step: int, name: str, values: np.ndarray) -> None:
        """Write a histogram for TensorBoard."""
        if self._events is not None:
            self._events.add_histogram(name, np.asarray(values), step)

    def advance(self, step: int, batch: int, loss: float) -> None:
        """Note that the updates up to `step` are done, and move the bar."""
        if not self._measured:
            # The first updates of a start compile the step: they are in no later rate.
            self._since, self._measured = (time.perf_counter(), step), True
            if self._console is not None:
                self._bar = ProgressBar(
                    self._console, title=self._title, total=self._total, start=step
                )
        if self._bar is not None:
            self._bar.advance(step, batch=batch, loss=loss)

    def progress(self, step: int, batch: int, values: Mapping[str, float]) -> None:
        """Write the mean metrics up to `step` and the rates; print them without bar."""
        now = time.perf_counter()
        then, before = self._since
        self._since = (now, step)
        speed = (step - before) / max(now - then, 1e-9)
        self.metrics(
            step,
            "train",
            values,
            steps_per_second=round(speed, 4),
            images_per_second=round(speed * batch, 2),
        )
        if self._console is not None:
            return
        left = (self._total - step) / max(speed, 1e-9)
        shown = "  ".join(
            f"{name} {value:.4g}"
            for name, value in values.items()
            if "/" not in name and name != "grad_norm"
        )
        say(
            f"{self._title} {step:>{len(str(self._total))}}/{self._total}"
            f"  {100 * step / self._total:3.0f}%  {shown}"
            f"  {speed:.2f} steps/s  {speed * batch:.0f} images/s"
            f"  ETA {clock(left)}"
        )

    def close_bar(self) -> None:
        """Give the terminal back."""
        if self._bar is not None:
            self._bar.close()

    def close(self) -> None:
        """Close the bar and the files."""
        self.close_bar()
        if self._file is not None and self._events is not None:
            self._file.close()
            self._events.close()


def publish(
    folder: str | os.PathLike[str],
    *,
    scalars: Mapping[str, float],
    pictures: Mapping[str, bytes],
) -> None:
    """Write figures and PNG pictures that belong to no update for TensorBoard."""
    if not parallel.is_first():
        return
    # Imported here: see Logger.
    from PIL import Image
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder)) as events:
        for name, value in scalars.items():
            events.add_scalar(name, value, 0)
        for name, png in pictures.items():
            image = Image.open(io.BytesIO(png)).convert("RGB")
            events.add_image(name, np.asarray(image), 0, dataformats="HWC")


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def peak_memory() -> float:
    """Return the largest resident size of this process so far, in GB (10^9 bytes)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def _keep_lines(path: pathlib.Path, last: int) -> None:
    """Drop the lines past step `last`, and a line that a kill cut off.

    The plan that is drawn before the next update is drawn, and logged, again.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        found = json.loads(line)
        if found["step"] > last:
            break
        if (found["step"], found["split"]) != (last, DRAWN):
            kept.append(line)
    atomic.write_text(path, "".join(kept))
