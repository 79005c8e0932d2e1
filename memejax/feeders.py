"""Feeders: iterators over chunks of batches on the devices.

A feeder yields `(steps, chunk)`: the number of steps in the chunk, and the chunk for
`run_chunk(state, chunk)`. `StreamFeeder` streams batches from grain, one per chunk.
`ArrayFeeder` yields stretches of the plan for data that is already on the devices; the
step gathers from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from memejax import parallel
from memejax.data import pipeline
from memejax.data.plans import Plan, sequential


class Feeder(Protocol):
    """An iterator over the chunks of a plan; the plan is part of a checkpoint."""

    plan: Plan

    def chunks(self, start: int, stop: int | None = None) -> Iterator[tuple[int, Any]]:
        """Yield the chunks of steps `start` to `stop` (exclusive; None: the end)."""
        ...

    def with_plan(self, plan: Plan) -> Feeder:
        """Return the same feeder over another plan, such as a restored one."""
        ...


class StreamFeeder:
    """One batch per chunk, decoded by grain and put on the devices a step ahead."""

    def __init__(
        self,
        source: pipeline.Source,
        plan: Plan,
        *,
        mesh: Mesh,
        threads: int,
        workers: int,
    ):
        """Create a feeder.

        Args:
            source: as for `pipeline.stream`, like `threads` and `workers`.
            plan: [steps, batch].
            mesh: devices to put the batches on.
            threads: see `pipeline.stream`.
            workers: see `pipeline.stream`.

        Raises:
            ValueError: if the batch cannot be split over the mesh.
        """
        parallel.check_batch(mesh, plan.batch)
        self.plan = plan
        self._source = source
        self._mesh = mesh
        self._options = dict(threads=threads, workers=workers)

    def with_plan(self, plan: Plan) -> StreamFeeder:
        """Return a feeder over another plan, with the same source and devices."""
        return StreamFeeder(self._source, plan, mesh=self._mesh, **self._options)

    def chunks(
        self, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Yield (1, batch on the devices) for each step.

        Each process reads only the rows of its own devices.
        """
        rows, waiting = parallel.own_rows(self._mesh, self.plan.batch), None
        own = Plan(**{k: v[..., rows] for k, v in self.plan.as_arrays().items()})
        for batch in pipeline.stream(
            self._source, own, start=start, stop=stop, **self._options
        ):
            # The transfer of the next batch runs while the step works on this one.
            following = parallel.put_batch(self._mesh, batch)
            if waiting is not None:
                yield 1, waiting
            waiting = following
        if waiting is not None:
            yield 1, waiting


class ArrayFeeder:
    """Stretches of a plan for data on the devices, for all seeds at once."""

    def __init__(
        self,
        columns: Mapping[str, Any],
        plan: Plan,
        *,
        mesh: Mesh,
        marks: Sequence[int],
    ):
        """Put the data on the devices.

        Args:
            columns: name -> array [n, ...], replicated on every device.
            plan: [steps, seeds, batch].
            mesh: devices that the seeds are split over.
            marks: no chunk crosses a multiple of any of these, so that the loop can
                stop there.

        Raises:
            ValueError: if the plan has no axis of seeds, the seeds cannot be split over
                the mesh, or a mark is not positive.
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
        """Return a feeder over another plan, with the same data and devices."""
        return ArrayFeeder(self._columns, plan, mesh=self._mesh, marks=self._marks)

    def chunks(
        self, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Yield chunks of `rows`, the plan's part [seeds, steps, batch], and `data`."""
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


class GatherFeeder:
    """One row of the plan per chunk, beside the data on the devices, as `data`."""

    def __init__(self, data: Mapping[str, Any], plan: Plan):
        """Create a feeder of data that is on the devices already."""
        self.plan = plan
        self._data = data

    def with_plan(self, plan: Plan) -> GatherFeeder:
        """Return a feeder over another plan, with the same data."""
        return GatherFeeder(self._data, plan)

    def chunks(
        self, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Yield (1, row of the plan with `data`) for each step."""
        for step in range(start, len(self.plan) if stop is None else stop):
            yield 1, self.plan.row(step) | {"data": self._data}


def one_pass(split: Any, *, mesh: Mesh, batch: int) -> GatherFeeder:
    """Return one pass over a split in order, its columns put on every device.

    Args:
        split: with `source` and `ids`, as `datasets.Split`.
        mesh: the devices.
        batch: examples per step.
    """
    plan = sequential(len(split.ids), batch=batch)
    data = jax.device_put(dict(split.source), parallel.replicated(mesh))
    return GatherFeeder(data, plan)
