"""DINO: a student's crops follow what its own moving average says of two of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from memejax import losses, optim
from memejax.steps.panel import EVERY_STEP, Panel, panel_of
from memejax.steps.state import State, init_state
from memejax.steps.update import Batch, Metrics, Step, make_step
from memejax.views import Views

Tree = Any
# An arm each.
Logits = dict[str, jax.Array]


class DinoState(State):
    """A state with a teacher.

    Attributes:
      teacher: moving average of `params`.
      teacher_stats: running statistics of the teacher's own BatchNorms; they are not
        averaged, and while training it uses its batches' (as published).
      center: arm -> running mean of the teacher's logits, float32 [k].
    """

    teacher: Tree
    teacher_stats: Tree
    center: dict[str, jax.Array]

    def weights(self) -> dict[str, Tree]:
        """The teacher's variables: what is evaluated and fine-tuned."""
        return {"params": self.teacher, "batch_stats": self.teacher_stats}


@dataclasses.dataclass(frozen=True)
class DinoObjective:
    """Temperatures and momenta.

    Attributes:
      momentum: step -> momentum of the teacher.
      teacher_temperature: step -> temperature of the teacher's softmax.
      student_temperature: of the student's softmax.
      center_momentum: of the centre.
    """

    momentum: optim.Schedule
    teacher_temperature: optim.Schedule
    student_temperature: float = 0.1
    center_momentum: float = 0.9


def init_dino_state(
    variables: Mapping[str, Tree],
    tx: optax.GradientTransformation,
    *,
    key: jax.Array,
    prototypes: Mapping[str, int],
) -> DinoState:
    """A state before the first update: the teacher is the student, the centre is 0.

    Args:
      variables: of the student.
      tx: the optimizer.
      key: PRNG key of the run.
      prototypes: arm -> k.
    """
    state = init_state(variables, tx, key=key)
    fields = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
    # A copy: a buffer that is in a state twice cannot be donated.
    teacher, teacher_stats = jax.tree.map(jnp.copy, (state.params, state.batch_stats))
    return DinoState(
        **fields,
        teacher=teacher,
        teacher_stats=teacher_stats,
        center={arm: jnp.zeros(k, jnp.float32) for arm, k in prototypes.items()},
    )


def make_dino_step(
    student_fn: Callable[..., Any],
    tx: optax.GradientTransformationExtraArgs,
    *,
    teacher_fn: Callable[..., Any],
    objective: DinoObjective,
    views: Callable[..., Views],
    accumulate: int = 1,
    panel: Panel = EVERY_STEP,
    learning_rates: Callable[..., Metrics] | None = None,
    axis_name: str | None = None,
) -> Step:
    """One update of DINO; several arms learn side by side, each from its own teacher.

    Args:
      student_fn: `(variables, views, train=, rngs=, mutable=) -> ({arm: logits
        [v, b, k]}, new variables)`, the global crops first.
      tx: the optimizer; its update is given `value=loss`.
      teacher_fn: the same for the teacher, which has no drop path; it is given the
        global crops only.
      objective: temperatures and momenta.
      views: `(key, batch, train=, step_key=) -> {arm: {"crops": (globals, locals)}}`.
      accumulate: parts that a batch is worked on in; the centre is over all of them.
      panel: when the panels, of collapse and of DINO, are computed.
      learning_rates: `(opt_state, step) -> {group: rate}`, logged as `lr/<group>`.
      axis_name: device axis that the batch is split over, under pmap; `student_fn` and
        `teacher_fn` have to know it too.

    Returns:
      `step(state, batch) -> (state, metrics)`.

    References:
      Caron et al., Emerging properties in self-supervised vision transformers,
      2104.14294, algorithm 1.
    """

    def loss_fn(params, stats, batch, keys, state):
        with jax.named_scope("<views>"):
            made = views(keys["views"], batch, train=True, step_key=keys["batch"])
        student, new = student_fn(
            {"params": params, "batch_stats": stats["student"]},
            made,
            train=True,
            rngs={"dropout": keys["dropout"]},
            mutable=["batch_stats"],
        )
        # The teacher sees the global crops, and learns from no gradient.
        whole = {arm: {"crops": view["crops"][:1]} for arm, view in made.items()}
        teacher, teacher_new = teacher_fn(
            {"params": state.teacher, "batch_stats": stats["teacher"]},
            whole,
            train=True,
            mutable=["batch_stats"],
        )
        stats = {
            "student": new.get("batch_stats", {}),
            "teacher": teacher_new.get("batch_stats", {}),
        }
        weight = batch["weight"]
        with jax.named_scope("<loss>"):
            parts = _parts(student, teacher, state, weight, objective, axis_name)
        outputs = _swap_axes({"student": student, "teacher": teacher})
        return sum(parts.values()), (stats, parts, outputs)

    return make_step(
        loss_fn,
        tx,
        accumulate=accumulate,
        learning_rates=learning_rates,
        stats=lambda state: {
            "student": state.batch_stats,
            "teacher": state.teacher_stats,
        },
        finish=functools.partial(_finish, objective=objective, axis_name=axis_name),
        measure=functools.partial(
            _measure, objective=objective, panel=panel, axis_name=axis_name
        ),
        axis_name=axis_name,
    )


def _parts(
    student: Logits,
    teacher: Logits,
    state: DinoState,
    weight: jax.Array,
    objective: DinoObjective,
    axis_name: str | None,
) -> Metrics:
    """Every arm's loss, a scalar, from logits [v, b, k]."""
    parts = {}
    for arm in student:
        each, _ = losses.dino(
            student[arm],
            teacher[arm],
            center_k=state.center[arm],
            where=weight > 0,
            **_temperatures(state, objective),
        )
        parts[f"dino/{arm}"] = losses.weighted_mean(each, weight, axis_name=axis_name)
    return parts


def _finish(
    state: DinoState,
    params: Tree,
    stats: dict[str, Tree],
    outputs: dict[str, Logits],
    batch: Batch,
    *,
    objective: DinoObjective,
    axis_name: str | None,
) -> DinoState:
    """The student after its update, the teacher that follows it, and the centre."""
    logits, where = _swap_axes(outputs), batch["weight"] > 0
    center = {}
    for arm in logits["student"]:
        # Over the whole batch, whatever the parts it was worked on in.
        _, center[arm] = losses.dino(
            logits["student"][arm],
            logits["teacher"][arm],
            center_k=state.center[arm],
            center_momentum=objective.center_momentum,
            where=where,
            axis_name=axis_name,
        )
    momentum = objective.momentum(state.step)
    return state.replace(
        params=params,
        batch_stats=stats["student"],
        teacher=optim.ema(state.teacher, params, momentum=momentum),
        teacher_stats=stats["teacher"],
        center=center,
    )


def _measure(
    state: DinoState,
    outputs: dict[str, Logits],
    batch: Batch,
    *,
    objective: DinoObjective,
    panel: Panel,
    axis_name: str | None,
) -> Metrics:
    """The schedules' values, and now and then the panels of outputs and of DINO."""
    weight = batch["weight"]

    def panels(outputs):
        logits = _swap_axes(outputs)
        return {
            f"collapse/{arm}/{name}": value
            for arm in logits["student"]
            for name, value in losses.dino_panel(
                logits["student"][arm],
                logits["teacher"][arm],
                center_k=state.center[arm],
                where=weight > 0,
                axis_name=axis_name,
                **_temperatures(state, objective),
            ).items()
        }

    first = {arm: logits[:, 0] for arm, logits in outputs["student"].items()}
    scheduled = {
        "momentum": objective.momentum(state.step),
        "teacher_temperature": objective.teacher_temperature(state.step),
    }
    return {
        **{name: jnp.asarray(x, jnp.float32) for name, x in scheduled.items()},
        **panel_of(first, weight, step=state.step, panel=panel, axis_name=axis_name),
        **panel.of(panels, outputs, step=state.step),
    }


def _temperatures(state: DinoState, objective: DinoObjective) -> dict[str, Any]:
    """Both temperatures at a state's step."""
    return dict(
        student_temperature=objective.student_temperature,
        teacher_temperature=objective.teacher_temperature(state.step),
    )


def _swap_axes(logits: dict[str, Logits]) -> dict[str, Logits]:
    """[v, b, k] to [b, v, k], as a step's outputs are, or back."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), logits)
