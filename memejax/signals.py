"""Signals that end a run at a step that all of its processes agree on."""

from __future__ import annotations

import os
import signal
from typing import Any

import jax

from memejax import parallel


class Interrupted(SystemExit):
    """Exit after a save because of a signal; the status is 128 + its number."""


class Signals:
    """Catch SIGTERM and SIGINT, so that the loop can save before it ends.

    A signal to any of several processes ends all of them at the same step.
    """

    def __init__(self):
        self.received = 0
        self._agreement = parallel.Agreement()
        self._old: dict[int, Any] = {}

    def asked(self, *, now: bool = False) -> int:
        """Return the signal that any process received, 0 if none; the same in all.

        Several processes agree only at every tenth call, or `now`.
        """
        return self._agreement.largest(self.received, now=now)

    def __enter__(self) -> Signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)

    def _handle(self, number: int, _: object) -> None:
        if self.received:
            # The second signal ends the run at once. With several processes an
            # exception does not: its handler would wait for the others.
            if parallel.count() > 1:
                # os.write, not print: the signal may have interrupted a print.
                os.write(
                    2,
                    f"error: process {jax.process_index()} of {parallel.count()} "
                    f"received {signal.Signals(number).name} after another signal, and "
                    "ends at once\n".encode(),
                )
                os._exit(128 + number)
            raise Interrupted(128 + number)
        self.received = number
