"""The devices of a step and their memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from typing import Any

import jax


def devices_of(state: Any) -> list[Any]:
    """Return the devices that hold a state; the first local one if none does."""
    arrays = [x for x in jax.tree.leaves(state) if isinstance(x, jax.Array)]
    found = {d for x in arrays for d in x.sharding.device_set}
    return sorted(found, key=lambda device: device.id) or jax.local_devices()[:1]


def local(devices: Sequence[Any]) -> list[Any]:
    """Devices of this process, the ones that its profiler sees."""
    return [d for d in devices if d.process_index == jax.process_index()]


def platform(device: Any) -> str:
    """Platform name as in `lax.platform_dependent`, which distinguishes GPU vendors."""
    if device.platform != "gpu":
        return device.platform
    return "rocm" if "rocm" in device.client.platform_version else "cuda"


def memory(compiled: Any, devices: Sequence[Any]) -> dict[str, int]:
    """Bytes of a step per device as planned by the compiler, and peak bytes in use."""
    found = {}
    planned = compiled.memory_analysis()
    if planned is not None:
        found = {
            "arguments": planned.argument_size_in_bytes,
            "results": planned.output_size_in_bytes,
            "of them in place of arguments": planned.alias_size_in_bytes,
            "temporaries": planned.temp_size_in_bytes,
            "code": planned.generated_code_size_in_bytes,
        }
    # There are no such counts on a CPU.
    counts = local(devices)[0].memory_stats() or {}
    if "peak_bytes_in_use" in counts:
        found["device, at most"] = counts["peak_bytes_in_use"]
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    found["host, at most"] = most * (1 if sys.platform == "darwin" else 1024)
    return found
