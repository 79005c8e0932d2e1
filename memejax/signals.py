"""Signals that end a run, at a step that all of its processes agree on."""

from __future__ import annotations

import os
import signal
from typing import Any

import jax

from memejax import parallel


class Interrupted(SystemExit):
    """A signal ended the run after a save; exit status 128 + its number."""


class Signals:
    """Catches SIGTERM and SIGINT, so that the loop can save before it ends.

    Of several processes, what any of them receives ends all at the same step.
    """

    def __init__(self):
        self.received = 0
        self._agreement = parallel.Agreement()
        self._old: dict[int, Any] = {}

    def asked(self, *, now: bool = False) -> int:
        """The signal that a process received, 0 without any; the same in all.

        Of several processes at every tenth call only, or `now`.
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
            # Asked twice: end at once. Of several processes an exception would not do:
            # where it is caught, the end waits for the others.
            if parallel.count() > 1:
                # Not printed: the signal may have come in the middle of a print.
                os.write(
                    2,
                    f"error: process {jax.process_index()} of {parallel.count()} "
                    f"received {signal.Signals(number).name} after another signal, and "
                    "ends at once\n".encode(),
                )
                os._exit(128 + number)
            raise Interrupted(128 + number)
        self.received = number
