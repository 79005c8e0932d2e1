"""A classifier of small pictures, all seeds at once: from a config to a stage.

Every per-seed array has a leading axis of seeds, which `parallel.jit_seeds` splits over
the devices. Shape suffixes: s seeds, m rows, c classes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import augment, curriculum, feeders, parallel, steps
from memejax.data import plans
from memejax.datasets.labelled import LabelledData
from memejax.models import convnet, perceptron, resnet
from memejax.stage import Refresh, Refreshed, Stage
from memejax.stages.parts import curricula
from memejax.stages.parts.choices import DTYPES, check_parallel, choose
from memejax.stages.parts.optimizers import optimizer

Tree = Any
NETWORKS: dict[str, Callable[..., Any]] = {
    "perceptron": perceptron.Perceptron,
    "convnet": convnet.ConvNet,
    "resnet": resnet.DropoutResNet,
}
# Rows per forward pass when scoring.
_ROWS = 500


class Outputs:
    """Outputs of a network for some pictures, each computed on first use."""

    def __init__(self, module: Any, variables: Tree, inputs: jax.Array, labels, passes):
        self._module, self._variables = module, variables
        self._apply = functools.partial(module.apply, variables)
        self._inputs, self.labels, self._passes = inputs, labels, passes

    @functools.cached_property
    def trunk(self) -> Any:
        """Features before the first dropout."""
        return self._apply(self._inputs, method="trunk")

    @functools.cached_property
    def log_probs(self) -> jax.Array:
        """Log-probabilities without dropout, [m, c]."""
        logits = self._apply(self.trunk, train=False, method="head")
        return jax.nn.log_softmax(logits)

    @functools.cached_property
    def probs(self) -> jax.Array:
        """Probabilities without dropout, [m, c]."""
        return jnp.exp(self.log_probs)

    @functools.cached_property
    def passes(self) -> jax.Array:
        """Log-probabilities of dropout passes, [passes, m, c]."""
        key, count = self._passes
        return curriculum.mc_dropout(
            lambda inputs: inputs,
            lambda features, key: self._apply(
                features,
                train=True,
                shared_mask=True,
                rngs={"dropout": key},
                method="head",
            ),
            self.trunk,
            key=key,
            passes=count,
        )

    @functools.cached_property
    def gradient_length(self) -> jax.Array:
        """Expected length of the last layer's gradient, [m]."""

        def loss(out: Tree, features: Any, label: jax.Array) -> jax.Array:
            params = {**self._variables["params"], "out": out}
            logits = self._module.apply(
                {**self._variables, "params": params},
                jax.tree.map(lambda x: x[None], features),
                train=False,
                method="head",
            )
            return -jax.nn.log_softmax(logits[0])[label]

        return curriculum.expected_gradient_length(
            loss, self._variables["params"]["out"], self.trunk, probs=self.probs
        )


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A stage and functions to score its network.

    Attributes:
        stage: for the loop.
        errors: state -> {"validation": [s], "test": [s]}, error rates.
        uncertainty: (state, names) -> {name: [s, m]} of the training rows.
    """

    stage: Stage
    errors: Callable[[Any], dict[str, np.ndarray]]
    uncertainty: Callable[[Any, Sequence[str]], dict[str, np.ndarray]]


def make_classifier(
    config: ConfigDict,
    data: LabelledData,
    *,
    seeds: Sequence[int],
    mesh: Mesh,
    baseline: Mapping[str, np.ndarray] | None = None,
) -> Classifier:
    """Make a network for every seed, trained in the order of its curriculum.

    Seed i has the same initial state, rows and dropout under every curriculum.

    Args:
        config: the run's config.
        data: loaded for these seeds.
        seeds: the seeds.
        mesh: devices that the seeds are split over.
        baseline: score -> uncertainty [s, m] for "bac" to rank by.

    Raises:
        ValueError: for an unknown network, score or kind, or a number out of range.
    """
    c = config.curriculum
    choose(curriculum.SCORES, c.score, "curriculum.score")
    check_parallel(config.parallel, seeds=True)
    module = _module(config, len(data.classes))
    inputs = _inputs(data.images)
    abstract, init, step, groups = _learner(
        config, module, inputs, data.images, seeds, mesh
    )
    across = functools.partial(
        parallel.jit_seeds, mesh=mesh, vectorize=config.parallel.vectorize
    )
    run = across(steps.gather_steps(step), donate=True)
    # One copy, for training and for scoring.
    columns = jax.device_put(
        {"image": data.images, "label": data.labels, "truth": data.truth},
        parallel.replicated(mesh),
    )
    scorer = _Scorer(module, inputs, data, columns, mesh, across, c.passes)
    sources = [
        curricula.Source(rows, data.labels[rows], data.easy) for rows in data.train
    ]
    size = dict(batch=config.train.batch, steps=config.train.steps)
    plan = plans.stacked(
        [
            curricula.first_plan(
                c,
                source,
                seed=seed,
                uncertainty=None if baseline is None else baseline[c.score][i],
                **size,
            )
            for i, (seed, source) in enumerate(zip(seeds, sources, strict=True))
        ]
    )
    refresh_at = curricula.refresh_steps(c, steps=config.train.steps)
    marks = (config.train.eval_every, config.checkpoint.every, config.log.every)
    trained_on = {name: columns[name] for name in ("image", "label")}

    def run_chunk(state, chunk):
        state, values = run(state, chunk["rows"], chunk["data"])
        return state, jax.tree.map(lambda x: jnp.mean(x, axis=0), values)

    def uncertainty(state, names):
        return scorer.scores(state, data.train, tuple(names))

    stage = Stage(
        init=init,
        abstract=abstract,
        run_chunk=run_chunk,
        feeder=feeders.ArrayFeeder(trained_on, plan, mesh=mesh, marks=marks),
        scoring=_no_splits,
        eval_every=config.train.eval_every,
        groups=groups,
        refresh=Refresh(refresh_at, _redraw(c, sources, seeds, uncertainty)),
    )
    return Classifier(stage, scorer.errors, uncertainty)


def _no_splits(_: Any) -> Any:
    raise ValueError("classify scores its own rows, not splits")


def _module(config: ConfigDict, classes: int) -> Any:
    c = config.model
    make = choose(NETWORKS, c.network, "model.network")
    if c.network not in c:
        raise ValueError(
            f"model.network={c.network!r} is switched on after the colon: "
            f"--config=configs/{config.name}.py:{config.preset},network={c.network}"
        )
    dtype = choose(DTYPES, c.dtype, "model.dtype")
    return make(classes=classes, dtype=dtype, **c[c.network])


def _inputs(images: np.ndarray) -> Callable[[jax.Array], jax.Array]:
    """Make the function that standardises by these pictures' statistics."""
    # Of the first pictures: the statistics need not be exact, only the same for all.
    pixels = images[:5000].astype(np.float64) / 255
    mean, std = float(pixels.mean()), float(pixels.std())
    return lambda x: (x - mean) / std


def _augmentation(c: ConfigDict) -> Callable[..., jax.Array] | None:
    """Make the random view of the section `train.augment`; None without one."""
    if not any(c.values()):
        return None
    return functools.partial(augment.random_view, **c)


def _learner(config, module, inputs, images, seeds, mesh):
    """Return all seeds' abstract initial state, `init`, one seed's step, groups."""
    one = inputs(augment.to_float(images[:2]))

    def start(seed: jax.Array) -> Tree:
        key = jax.random.fold_in(jax.random.key(seed), 1)
        return module.init(key, one, train=False)

    shapes = jax.eval_shape(start, jnp.uint32(0))
    # The learning rates are the same for all seeds: not worth logging.
    tx, _, groups = optimizer(
        config.train.optimizer, params=shapes["params"], total=config.train.steps
    )
    step = steps.make_classify_step(
        module.apply,
        tx,
        inputs=inputs,
        augmentation=_augmentation(config.train.augment),
    )

    def begin(seed: jax.Array) -> Any:
        key = jax.random.fold_in(jax.random.key(seed), 2)
        return steps.init_state(start(seed), tx, key=key)

    every = jax.jit(lambda seeds: jax.lax.map(begin, seeds))
    numbers = np.asarray(list(seeds), np.uint32)

    def init() -> Any:
        return parallel.put_batch(mesh, every(numbers))

    abstract = parallel.abstract_like(
        jax.eval_shape(every, numbers), parallel.split(mesh)
    )
    return abstract, init, step, groups


class _Scorer:
    """Scores of all seeds' networks on rows of the data, in chunks of rows."""

    def __init__(self, module, inputs, data, columns, mesh, across, passes):
        self._module, self._inputs, self._data, self._mesh = module, inputs, data, mesh
        self._across, self._passes = across, passes
        self._columns = columns
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def errors(self, state: Any) -> dict[str, np.ndarray]:
        """Return split -> error rate [s]."""

        def wrong(outputs: Outputs, truth: jax.Array) -> jax.Array:
            return jnp.argmax(outputs.log_probs, axis=-1) != truth

        seeds = len(self._data.train)
        parts = {
            "validation": self._data.validation,
            "test": np.tile(self._data.test, (seeds, 1)),
        }
        return {
            name: self._over("wrong", wrong, state, rows).mean(axis=1)
            for name, rows in parts.items()
        }

    def scores(
        self, state: Any, rows: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        """Return score -> uncertainty [s, m] of rows [s, m]."""
        for name in names:
            choose(curriculum.SCORES, name, "score")

        def all_of(outputs: Outputs, _) -> dict[str, jax.Array]:
            return {name: curriculum.SCORES[name](outputs) for name in names}

        return self._over(names, all_of, state, rows)

    def _over(self, name, score, state, rows: np.ndarray) -> Any:
        """Compute `score(outputs, truth)` for every row, [s, m] each."""
        m = rows.shape[1]
        chunks = -(-m // _ROWS)
        # The last row is repeated until the chunks are full.
        padded = rows[:, np.minimum(np.arange(chunks * _ROWS), m - 1)]
        padded = padded.reshape(len(rows), chunks, _ROWS)
        if name not in self._compiled:
            self._compiled[name] = self._across(self._runner(score), donate=False)
        given = (state.weights(), state.key, state.step)
        found = self._compiled[name](
            given, parallel.put_batch(self._mesh, padded), self._columns
        )
        return jax.tree.map(
            lambda x: np.asarray(x).reshape(len(rows), -1)[:, :m], found
        )

    def _runner(self, score):
        def of_a_seed(given, chunks, columns):
            variables, key, step = given
            # A separate stream: scoring does not change training's randomness.
            key = jax.random.fold_in(jax.random.fold_in(key, 9), step)

            def of_a_chunk(rows):
                outputs = Outputs(
                    self._module,
                    variables,
                    self._inputs(augment.to_float(columns["image"][rows])),
                    columns["label"][rows],
                    (key, self._passes),
                )
                return score(outputs, columns["truth"][rows])

            return jax.lax.map(of_a_chunk, chunks)

        return of_a_seed


def _redraw(c, sources, seeds, uncertainty):
    """Make the function that redraws all seeds' plans."""

    def draw(state: Any, plan: plans.Plan, step: int) -> Refreshed:
        u = uncertainty(state, (c.score,))[c.score]
        made = [
            curricula.redrawn(
                c,
                plans.Plan(*(x[:, i] for x in plan.as_arrays().values())),
                source,
                uncertainty=u[i],
                step=step,
                seed=seed,
            )
            for i, (seed, source) in enumerate(zip(seeds, sources, strict=True))
        ]
        figures = [
            curricula.shares(draw, source.labels)
            for (_, draw), source in zip(made, sources, strict=True)
        ]
        return Refreshed(
            plans.stacked([plan for plan, _ in made]),
            curricula.mean_figures(figures),
            # Of the first seed, as an example.
            {"uncertainty": u[0], "probs": made[0][1].probs, "rows": sources[0].rows},
        )

    return draw
