"""Training of a head on stored features, for all seeds in one program.

Every per-job array has a leading axis of jobs, which `parallel.jit_seeds` splits over
the devices. Shape suffixes: `s` jobs, `n` memes, `d` features.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from scipy import special

from memejax import losses, metrics, parallel, steps
from memejax.data import plans
from memejax.errors import NotFiniteError
from memejax.models.feature_heads import FeatureHead, start_from_prompts
from memejax.stages.parts.heads.scaling import FEATURES, scaled, statistics
from memejax.stages.parts.optimizers import optimizer

Tree = Any
# Neighbours that vote, as in RGCL's code.
VOTERS = 20


@dataclasses.dataclass(frozen=True)
class Job:
    """One training of a head.

    Attributes:
        seed: seeds parameters, order and dropout.
        train: rows of the memes to train on, int `[m]`.
        held_out: rows of the memes that choose the checkpoint, int `[k]`.
    """

    seed: int
    train: np.ndarray
    held_out: np.ndarray


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A trained head.

    Attributes:
        variables: its params and, as batch_stats, what scales its inputs; numpy.
        logits: name of the score -> float64 `[n]`, of all memes.
        step: updates until the checkpoint that was chosen.
        rating: its AUROC on the held-out memes.
        curve: step -> AUROC on the held-out memes.
    """

    variables: Tree
    logits: Mapping[str, np.ndarray]
    step: int
    rating: float
    curve: Mapping[int, float]

    def average(self) -> np.ndarray:
        """Return the logits of the mean probability of all scores, float64 `[n]`."""
        return average(self.logits)


class HeadTrainer:
    """Trainer of one head for several jobs, compiled once.

    Attributes:
        steps: updates of each job.
    """

    def __init__(
        self,
        head: FeatureHead,
        section: ConfigDict,
        columns: Mapping[str, np.ndarray],
        labels: np.ndarray,
        *,
        jobs: Sequence[Job],
        mesh: Mesh,
        retrieval: bool = False,
        prompts: np.ndarray | None = None,
        vectorize: bool = False,
        most: int | None = None,
    ):
        """Make the trainer; nothing is computed.

        Args:
            head: the module.
            section: `heads` of a config.
            columns: `image` and `text`, float32 `[n, d]` each.
            labels: int32 `[n]`, -1 if unknown.
            jobs: of which all have as many updates.
            mesh: the devices, a divisor of the number of jobs.
            retrieval: whether to train with RGCL's loss too.
            prompts: text features of the classes' prompts, float32 `[2, d]`, that a
                MemeCLIP starts from; None to start at random.
            vectorize: whether a device runs its jobs as one batch.
            most: memes in an epoch, if other jobs have more than these; None: theirs.

        Raises:
            ValueError: if a job lacks one of the labels to train on or to choose by, or
                the optimizer's groups do not cover the head.
        """
        _check(jobs, labels)
        self._head, self._section, self._retrieval = head, section, retrieval
        self._columns, self._labels = columns, labels
        self._jobs, self._mesh, self._prompts = jobs, mesh, prompts
        most = most or max(len(job.train) for job in jobs)
        self._epoch = math.ceil(most / section.batch)
        # Whole epochs, so that all are one compiled program.
        self.steps = self._epoch * max(1, round(section.epochs))
        self._example = {name: columns[name][:2] for name in FEATURES}
        shapes = jax.eval_shape(self._params, jnp.uint32(0))
        self._tx, _, self.groups = optimizer(
            section.optimizer, params=shapes, total=self.steps
        )
        across = functools.partial(parallel.jit_seeds, mesh=mesh, vectorize=vectorize)
        self._run = across(self._updates(), donate=True)
        self._judge = across(self._held_out_scores, donate=False)
        self._score = across(self._scores, donate=False)
        self._begin = jax.jit(functools.partial(jax.lax.map, self._state))

    def fit(
        self,
        say: Callable[[str], None] = lambda line: None,
        *,
        jobs: Sequence[Job] | None = None,
    ) -> list[Fitted]:
        """Train all jobs, and keep each one's best checkpoint.

        Args:
            say: called with a progress line for each evaluation.
            jobs: as many others, with as many updates; None: those of the trainer.

        Raises:
            NotFiniteError: if the loss is not finite.
        """
        jobs = self._jobs if jobs is None else jobs
        _check(jobs, self._labels)
        plan = plans.stacked([self._plan_of(job) for job in jobs]).as_arrays()
        data = jax.device_put(
            {**self._columns, "label": self._labels}, parallel.replicated(self._mesh)
        )
        state = self._start(jobs)
        members = {"member": self._members(jobs), "rows": _padded(jobs)}
        members = parallel.put_batch(self._mesh, members)
        kept: list[Tree] = [None] * len(jobs)
        curves: list[dict[int, float]] = [{} for _ in jobs]
        for start in range(0, self.steps, self._epoch):
            stop = min(start + self._epoch, self.steps)
            rows = {k: np.moveaxis(v[start:stop], 1, 0) for k, v in plan.items()}
            rows = parallel.put_batch(self._mesh, rows)
            if self._retrieval:
                rows["member"] = members["member"]
            state, logged = self._run(state, rows, data)
            weights = state.weights()
            found = jax.device_get(self._judge(weights, members, data))
            loss = float(np.mean(logged["loss"]))
            if not math.isfinite(loss):
                raise NotFiniteError(
                    f"the loss is {loss} in the updates {start + 1} to {stop}. A lower "
                    "learning rate (heads.optimizer.groups.*.lr) or clipping "
                    "(heads.optimizer.clip) is what helps most"
                )
            # At once: a slice of every leaf for every job would take longer.
            weights = jax.device_get(weights)
            for i, job in enumerate(jobs):
                shown = average(_of_job(found, i))[: len(job.held_out)]
                rating = metrics.auroc(shown, self._labels[job.held_out])
                if rating > max(curves[i].values(), default=-1):
                    kept[i] = jax.tree.map(lambda x, i=i: np.array(x[i]), weights)
                curves[i][stop] = rating
            say(
                f"{stop:>{len(str(self.steps))}}/{self.steps} updates of "
                f"{len(jobs)} heads, loss {loss:.4f}, "
                f"auroc {np.mean([c[stop] for c in curves]):.4f}"
            )
        best = jax.tree.map(lambda *x: np.stack(x), *kept)
        best = parallel.put_batch(self._mesh, best)
        found = jax.device_get(self._score(best, members, data))
        made = []
        for i, curve in enumerate(curves):
            # Ties go to the first.
            step = max(curve, key=lambda step, curve=curve: (curve[step], -step))
            scores = _of_job(found, i)
            made.append(Fitted(kept[i], scores, step, curve[step], curve))
        return made

    def trace(self) -> None:
        """Trace the first update without compiling or running it."""
        plan = plans.stacked([self._plan_of(job) for job in self._jobs]).as_arrays()
        rows = {
            k: jax.ShapeDtypeStruct((len(self._jobs), 1, v.shape[-1]), v.dtype)
            for k, v in plan.items()
        }
        if self._retrieval:
            members = self._members(self._jobs)
            rows["member"] = jax.ShapeDtypeStruct(members.shape, bool)
        state = jax.eval_shape(lambda: self._start(self._jobs))
        jax.eval_shape(self._run, state, rows, {**self._columns, "label": self._labels})

    def _plan_of(self, job: Job) -> plans.Plan:
        """Return shuffled passes over a job's rows, in rows of the columns."""
        return plans.phased(
            [np.asarray(job.train)],
            batch=self._section.batch,
            steps=[self.steps],
            seed=2 * job.seed + 1,
        )

    def _members(self, jobs: Sequence[Job]) -> np.ndarray:
        """Return which memes each job trains on, bool `[s, n]`."""
        member = np.zeros((len(jobs), len(self._labels)), bool)
        for i, job in enumerate(jobs):
            member[i, job.train] = True
        return member

    def _params(self, seed: jax.Array) -> Tree:
        key = jax.random.fold_in(jax.random.key(seed), 1)
        made = self._head.init(key, **_named(self._example), train=False)
        params = made.get("params", {})
        if self._prompts is not None:
            params = start_from_prompts(params, jnp.asarray(self._prompts))
        return params

    def _start(self, jobs: Sequence[Job]) -> Any:
        """Return the initial states of all jobs."""
        numbers = np.asarray([job.seed for job in jobs], np.uint32)
        scaling = self._section.scaling
        scales = [statistics(self._columns, job.train, scaling=scaling) for job in jobs]
        stacked = jax.tree.map(lambda *x: np.stack(x), *scales)
        return parallel.put_batch(self._mesh, self._begin((numbers, stacked)))

    def _state(self, pair: tuple[jax.Array, Tree]) -> Any:
        """Return the initial state of a job, of its seed and what scales its inputs."""
        seed, scale = pair
        variables = {"params": self._params(seed), "batch_stats": scale}
        key = jax.random.fold_in(jax.random.key(seed), 2)
        return steps.init_state(variables, self._tx, key=key)

    def _updates(self) -> Callable[..., Any]:
        """Return the function of one job's updates, `(state, rows, data)`."""
        apply_fn = make_apply_fn(self._head)
        labels = self._labels[self._jobs[0].train]
        positives = float(np.mean(labels == 1))
        weight = (1 - positives) / positives if self._section.balance else 1.0
        if self._retrieval:
            return steps.make_retrieval_epoch(
                apply_fn, self._tx, positive_weight=weight
            )

        def logits_alone(*args: Any, **options: Any) -> Any:
            (logits, _), new = apply_fn(*args, **options)
            return {"head": logits}, new

        step = steps.make_supervised_step(
            logits_alone,
            self._tx,
            views=lambda _, batch, **__: batch,
            positive_weight=weight,
        )
        return steps.gather_steps(step)

    def _held_out_scores(self, weights: Tree, members: Tree, data: Any) -> Tree:
        """Return one job's scores of the memes that choose, `[k]` each."""
        rows = members["rows"]
        if self._retrieval:
            # A vote needs the embeddings of all memes to train on.
            return self._scores(weights, members, data, rows=rows)
        chosen = {name: data[name][rows] for name in FEATURES}
        return {"head": self._apply(weights, chosen)[0]}

    def _scores(
        self, weights: Tree, members: Tree, data: Any, *, rows: Any = slice(None)
    ) -> dict[str, Any]:
        """Return one job's scores of all memes or some rows, `[n]` each."""
        logits, embeddings = self._apply(weights, data)
        if not self._retrieval:
            return {"head": logits[rows]}
        member = members["member"]
        store = {
            "embeddings": embeddings,
            "labels": jnp.where(member, data["label"], -1),
        }
        own = jnp.where(member, jnp.arange(len(logits)), -1)
        voted = vote(embeddings[rows], store, own=own[rows])
        return {"head": logits[rows], "vote": voted}

    def _apply(self, weights: Tree, columns: Any) -> Any:
        apply_fn = make_apply_fn(self._head)
        return apply_fn(weights, columns, train=False, mutable=["batch_stats"])[0]


def _check(jobs: Sequence[Job], labels: np.ndarray) -> None:
    """Raise ValueError for a job whose memes lack one of the labels."""
    for job in jobs:
        for what, rows in (("train on", job.train), ("choose by", job.held_out)):
            if len(np.unique(labels[rows])) != 2 or labels[rows].min() < 0:
                raise ValueError(f"a head needs memes of both labels to {what}")


def _padded(jobs: Sequence[Job]) -> np.ndarray:
    """Return the rows that choose, int32 `[s, k]`; fewer are filled up."""
    most = max(len(job.held_out) for job in jobs)
    rows = [
        np.pad(job.held_out, (0, most - len(job.held_out)), mode="edge") for job in jobs
    ]
    return np.stack(rows).astype(np.int32)


def _of_job(found: Mapping[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    return {name: values[i].astype(np.float64) for name, values in found.items()}


def make_apply_fn(head: FeatureHead) -> Callable[..., Any]:
    """Make `(variables, columns, train=, ...) -> (output, new variables)` of a head.

    Its inputs are scaled by `batch_stats`, which do not change.
    """

    def apply_fn(variables: Tree, columns: Any, *, train: bool, **options: Any) -> Any:
        options.pop("mutable", None)
        scales = variables.get("batch_stats", {})
        inputs = {
            name: scaled(columns[name], **scales[name])
            if name in scales
            else columns[name]
            for name in FEATURES
        }
        own = {"params": variables["params"]}
        output = head.apply(own, **_named(inputs), train=train, **options)
        return output, {"batch_stats": scales}

    return apply_fn


def vote(embeddings: jax.Array, store: Tree, *, own: jax.Array | None = None):
    """Return the logit of the vote of the nearest training memes, `[b]`.

    A vote in [-1, 1] counts as a probability of (1 + vote) / 2.

    Args:
        embeddings: `[b, d]`.
        store: `embeddings` `[m, d]` and `labels` `[m]` of the training memes.
        own: row of each meme in the store, to be left out; -1 or None: not there.
    """
    found = losses.knn_vote(
        embeddings,
        store["embeddings"],
        store_labels=store["labels"],
        k=min(VOTERS, len(store["labels"])),
        query_index=own,
    )
    return 2 * jnp.arctanh(jnp.clip(found, -1 + 1e-6, 1 - 1e-6))


def _named(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}_bd": columns[name] for name in FEATURES}


def average(logits: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the logits of the mean probability of several scores, float64 `[n]`.

    Those of a single score are returned as they are.
    """
    (first, *others) = logits.values()
    if not others:
        return first
    # Kept from 0 and 1, whose logits are infinite.
    proba = np.mean([special.expit(x) for x in (first, *others)], axis=0)
    return special.logit(np.clip(proba, 1e-15, 1 - 1e-15))
