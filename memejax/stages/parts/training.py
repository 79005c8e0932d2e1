"""Parts of the stages that train on streamed batches: data, devices, initial states."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import datasets, feeders, parallel, steps
from memejax.data import plans
from memejax.parallel import xla
from memejax.stages.parts.choices import STEPS, check_parallel

Tree = Any


def load(config: ConfigDict, path: pathlib.Path) -> datasets.Data:
    """Load the data; only the first process writes files."""
    with parallel.first_before_others("data"):
        if not parallel.is_first():
            config = datasets.with_written_memes(config, path)
        return datasets.load(config, path)


def devices(config: ConfigDict) -> Mesh:
    """Return a mesh over the run's devices."""
    return parallel.mesh(config.parallel.devices)


def check_devices(config: ConfigDict, section: ConfigDict, mesh: Mesh) -> None:
    """Raise ValueError if a stage cannot run on the devices as configured.

    Args:
        config: the run's config.
        section: the stage's section, with `batch` and `accumulate`.
        mesh: the run's devices.
    """
    check_parallel(config.parallel)
    parallel.check_batch(mesh, section.batch)
    part = section.batch // mesh.size
    if config.parallel.mode == "pmap" and part % section.accumulate:
        raise ValueError(
            f"accumulate={section.accumulate} does not divide the {part} examples that "
            f"each of {mesh.size} devices has of a batch of {section.batch}"
        )


def device_options(config: ConfigDict, mesh: Mesh) -> dict[str, Any]:
    """Return the modules' device options: `axis_name` and `remat`."""
    mapped = config.parallel.mode == "pmap"
    return dict(
        axis_name=mesh.axis_names[0] if mapped else None,
        remat=config.parallel.remat,
    )


def make_apply_fn(
    config: ConfigDict, arms: Any, mesh: Mesh, *, method: str
) -> Callable[..., Any]:
    """Make a step's `apply_fn`: a method of the arms, on sharded parameters too."""
    apply_fn = functools.partial(arms.apply, method=method)
    if config.parallel.shard_parameters:
        return parallel.gather_parameters(apply_fn, mesh)
    return apply_fn


class Start(NamedTuple):
    """A stage's start.

    Attributes:
        abstract: the initial state's shapes and shardings.
        init: `(...) -> state`, which passes its arguments on to `replace`.
        compile_init: compiles the drawing of the variables, which takes longest.
    """

    abstract: Any
    init: Callable[..., Any]
    compile_init: Callable[[], Any]


def make_init(
    variables: Callable[[], Tree],
    state_of: Callable[[Tree], Any],
    *,
    shapes: Tree,
    mesh: Mesh,
    divided: bool = False,
    replace: Callable[..., Tree] = lambda variables: variables,
) -> Start:
    """Return a stage's abstract initial state, and the function that makes it.

    Random variables are created with their shardings, so that a state that only fits
    when divided over the devices can start.

    Args:
        variables: pure; returns random variables.
        state_of: pure; variables -> the initial state.
        shapes: of the variables, `jax.eval_shape(variables)`.
        mesh: the devices.
        divided: whether to divide large arrays over the devices (FSDP).
        replace: `(variables, ...)`, replaces random variables by those of checkpoints
            or of the previous stage; not traced.
    """

    def shardings(tree: Tree) -> Tree:
        if divided:
            return parallel.state_shardings(mesh, tree)
        return jax.tree.map(lambda _: parallel.replicated(mesh), tree)

    abstract = jax.eval_shape(state_of, shapes)
    abstract = parallel.abstract_like(abstract, shardings(abstract))

    # Each runs once: optimising it would take longer than it saves.
    once = functools.partial(jax.jit, compiler_options=xla.RUN_ONCE)
    draw = once(variables, out_shardings=shardings(shapes))
    state_shardings = jax.tree.map(lambda x: x.sharding, abstract)
    make_state = once(state_of, out_shardings=state_shardings)

    def init(*start: Any) -> Any:
        return make_state(replace(draw(), *start))

    return Start(abstract, init, lambda: draw.lower().compile())


def compiled_step(
    config: ConfigDict, step: Callable[..., Any], abstract: Any, mesh: Mesh
) -> Callable[..., Any]:
    """Compile a step for a state with the shardings of `abstract`."""
    make = STEPS[config.parallel.mode]
    if not config.parallel.shard_parameters:
        return make(step, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    return parallel.jit_step(step, mesh, shardings=shardings)


def scoring(
    config: ConfigDict, mesh: Mesh, *, batch: int
) -> Callable[[datasets.Split], feeders.Feeder]:
    """Make the function that returns one pass over a split, in order."""

    def one_pass(split: datasets.Split) -> feeders.Feeder:
        plan = plans.sequential(len(split.ids), batch=batch)
        return stream(config, split, plan, mesh)

    return one_pass


def embedding(arms: Any, views: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Make `(variables, batch) -> {arm: features [b, d]}`, compiled."""
    apply_fn = functools.partial(arms.apply, method="embeddings")
    return parallel.jit_predict(steps.make_predict(apply_fn, views=views), mesh)


def key_of(seed: int, stage: int) -> jax.Array:
    """Return the PRNG key of a stage of a seed."""
    return jax.random.fold_in(jax.random.key(seed), stage)


def total_steps(
    n: int, *, batch: int, epochs: float | None, steps: int | None = None
) -> int:
    """Return the updates of a stage on n examples, from its steps or its epochs.

    Raises:
        ValueError: unless exactly one of the two is set.
    """
    if steps is not None and epochs is None:
        return steps
    if epochs is not None and steps is None:
        return max(1, round(epochs * n / batch))
    raise ValueError(f"set one of steps and epochs, got steps={steps}, epochs={epochs}")


def positive_weight(split: datasets.Split, *, balance: bool) -> float:
    """Return the weight of the positive class: negatives over positives, or 1."""
    positives = float(np.mean(split.labels == 1))
    return (1 - positives) / positives if balance else 1.0


def plan_of(section: ConfigDict, split: datasets.Split, *, seed: int) -> plans.Plan:
    """Return a stage's plan: shuffled passes for its steps or epochs."""
    total = updates_of(section, split)
    return plans.shuffled(len(split.ids), batch=section.batch, steps=total, seed=seed)


def updates_of(section: ConfigDict, split: datasets.Split) -> int:
    """Return the updates of a stage on a split, by its steps or its epochs."""
    return total_steps(
        len(split.ids), batch=section.batch, epochs=section.epochs, steps=section.steps
    )


def stream(
    config: ConfigDict, split: datasets.Split, plan: plans.Plan, mesh: Mesh
) -> feeders.Feeder:
    """Return a feeder of batches of a split in the plan's order."""
    c = config.pipeline
    return feeders.StreamFeeder(
        split.source,
        plan,
        mesh=mesh,
        threads=c.threads,
        workers=c.workers,
    )
