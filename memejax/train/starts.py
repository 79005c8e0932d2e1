"""The starts of a run: what those before the one under way took."""

from __future__ import annotations

import pathlib
import time

from memejax import folder, logs
from memejax.train.results import read

FILE = "starts.json"


class Starts:
    """What the starts of a run took together: seconds, and the most memory.

    As a context it saves that when it is left, by whatever way. A start that is killed
    outright leaves what it saved last.
    """

    def __init__(self, where: pathlib.Path, *, began: float):
        """Goes on from what the starts before have saved.

        Args:
          where: the run's folder.
          began: when this start did, by `time.perf_counter`.
        """
        self._path, self._began = where / FILE, began
        self._before = read(self._path) or {"seconds": 0.0, "peak_memory_gb": 0.0}

    def taken(self) -> dict[str, float]:
        """By now, as results.json has them: `seconds`, `peak_memory_gb`."""
        seconds = self._before["seconds"] + time.perf_counter() - self._began
        peak = max(self._before["peak_memory_gb"], logs.peak_memory())
        return {"seconds": round(seconds, 2), "peak_memory_gb": round(peak, 3)}

    def save(self) -> None:
        """Writes what is taken by now."""
        folder.write_json(self._path, self.taken())

    def __enter__(self) -> Starts:
        return self

    def __exit__(self, *_: object) -> None:
        self.save()
