"""Data-parallel training on paper: what sending gradients costs.

Pure functions; `python -m memejax.bench.scaling_paper` prints tables of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

KINDS = ("strong", "weak")
METHODS = ("ring", "master")


@dataclasses.dataclass(frozen=True)
class Link:
    """What joins devices.

    Attributes:
        bandwidth: bytes/s that one device sends while it receives as many.
        latency: seconds that a message takes whatever its size.
    """

    bandwidth: float
    latency: float = 0.0

    def __post_init__(self):
        if self.bandwidth <= 0 or self.latency < 0:
            raise ValueError(
                f"got {self}, expected a bandwidth above 0 and a latency of at least 0"
            )


# Bandwidths as published, but for PCIe's, which is what copies reach of 15.75 GB/s.
# Latencies are orders of magnitude; for a gradient of 1 GB they do not matter.
LINKS: Mapping[str, Link] = {
    # H100 and H200: 900 GB/s, both ways counted.
    "nvlink4": Link(450e9, 3e-6),
    # RTX 8000: 100 GB/s both ways, and between the two of a pair only.
    "nvlink2": Link(50e9, 3e-6),
    "pcie3": Link(12e9, 10e-6),
    # 400 Gb/s, an adapter a device.
    "infiniband": Link(50e9, 15e-6),
}


def ring_seconds(nbytes: float, devices: int, *, link: Link) -> float:
    """Seconds of an all-reduce in a ring.

    2 (p - 1) (bytes / (p bandwidth) + latency)

    The array is cut into p parts; p - 1 times every device sends one part on and adds
    the one that it gets, and p - 1 times more the sums go round. A ring is as fast as
    its slowest link.

    Args:
        nbytes: of the gradients, at least 0.
        devices: p, at least 1; one needs no time.
        link: between neighbours.

    Raises:
        ValueError: for an argument out of its range.

    References:
        Patarasuk and Yuan 2009, doi:10.1016/j.jpdc.2008.09.002.
    """
    _check(nbytes, devices)
    return 2 * (devices - 1) * (nbytes / (devices * link.bandwidth) + link.latency)


def nodes_seconds(
    nbytes: float, devices: int, *, inside: Link, across: Link, node: int = 8
) -> float:
    """Seconds of an all-reduce over nodes, rings in them and rings between them.

    ring(bytes, node) inside, and ring(bytes / node, devices / node) across

    A node's devices sum up a part each, each sends its part round the nodes by its own
    adapter, and the node puts the parts together. One phase waits for the other.

    Args:
        nbytes: of the gradients, at least 0.
        devices: at most `node`, or a multiple of it.
        inside: between devices of a node.
        across: between nodes, for each device.
        node: devices of a node, at least 1.

    Raises:
        ValueError: for an argument out of its range.
    """
    _check(nbytes, devices)
    if node < 1 or (devices > node and devices % node):
        raise ValueError(
            f"got {devices} devices in nodes of {node}, expected at most one node or "
            "whole ones"
        )
    local = min(devices, node)
    return ring_seconds(nbytes, local, link=inside) + ring_seconds(
        nbytes / local, devices // local, link=across
    )


def master_seconds(nbytes: float, devices: int, *, link: Link) -> float:
    """Seconds of what PyTorch's nn.DataParallel copies in a step.

    2 (p - 1) (bytes / bandwidth + latency)

    The master sends its parameters to every other device, one after another, and
    gathers all their gradients over the same link. Pictures and outputs are small
    beside them and left out; so is that one Python process starts the work of all.

    Args, Raises: as of `ring_seconds`.
    """
    _check(nbytes, devices)
    return 2 * (devices - 1) * (nbytes / link.bandwidth + link.latency)


def predicted(
    step_seconds: float,
    gradient_bytes: float,
    *,
    devices: int,
    link: Link,
    across: Link | None = None,
    node: int = 8,
    kind: str = "weak",
    fixed_seconds: float = 0.0,
    overlap: float = 0.0,
    method: str = "ring",
) -> float:
    """Seconds of a data-parallel step.

    compute = step                       weak: the batch grows with the devices
            = fixed + (step - fixed) / p strong: they share one
    seconds = compute + max(0, communication - overlap compute)

    Assumed is that devices are alike and never wait for each other or for data, that
    a part of a batch takes its part of the time but for `fixed_seconds` (starting
    operations, the optimizer's update, which every device does in full), that all
    gradients go in one piece, and that sending them slows no arithmetic. Real steps
    take longer.

    Args:
        step_seconds: of the step on one device, above 0.
        gradient_bytes: of all gradients, at least 0.
        devices: p, at least 1.
        link: between the devices (of a node).
        across: between nodes; None puts all devices into one.
        node: devices of a node.
        kind: "strong" or "weak".
        fixed_seconds: of `step_seconds`, those that no smaller batch saves.
        overlap: share of a device's step during which gradients are sent, in [0, 1].
        method: "ring" (all-reduce), or "master" (nn.DataParallel), which sends before
            the forward and after the backward pass: there `overlap` is 0.

    Returns:
        Seconds.

    Raises:
        ValueError: for an argument out of its range or an unknown name.
    """
    if kind not in KINDS or method not in METHODS:
        raise ValueError(
            f"got kind={kind!r}, method={method!r}, expected of {KINDS}, {METHODS}"
        )
    if not 0 <= fixed_seconds <= step_seconds or step_seconds <= 0:
        raise ValueError(
            f"got a step of {step_seconds} s, {fixed_seconds} s of it fixed, expected "
            "0 <= fixed <= step and step > 0"
        )
    if not 0 <= overlap <= 1 or (method == "master" and overlap):
        raise ValueError(
            f"got overlap={overlap} for {method!r}, expected in [0, 1], and 0 for "
            "'master'"
        )
    if method == "master":
        if across is not None:
            raise ValueError("method 'master' is for one node, got a link across nodes")
        sending = master_seconds(gradient_bytes, devices, link=link)
    elif across is None:
        sending = ring_seconds(gradient_bytes, devices, link=link)
    else:
        sending = nodes_seconds(
            gradient_bytes, devices, inside=link, across=across, node=node
        )
    compute = step_seconds
    if kind == "strong":
        compute = fixed_seconds + (step_seconds - fixed_seconds) / devices
    return compute + max(0.0, sending - overlap * compute)


def efficiency(first: float, then: float, *, devices: int, kind: str) -> float:
    """Speed-up a device: of examples a second on p devices, over p times those on one.

    strong: t_1 / (p t_p), weak: t_1 / t_p

    Args:
        first: seconds of a step on one device, above 0.
        then: seconds of a step on p, above 0.
        devices: p, at least 1.
        kind: "strong", of one batch, or "weak", of p times the batch.

    Returns:
        1 where nothing is lost; p times it is the speed-up.

    Raises:
        ValueError: for an argument out of its range.
    """
    if kind not in KINDS or min(first, then) <= 0 or devices < 1:
        raise ValueError(
            f"got {first} s, {then} s, {devices} devices, {kind!r}: expected seconds "
            f"above 0, at least 1 device, and one of {KINDS}"
        )
    return first / (devices * then if kind == "strong" else then)


def fixed_part(seconds: Mapping[int, float]) -> float:
    """Seconds of a step that do not grow with its batch, by the line through two.

    Args:
        seconds: of a step by batch, for two batches.

    Returns:
        Where the line meets a batch of 0, in [0, the smaller one's seconds].

    Raises:
        ValueError: unless there are two batches.
    """
    if len(seconds) != 2:
        raise ValueError(f"got batches {sorted(seconds)}, expected two")
    (small, low), (large, high) = sorted(seconds.items())
    return min(max(low - small * (high - low) / (large - small), 0.0), low)


def _check(nbytes: float, devices: int) -> None:
    if nbytes < 0 or devices < 1:
        raise ValueError(
            f"got {nbytes} bytes on {devices} devices, expected at least 0 and 1"
        )
