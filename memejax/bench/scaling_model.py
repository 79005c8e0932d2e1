"""A model of data-parallel training: the cost of communicating gradients.

Pure functions; `python -m memejax.bench.scaling_paper` prints tables of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

KINDS = ("strong", "weak")
METHODS = ("ring", "master")


@dataclasses.dataclass(frozen=True)
class Link:
    """A link between devices.

    Attributes:
        bandwidth: bytes/s that a device sends while it receives as many.
        latency: seconds per message, whatever its size.
    """

    bandwidth: float
    latency: float = 0.0

    def __post_init__(self):
        if self.bandwidth <= 0 or self.latency < 0:
            raise ValueError(
                f"got {self}, expected a bandwidth above 0 and a latency of at least 0"
            )


# Published bandwidths, except for PCIe: the rate that copies reach of 15.75 GB/s.
# Latencies are orders of magnitude; for a gradient of 1 GB they do not matter.
LINKS: Mapping[str, Link] = {
    # H100 and H200: 900 GB/s, the sum of both directions.
    "nvlink4": Link(450e9, 3e-6),
    # RTX 8000: 100 GB/s in both directions, only between the two of a pair.
    "nvlink2": Link(50e9, 3e-6),
    "pcie3": Link(12e9, 10e-6),
    # 400 Gb/s, one adapter per device.
    "infiniband": Link(50e9, 15e-6),
}


def ring_seconds(nbytes: float, devices: int, *, link: Link) -> float:
    """Seconds of an all-reduce in a ring.

    2 (p - 1) (bytes / (p bandwidth) + latency)

    The array is split into p parts; p - 1 times every device sends on one part and adds
    the one it receives, and p - 1 more times the sums are passed around. A ring is as
    fast as its slowest link.

    Args:
        nbytes: bytes of the gradients, at least 0.
        devices: p, at least 1; 0 seconds for one device.
        link: link between neighbours.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Patarasuk and Yuan 2009, doi:10.1016/j.jpdc.2008.09.002.
    """
    _check(nbytes, devices)
    return 2 * (devices - 1) * (nbytes / (devices * link.bandwidth) + link.latency)


def nodes_seconds(
    nbytes: float, devices: int, *, inside: Link, across: Link, node: int = 8
) -> float:
    """Seconds of an all-reduce over nodes, with rings in them and between them.

    ring(bytes, node) inside, and ring(bytes / node, devices / node) across

    Each device of a node sums one part, sends it around the nodes by its own adapter,
    and the node collects the parts. The phases do not overlap.

    Args:
        nbytes: bytes of the gradients, at least 0.
        devices: number of devices, at most `node` or a multiple of it.
        inside: link between devices of a node.
        across: link between nodes, for each device.
        node: devices per node, at least 1.

    Raises:
        ValueError: if an argument is out of range.
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
    """Seconds of the copies of PyTorch's nn.DataParallel in a step.

    2 (p - 1) (bytes / bandwidth + latency)

    The master sends its parameters to every other device, one after another, and
    gathers all their gradients over the same link. Pictures and outputs are small in
    comparison and left out; so is the cost of one Python process driving all devices.

    Args, Raises: as in `ring_seconds`.
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
    """Predicted seconds of a data-parallel step.

    compute = step                       weak: the batch grows with the devices
            = fixed + (step - fixed) / p strong: they share one
    seconds = compute + max(0, communication - overlap compute)

    Assumes that devices are equal and never wait for each other or for data, that a
    part of a batch takes its part of the time except for `fixed_seconds` (launching
    operations, the optimizer's update, which every device does in full), that all
    gradients are sent in one piece, and that sending does not slow down arithmetic.
    Real steps take longer.

    Args:
        step_seconds: seconds of the step on one device, above 0.
        gradient_bytes: bytes of all gradients, at least 0.
        devices: p, at least 1.
        link: link between the devices (of a node).
        across: link between nodes; all devices are in one node if None.
        node: devices per node.
        kind: "strong" or "weak".
        fixed_seconds: part of `step_seconds` that does not shrink with the batch.
        overlap: share of a device's step during which gradients are sent, in [0, 1].
        method: "ring" (all-reduce), or "master" (nn.DataParallel), which sends before
            the forward and after the backward pass, so that `overlap` must be 0.

    Returns:
        The seconds.

    Raises:
        ValueError: if an argument is out of range or a name is unknown.
    """
    if kind not in KINDS or method not in METHODS:
        raise ValueError(
            f"got kind={kind!r}, method={method!r}, expected one of {KINDS} and one of "
            f"{METHODS}"
        )
    if not 0 <= fixed_seconds <= step_seconds or step_seconds <= 0:
        raise ValueError(
            f"got step_seconds={step_seconds}, fixed_seconds={fixed_seconds}, expected "
            "0 <= fixed_seconds <= step_seconds and step_seconds > 0"
        )
    if not 0 <= overlap <= 1 or (method == "master" and overlap):
        raise ValueError(
            f"got overlap={overlap} for {method!r}, expected a number in [0, 1], and 0 "
            "for 'master'"
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
    """Efficiency of scaling, the speed-up in examples per second per device.

    strong: t_1 / (p t_p), weak: t_1 / t_p

    Args:
        first: seconds of a step on one device, above 0.
        then: seconds of a step on p devices, above 0.
        devices: p, at least 1.
        kind: "strong" (the same batch) or "weak" (p times the batch).

    Returns:
        The efficiency, 1 for perfect scaling; p times it is the speed-up.

    Raises:
        ValueError: if an argument is out of range.
    """
    if kind not in KINDS or min(first, then) <= 0 or devices < 1:
        raise ValueError(
            f"got {first} s, {then} s, {devices} devices, {kind!r}: expected seconds "
            f"above 0, at least 1 device, and one of {KINDS}"
        )
    return first / (devices * then if kind == "strong" else then)


def fixed_part(seconds: Mapping[int, float]) -> float:
    """Seconds of a step that do not grow with its batch, extrapolated from two sizes.

    Args:
        seconds: batch size -> seconds of a step, for two sizes.

    Returns:
        The line through both at a batch size of 0, clipped to [0, the smaller one's
        seconds].

    Raises:
        ValueError: unless there are two batch sizes.
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
