"""A stopwatch for calls that return before the device is done."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import jax


class Stopwatch:
    """Stopwatch of the time in which calls are in progress, and of the time between.

    A call is in progress from its start until its result is ready, for which a thread
    waits: the caller continues, and may start the next call meanwhile. Time in which
    no call is in progress (waiting for data, evaluating, saving) is between calls.

    Attributes:
        busy: seconds in which at least one call was in progress, of finished calls.
        between: seconds in which none was, from the first start to the last end.
    """

    def __init__(self):
        self.busy = self.between = 0.0
        self._calls: queue.SimpleQueue[tuple[float, Any] | None] = queue.SimpleQueue()
        # A daemon, so that a device that hangs does not keep the program from ending.
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def add(self, began: float, result: Any) -> None:
        """Add a call.

        Args:
            began: start of the call by `time.perf_counter`.
            result: arrays that the call returns, and that no later call is passed.
        """
        self._calls.put((began, result))

    def stop(self, *, wait: bool) -> None:
        """End the thread; no calls can be added afterwards.

        Args:
            wait: whether to wait for the added calls; else unfinished ones are ignored.
        """
        self._calls.put(None)
        if wait:
            self._thread.join()

    def _watch(self) -> None:
        reached: float | None = None
        while (call := self._calls.get()) is not None:
            began, result = call
            try:
                jax.block_until_ready(result)
            except Exception:
                # The caller gets the same error.
                return
            done = time.perf_counter()
            idle = 0.0 if reached is None else max(began - reached, 0.0)
            start = began if reached is None else reached + idle
            self.between += idle
            self.busy += done - start
            reached = done
