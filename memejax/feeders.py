"""What the loop eats: chunks of batches that lie on the device.

A feeder is an iterator over `(steps, chunk)`: how many steps the chunk holds, and
the chunk, which `run_chunk(state, chunk)` consumes. `StreamFeeder` streams batches
from grain, one a chunk. `ArrayFeeder` gives stretches of the plan beside data that
lies on the devices already; the step gathers from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from memejax import parallel
from memejax.data import pipeline
from memejax.data.plans import Plan


class Feeder(Protocol):
    """Chunks of a plan, and the plan, which is part of a checkpoint."""

    plan: Plan

    def chunks(self, start: int, stop: int | None = None) -> Iterator[tuple[int, Any]]:
        """The chunks of the plan's steps from `start` to before `stop` (the end)."""
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

    def chunks(
        self, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Batches of the steps, each as (1, batch on the devices).

        Each process reads the rows of its own devices only.
        """
        rows, waiting = parallel.own_rows(self._mesh, self.plan.batch), None
        own = Plan(**{k: v[..., rows] for k, v in self.plan.as_arrays().items()})
        for batch in pipeline.stream(
            self._source, own, start=start, stop=stop, **self._options
        ):
            # The transfer of the next batch runs while the step works on this one.
            coming = parallel.put_batch(self._mesh, batch)
            if waiting is not None:
                yield 1, waiting
            waiting = coming
        if waiting is not None:
            yield 1, waiting


class ArrayFeeder:
    """Stretches of a plan over data on the devices, for all seeds at once."""

    def __init__(
        self,
        columns: Mapping[str, Any],
        plan: Plan,
        *,
        mesh: Mesh,
        marks: Sequence[int],
    ):
        """Puts the data on the devices.

        Args:
            columns: name -> array [n, ...]; every device gets all of it.
            plan: [steps, seeds, batch].
            mesh: over which the seeds are split.
            marks: no chunk goes past a multiple of any of these, so that the loop can
                stop there.

        Raises:
            ValueError: if the plan has no axis of seeds, they cannot be split over the
                mesh, or a mark is not positive.
        """
        if plan.index.ndim != 3:
            raise ValueError(
                f"expected a plan [steps, seeds, batch], got {plan.index.shape}"
            )
        if not marks or min(marks) < 1:
            raise ValueError(f"marks must be at least 1, got {tuple(marks)}")
        parallel.check_batch(mesh, plan.index.shape[1])
        self.plan = plan
        self._columns = jax.device_put(dict(columns), parallel.replicated(mesh))
        self._mesh = mesh
        self._marks = tuple(marks)

    def with_plan(self, plan: Plan) -> ArrayFeeder:
        """The same data and devices, another plan."""
        return ArrayFeeder(self._columns, plan, mesh=self._mesh, marks=self._marks)

    def chunks(
        self, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Each chunk: `rows`, the plan's part as [seeds, steps, batch], and `data`."""
        stop = len(self.plan) if stop is None else stop
        while start < stop:
            end = min(stop, *((start // mark + 1) * mark for mark in self._marks))
            rows = {
                name: np.moveaxis(array[start:end], 0, 1)
                for name, array in self.plan.as_arrays().items()
            }
            yield (
                end - start,
                {"rows": parallel.put_batch(self._mesh, rows), "data": self._columns},
            )
            start = end
