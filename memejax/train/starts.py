"""Seconds and memory of the starts of a run."""

from __future__ import annotations

import pathlib
import time

from memejax import folder, logs, parallel

FILE = "starts.json"


class Starts:
    """Seconds and peak memory over all starts of a run.

    As a context manager it saves them on leaving, after an error too. Of a start that
    is killed the last save remains.
    """

    def __init__(self, path: pathlib.Path, *, began: float):
        """Continue from the file of the starts before.

        Args:
            path: the run's folder.
            began: time of this start, by `time.perf_counter`.
        """
        self._path, self._began = path / FILE, began
        before = parallel.from_first(folder.read_json(self._path))
        self._before = before or {"seconds": 0.0, "peak_memory_gb": 0.0}

    def taken(self) -> dict[str, float]:
        """Return `seconds` and `peak_memory_gb` until now, as in results.json."""
        seconds = self._before["seconds"] + time.perf_counter() - self._began
        peak = max(self._before["peak_memory_gb"], logs.peak_memory())
        return {"seconds": round(seconds, 2), "peak_memory_gb": round(peak, 3)}

    def save(self) -> None:
        """Write them."""
        folder.write_json(self._path, self.taken())

    def __enter__(self) -> Starts:
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        try:
            self.save()
        except OSError:
            # The first error says more, such as what is saved on a full disk.
            if error is None:
                raise
