"""The peer: a PyTorch training loop over transformers' encoders."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
import transformers

from memejax.bench.train_step import peer_networks
from memejax.bench.train_step.problem import DECAY, LR, Problem, data


class Trainer:
    """Networks, AdamW and a batch on a device.

    Attributes:
        network: maps a batch to its loss.
        trained: trained parameters by name.
        parameters: number of trained parameters.
        batch: examples per step.
        threads: number of threads; None if left at the default.
        first_seconds: seconds of the first step, in which libraries choose algorithms
            and compile.
        losses: loss of the last step of each run.
    """

    def __init__(self, given: Problem, *, device: str):
        """Make the networks of a case on "cpu" or "cuda"."""
        self._device, self.batch = device, given.batch
        self._half = given.dtype == "bfloat16"
        if device == "cuda":
            torch.backends.cudnn.benchmark = True
            # TF32, which jax uses too.
            torch.set_float32_matmul_precision("high")
        torch.manual_seed(0)
        network = peer_networks.make(given).train()
        network = network.to(device, memory_format=torch.channels_last)
        self.network: Any = network
        self.trained = {k: p for k, p in network.named_parameters() if p.requires_grad}
        self.parameters = sum(p.numel() for p in self.trained.values())
        self._optimizer = torch.optim.AdamW(
            self.trained.values(), lr=LR, weight_decay=DECAY, fused=True
        )
        self._forward = torch.compile(network) if device == "cuda" else network
        self._batch = {k: _tensor(v).to(device) for k, v in data(given).items()}
        self.threads: int | None = None
        self.first_seconds = 0.0
        self.losses: list[float] = []

    def run(self, count: int) -> float:
        """Train for `count` steps after an uncounted one; return examples/s."""
        loss = self._step()
        if self._device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(count):
            loss = self._step()
        # Waits for the device.
        if self._device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        self.losses.append(loss.item())
        return self.batch * count / seconds

    def warm_up(self, count: int) -> None:
        """Run the first step, and on a CPU set the fastest number of threads."""
        began = time.perf_counter()
        self._step()
        if self._device == "cuda":
            torch.cuda.synchronize()
        self.first_seconds = time.perf_counter() - began
        if self._device != "cpu":
            return
        speeds = {}
        for threads in sorted({1, torch.get_num_threads(), os.cpu_count() or 1}):
            torch.set_num_threads(threads)
            self.run(1)
            speeds[threads] = self.run(count)
        self.threads = max(speeds, key=lambda threads: speeds[threads])
        torch.set_num_threads(self.threads)

    def memory(self) -> int | None:
        """Peak bytes in use on the device; None on a CPU."""
        return torch.cuda.max_memory_allocated() if self._device == "cuda" else None

    def about(self) -> dict[str, Any]:
        """Versions, device and threads."""
        cuda = self._device == "cuda"
        return {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "threads": self.threads,
            "compiled": cuda,
        }

    def _step(self) -> torch.Tensor:
        self._optimizer.zero_grad()
        with torch.autocast(self._device, dtype=torch.bfloat16, enabled=self._half):
            loss = self._forward(self._batch)
        loss.backward()
        self._optimizer.step()
        if isinstance(self.network, peer_networks.Dino):
            self.network.update_teacher()
        return loss.detach()


def _tensor(array: Any) -> torch.Tensor:
    """Convert to PyTorch's layout: channels first in the shape, last in memory."""
    tensor = torch.from_numpy(array)
    if tensor.ndim == 5:
        return tensor.permute(0, 1, 4, 2, 3)
    if tensor.ndim == 4:
        return tensor.permute(0, 3, 1, 2)
    return tensor.long() if array.dtype.kind == "i" else tensor
