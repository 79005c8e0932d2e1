"""What a run says: progress on the console, metrics.jsonl, TensorBoard.

Of several processes the first says it, and the others nothing.

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
from typing import Any

import numpy as np

from memejax import parallel


def say(text: str) -> None:
    """One line (or several) for the person at the console."""
    if parallel.is_first():
        print(text, flush=True)


class Averages:
    """Means of the metrics since the last line; NaN values count as absent."""

    def __init__(self, sums: Mapping[str, list[float]] | None = None):
        self._sums = {k: list(v) for k, v in (sums or {}).items()}

    def add(self, metrics: Mapping[str, float]) -> None:
        """Takes one step's metrics."""
        for name, value in metrics.items():
            if not math.isnan(value):
                entry = self._sums.setdefault(name, [0.0, 0])
                entry[0] += value
                entry[1] += 1

    def means(self) -> dict[str, float]:
        """Name -> mean."""
        return {name: total / count for name, (total, count) in self._sums.items()}

    def clear(self) -> None:
        """Starts over."""
        self._sums = {}

    def state(self) -> dict[str, list[float]]:
        """JSON from which `Averages(...)` goes on."""
        return {name: list(entry) for name, entry in self._sums.items()}


class Logger:
    """Writes a stage's metrics.jsonl and TensorBoard events, and its progress."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        title: str,
        total: int,
        start: int = 0,
    ):
        """Opens the files of a stage that goes on from update `start`.

        Args:
            folder: the stage's.
            title: how progress lines begin.
            total: updates of the stage.
            start: updates done already; lines past it are dropped.
        """
        self._title, self._total = title, total
        self._since = (time.perf_counter(), start)
        self._file = self._events = None
        if not parallel.is_first():
            return
        self._folder = pathlib.Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "metrics.jsonl"
        _keep_lines(path, start)
        self._file = path.open("a", encoding="utf-8")
        # Imported here: it takes a second, and longer where torch is installed.
        from tensorboardX import SummaryWriter

        self._events = SummaryWriter(
            str(self._folder), purge_step=start if start else None
        )

    def metrics(
        self, step: int, split: str, values: Mapping[str, float], **clock: float
    ) -> None:
        """A line of metrics.jsonl and its scalars."""
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
        """A histogram for TensorBoard."""
        if self._events is not None:
            self._events.add_histogram(name, np.asarray(values), step)

    def progress(self, step: int, batch: int, values: Mapping[str, float]) -> None:
        """The mean metrics up to `step`, with speeds, on console and in the files."""
        now = time.perf_counter()
        then, before = self._since
        self._since = (now, step)
        speed = (step - before) / max(now - then, 1e-9)
        left = (self._total - step) / max(speed, 1e-9)
        self.metrics(
            step,
            "train",
            values,
            steps_per_second=round(speed, 4),
            images_per_second=round(speed * batch, 2),
        )
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

    def close(self) -> None:
        """Closes the files."""
        if self._file is not None and self._events is not None:
            self._file.close()
            self._events.close()


def publish(
    folder: str | os.PathLike[str],
    *,
    scalars: Mapping[str, float],
    pictures: Mapping[str, bytes],
) -> None:
    """Puts figures and PNG pictures that belong to no update into TensorBoard."""
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


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def peak_memory() -> float:
    """Largest resident size of this process so far, in GB (10^9 bytes)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def _keep_lines(path: pathlib.Path, last: int) -> None:
    """Drops the lines past step `last`, and a line that a kill cut off."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        if json.loads(line)["step"] > last:
            break
        kept.append(line)
    part = path.with_suffix(".part")
    part.write_text("".join(kept), encoding="utf-8")
    part.replace(path)
