"""What processes and graphics cards use, from /proc and nvidia-smi."""

from __future__ import annotations

import os
import pathlib
import subprocess
import threading
import time
from typing import Any, NamedTuple

import numpy as np

_PROC = pathlib.Path("/proc")
_ASK = (
    "nvidia-smi",
    "--query-gpu=utilization.gpu,memory.used",
    "--format=csv,noheader,nounits",
)


class Process(NamedTuple):
    """A line of /proc/<pid>/stat.

    Attributes:
        parent: its process' number.
        seconds: of the cores, its own.
        ended_seconds: of the cores, of its children that ended and were waited for.
        resident: bytes, pages shared with others included.
    """

    parent: int
    seconds: float
    ended_seconds: float
    resident: int


def read_stat(line: str) -> Process:
    """What a line of /proc/<pid>/stat says.

    The second field is the program's name in brackets and may hold anything, so that
    the others are counted from its last bracket.
    """
    fields = line.rpartition(")")[2].split()
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    user, system, ended_user, ended_system = (int(v) / tick for v in fields[11:15])
    return Process(
        parent=int(fields[1]),
        seconds=user + system,
        ended_seconds=ended_user + ended_system,
        resident=int(fields[21]) * page,
    )


def tree(root: int) -> dict[int, Process]:
    """A process and all that descend from it, by number."""
    everyone = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            everyone[int(folder.name)] = read_stat((folder / "stat").read_text())
        except OSError:
            # It ended meanwhile.
            continue
    found, new = {}, {root} & everyone.keys()
    while new:
        found |= {pid: everyone[pid] for pid in new}
        new = {p for p, process in everyone.items() if process.parent in new}
    return found


def core_seconds(processes: dict[int, Process]) -> float:
    """Seconds of the cores that processes and their ended children used."""
    return sum(p.seconds + p.ended_seconds for p in processes.values())


def read_gpus(text: str) -> list[tuple[float, float]]:
    """Utilisation in [0, 1] and bytes in use of each card, from nvidia-smi's lines."""
    rows = [line.split(",") for line in text.splitlines() if line.strip()]
    return [(float(used) / 100, float(mib) * 2**20) for used, mib in rows]


def gpus() -> list[tuple[float, float]]:
    """The same of this machine's cards; none without nvidia-smi or its driver."""
    try:
        done = subprocess.run(_ASK, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return read_gpus(done.stdout)


class Watch:
    """Watches this process and its children for a while: `with Watch() as watch`.

    After it, `figures` has

    - "seconds": by the clock,
    - "cores": that were busy on the average, for these processes,
    - "core utilisation": the share of the machine's cores that is,
    - "resident bytes": of all processes together, at most, where pages that several
      share count several times,
    - "gpus": a card, its mean "utilisation" and "bytes" at most.

    A child that ended counts once it was waited for. Linux only.
    """

    def __init__(self, every: float = 0.2):
        """Looks every so many seconds."""
        self._every, self._ended = every, threading.Event()
        self._resident: list[int] = []
        self._gpus: list[list[tuple[float, float]]] = []
        self.figures: dict[str, Any] = {}

    def __enter__(self) -> Watch:
        self._look()
        self._before = core_seconds(tree(os.getpid()))
        self._began = time.perf_counter()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._began
        used = core_seconds(tree(os.getpid())) - self._before
        self._ended.set()
        self._thread.join()
        self.figures = {
            "seconds": seconds,
            "cores": used / seconds,
            "core utilisation": used / seconds / (os.cpu_count() or 1),
            "resident bytes": max(self._resident),
            "gpus": [
                {
                    "utilisation": float(np.mean([used for used, _ in card])),
                    "bytes": max(held for _, held in card),
                }
                for card in zip(*filter(None, self._gpus), strict=True)
            ],
        }

    def _watch(self) -> None:
        while not self._ended.wait(self._every):
            self._look()

    def _look(self) -> None:
        self._resident.append(sum(p.resident for p in tree(os.getpid()).values()))
        self._gpus.append(gpus())
