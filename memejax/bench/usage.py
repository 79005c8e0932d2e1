"""Resource usage of processes and GPUs, from /proc and nvidia-smi."""

from __future__ import annotations

import os
import pathlib
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

_PROC = pathlib.Path("/proc")
_NVIDIA_SMI = (
    "nvidia-smi",
    "--query-gpu=utilization.gpu,memory.used,memory.total",
    "--format=csv,noheader,nounits",
)


class Process(NamedTuple):
    """Figures of a process from /proc/<pid>/stat.

    Attributes:
        parent: process ID of the parent.
        seconds: CPU seconds of the process.
        ended_seconds: CPU seconds of its children that ended and were waited for.
        resident: resident bytes, shared pages included.
    """

    parent: int
    seconds: float
    ended_seconds: float
    resident: int


def read_stat(line: str) -> Process:
    """Parse a line of /proc/<pid>/stat.

    The second field is the program's name in brackets and may contain any character,
    so the other fields are counted from the last bracket.
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
    """Return a process and its descendants by process ID."""
    processes = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            processes[int(folder.name)] = read_stat((folder / "stat").read_text())
        except OSError:
            # The process ended meanwhile.
            continue
    found, new = {}, {root} & processes.keys()
    while new:
        found |= {pid: processes[pid] for pid in new}
        new = {pid for pid, process in processes.items() if process.parent in new}
    return found


def core_seconds(processes: dict[int, Process]) -> float:
    """CPU seconds of processes and their ended children."""
    return sum(p.seconds + p.ended_seconds for p in processes.values())


class Gpu(NamedTuple):
    """Figures of a GPU from nvidia-smi.

    Attributes:
        utilisation: share of the time in which a kernel ran, in [0, 1].
        bytes: in use. JAX reserves three quarters of a GPU when it starts, whatever it
            needs: `device_bytes` has what arrays took.
        total: bytes of the GPU.
    """

    utilisation: float
    bytes: float
    total: float


def read_gpus(text: str) -> list[Gpu]:
    """Figures of each GPU, from nvidia-smi's output."""
    rows = [line.split(",") for line in text.splitlines() if line.strip()]
    return [
        Gpu(float(used) / 100, float(mib) * 2**20, float(all_mib) * 2**20)
        for used, mib, all_mib in rows
    ]


def device_bytes(devices: Sequence[Any]) -> list[int | None]:
    """Return each device's peak of bytes in use, by its allocator; None on a CPU."""
    stats = [device.memory_stats() for device in devices]
    return [None if s is None else s.get("peak_bytes_in_use") for s in stats]


def gpus() -> list[Gpu]:
    """Return the same for this machine's GPUs; [] without nvidia-smi or its driver."""
    try:
        done = subprocess.run(_NVIDIA_SMI, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return read_gpus(done.stdout)


class Watch:
    """Monitor of this process and its children: `with Watch() as watch`.

    Afterwards, `figures` has

    - "seconds": wall time,
    - "cores": the average number of cores that these processes kept busy,
    - "core utilisation": that number as a share of the machine's cores,
    - "resident bytes": peak of all processes together, shared pages counted once for
      each process,
    - "memory utilisation": that peak as a share of the machine's memory,
    - "gpus": for each GPU, the mean "utilisation", the peak "bytes" by nvidia-smi, and
      the "total" bytes.

    A child that ended counts only if it was waited for. Linux only.
    """

    def __init__(self, every: float = 0.2):
        """Sample memory and GPUs every `every` seconds."""
        self._every, self._ended = every, threading.Event()
        self._resident: list[int] = []
        self._gpus: list[list[Gpu]] = []
        self.figures: dict[str, Any] = {}

    def __enter__(self) -> Watch:
        self._sample()
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
            "memory utilisation": max(self._resident) / _machine_bytes(),
            "gpus": [
                {
                    "utilisation": float(np.mean([now.utilisation for now in card])),
                    "bytes": max(now.bytes for now in card),
                    "total": card[0].total,
                }
                for card in zip(*filter(None, self._gpus), strict=True)
            ],
        }

    def _watch(self) -> None:
        while not self._ended.wait(self._every):
            self._sample()

    def _sample(self) -> None:
        self._resident.append(sum(p.resident for p in tree(os.getpid()).values()))
        self._gpus.append(gpus())


def _machine_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
