"""A peer in another Python, which answers lines with lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any


class Peer:
    """A process that lives for `with Peer(command) as peer`, and answers `ask`.

    Attributes:
        about: its first line, which it sends when it is ready.
    """

    def __init__(self, command: Sequence[str]):
        """Starts it and waits until it is ready.

        Raises:
            RuntimeError: if it ends before.
        """
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.about = self._answer()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, line: str) -> dict[str, Any]:
        """Its answer to a line.

        Raises:
            RuntimeError: if it ended.
        """
        if self._process.stdin is None or self._process.poll() is not None:
            raise RuntimeError(f"the peer ended with {self._process.returncode}")
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def best_threads(self) -> int:
        """Sets the number of threads that it is fastest with: 1, 2, ... or all.

        Powers of two up to the number of cores, and that; two runs of each, of which
        the faster counts.
        """
        cores = os.cpu_count() or 1
        seconds = {}
        for threads in sorted({2**i for i in range(cores.bit_length())} | {cores}):
            self.ask(f"threads {threads}")
            seconds[threads] = min(self.ask("run")["seconds"] for _ in range(2))
        best = min(seconds, key=lambda threads: seconds[threads])
        self.ask(f"threads {best}")
        return best

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            self._end()
            raise RuntimeError(f"the peer ended with {self._process.returncode}")
        return json.loads(line)

    def _end(self) -> None:
        """Its input ends, and so does it."""
        with self._process:
            pass
