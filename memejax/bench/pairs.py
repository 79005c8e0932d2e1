"""Timing two sides in turn in one process, and writing the figures as JSON."""

from __future__ import annotations

import json
import os
import pathlib
import platform
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def in_turn(
    ours: Callable[[], float], peer: Callable[[], float], *, pairs: int
) -> dict[str, Any]:
    """Run both sides once to warm up, then in turn, and compare them pair by pair.

    Args:
        ours: runs our side once and returns its speed (larger is better).
        peer: the same for the peer.
        pairs: number of timed runs of each side.

    Returns:
        Speeds of both, the median of the pairwise ratios ours / peer, and its 95 %
        interval by bootstrap over the pairs.
    """
    for warm_up in (ours, peer):
        warm_up()
    speeds = []
    for number in range(pairs):
        # The order alternates because the second side finds warmer caches.
        if number % 2:
            b = peer()
            speeds.append((ours(), b))
        else:
            a = ours()
            speeds.append((a, peer()))
    ratios = np.array([a / b for a, b in speeds])
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (10_000, pairs)), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return {
        "ours": [a for a, _ in speeds],
        "peer": [b for _, b in speeds],
        "ratio": float(np.median(ratios)),
        "ratio_low": float(low),
        "ratio_high": float(high),
    }


def write(name: str, figures: Mapping[str, Any], out: str | None) -> None:
    """Print a benchmark's figures, and write them with machine and versions."""
    # Imported here to keep --help fast.
    from memejax import folder

    result = {
        "benchmark": name,
        "machine": {"cpu": cpu(), "cores": os.cpu_count()},
        "environment": folder.environment(),
        **figures,
    }
    print(json.dumps(figures, indent=1))
    if out is not None:
        path = pathlib.Path(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        folder.write_json(path, result)
        print(f"written to {path}")


def cpu() -> str:
    """Name of the processor."""
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
