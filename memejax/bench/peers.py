"""A peer in another Python process, controlled by lines of text and JSON."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any


class Peer:
    """A process that runs during `with Peer(command) as peer`, and answers requests.

    Attributes:
        about: its first answer, sent when it is ready.
    """

    def __init__(self, command: Sequence[str]):
        """Start the process and wait until it is ready.

        Raises:
            RuntimeError: if the process ends before.
        """
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.about = self._answer()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def request(self, line: str) -> dict[str, Any]:
        """Send a line and return the answer.

        Raises:
            RuntimeError: if the process has ended.
        """
        if self._process.stdin is None or self._process.poll() is not None:
            raise RuntimeError(f"the peer ended with {self._process.returncode}")
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def best_threads(self) -> int:
        """Set and return the fastest number of threads: 1, 2, 4, ... or all cores.

        Powers of two up to the number of cores, and that number; the faster of two runs
        of each counts.
        """
        cores = os.cpu_count() or 1
        seconds = {}
        for threads in sorted({2**i for i in range(cores.bit_length())} | {cores}):
            self.request(f"threads {threads}")
            seconds[threads] = min(self.request("run")["seconds"] for _ in range(2))
        best = min(seconds, key=lambda threads: seconds[threads])
        self.request(f"threads {best}")
        return best

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            self._end()
            raise RuntimeError(f"the peer ended with {self._process.returncode}")
        return json.loads(line)

    def _end(self) -> None:
        """Close the input, on which the process ends, and wait for it."""
        with self._process:
            pass
