"""A stopwatch of calls that return before the device is done."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import jax


class Stopwatch:
    """Tells the time in which calls were under way from that between them.

    A call is under way from its start to the moment its result is there, which a
    thread waits for: the caller goes on, and may start the next call meanwhile. What
    it does when no call is under way (waits for data, evaluates, saves) is between.

    Attributes:
        under_way: seconds in which at least one call was, as far as calls are done.
        between: seconds in which none was, from the first start to the last end.
    """

    def __init__(self):
        self.under_way = self.between = 0.0
        self._calls: queue.SimpleQueue[tuple[float, Any] | None] = queue.SimpleQueue()
        # A daemon: a device that never answers does not keep the program from ending.
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def add(self, began: float, result: Any) -> None:
        """Takes a call.

        Args:
            began: by `time.perf_counter`.
            result: arrays that the call makes, and that no later call is given.
        """
        self._calls.put((began, result))

    def stop(self, *, wait: bool) -> None:
        """Ends the thread; takes no more calls.

        Args:
            wait: for the calls that were taken. Without, what is not done is left out.
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
                # Who made the call meets the same error.
                return
            done = time.perf_counter()
            idle = 0.0 if reached is None else max(began - reached, 0.0)
            start = began if reached is None else reached + idle
            self.between += idle
            self.under_way += done - start
            reached = done
