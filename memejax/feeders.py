"""What the loop eats: chunks of batches that lie on the device.

A feeder is an iterator over `(steps, chunk)`: how many steps the chunk holds, and
the chunk, which `run_chunk(state, chunk)` consumes. `StreamFeeder` streams batches
from grain, one a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from jax.sharding import Mesh

from memejax import parallel
from memejax.data import pipeline
from memejax.data.plans import Plan


class Feeder(Protocol):
    """Chunks of a plan, and the plan, which is part of a checkpoint."""

    plan: Plan

    def chunks(self, start: int) -> Iterator[tuple[int, Any]]:
        """The chunks from step `start` of the plan on."""
        ...

    def with_plan(self, plan: Plan) -> Feeder:
        """The same feeder over another plan, as a checkpoint holds it."""
        ...


class StreamFeeder:
    """One batch a chunk, decoded by grain and put on the devices a step ahead."""

    def __init__(
        self,
        source: pipeline.Source,
        plan: Plan,
        *,
        mesh: Mesh,
        threads: int,
        workers: int,
    ):
        """Takes what `pipeline.stream` takes, and the mesh that batches go to.

        Raises:
          ValueError: if the batch cannot be split over the mesh.
        """
        parallel.check_batch(mesh, plan.batch)
        self.plan = plan
        self._source = source
        self._mesh = mesh
        self._options = dict(threads=threads, workers=workers)

    def with_plan(self, plan: Plan) -> StreamFeeder:
        """The same source and devices, another plan."""
        return StreamFeeder(self._source, plan, mesh=self._mesh, **self._options)

    def chunks(self, start: int = 0) -> Iterator[tuple[int, Any]]:
        """Batches from step `start` on, each as (1, batch on the devices)."""
        waiting = None
        for batch in pipeline.stream(
            self._source, self.plan, start=start, **self._options
        ):
            # The transfer of the next batch runs while the step works on this one.
            coming = parallel.put_batch(self._mesh, batch)
            if waiting is not None:
                yield 1, waiting
            waiting = coming
        if waiting is not None:
            yield 1, waiting
