"""DINO: training a student on all crops to match its moving average on two."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from memejax import losses, optim
from memejax.steps.objective import LossAux, Metrics, Reduced, StepObjective
from memejax.steps.panel import EVERY_STEP, Panel, collapse_metrics
from memejax.steps.state import State, init_state
from memejax.steps.update import Step, make_step
from memejax.steps.views import Views

Tree = Any
# Arm -> logits.
Logits = dict[str, jax.Array]


class DinoState(State):
    """A state with a teacher.

    Attributes:
        teacher: moving average of `params`.
        teacher_stats: running statistics of the teacher's own BatchNorms; they are not
            averaged, and in training the teacher uses batch statistics (as published).
        center: arm -> running mean of the teacher's logits, float32 `[k]`.
    """

    teacher: Tree
    teacher_stats: Tree
    center: dict[str, jax.Array]

    def weights(self) -> dict[str, Tree]:
        """Return the teacher's variables, for evaluation and fine-tuning."""
        return {"params": self.teacher, "batch_stats": self.teacher_stats}


@dataclasses.dataclass(frozen=True)
class DinoObjective:
    """Temperatures and momenta of DINO.

    Attributes:
        momentum: step -> momentum of the teacher.
        teacher_temperature: step -> temperature of the teacher's softmax.
        student_temperature: temperature of the student's softmax.
        center_momentum: momentum of the centre.
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
    """Make the initial state: the teacher equals the student, the centre is 0.

    Args:
        variables: variables of the student.
        tx: the optimizer.
        key: PRNG key of the run.
        prototypes: arm -> k, its number of prototypes.
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
    """Make the training step of DINO, in which each arm has its own teacher.

    Args:
        student_fn: `(variables, views, train=, rngs=, mutable=) -> ({arm: logits
            [v, b, k]}, new variables)`, the global crops first.
        tx: the optimizer; its update receives `value=loss`.
        teacher_fn: the same for the teacher, without drop path; it receives only the
            global crops.
        objective: temperatures and momenta.
        views: `(key, batch, train=, step_key=) -> {arm: {"crops": (globals, locals)}}`.
        accumulate: number of parts that a batch is processed in; the centre uses all.
        panel: steps at which the panels of collapse and of DINO are computed.
        learning_rates: `(opt_state, step) -> {group: rate}`, logged as `lr/<group>`.
        axis_name: device axis over which the batch is split, under pmap; `student_fn`
            and `teacher_fn` must use the same.

    Returns:
        `step(state, batch) -> (state, metrics)`.

    References:
        Caron et al., Emerging properties in self-supervised vision transformers,
        2104.14294, algorithm 1.
    """

    return make_step(
        _Dino(student_fn, teacher_fn, views, objective, panel, axis_name),
        tx,
        accumulate=accumulate,
        learning_rates=learning_rates,
        axis_name=axis_name,
    )


@dataclasses.dataclass(frozen=True)
class _Dino(StepObjective):
    """DINO of a model; the arguments of `make_dino_step`."""

    student_fn: Callable[..., Any]
    teacher_fn: Callable[..., Any]
    views: Callable[..., Views]
    schedules: DinoObjective
    panel: Panel
    axis_name: str | None

    def stats(self, state):
        """Return the running statistics of the student and of the teacher."""
        return {"student": state.batch_stats, "teacher": state.teacher_stats}

    def loss(self, params, state, *, stats, batch, keys):
        """Compute the sum of the arms' losses, each loss, and all logits."""
        with jax.named_scope("<views>"):
            views = self.views(keys["views"], batch, train=True, step_key=keys["batch"])
        student, new = self.student_fn(
            {"params": params, "batch_stats": stats["student"]},
            views,
            train=True,
            rngs={"dropout": keys["dropout"]},
            mutable=["batch_stats"],
        )
        # The teacher gets only the global crops, and no gradient.
        global_crops = {
            arm: {"crops": view["crops"][:1]} for arm, view in views.items()
        }
        teacher, teacher_new = self.teacher_fn(
            {"params": state.teacher, "batch_stats": stats["teacher"]},
            global_crops,
            train=True,
            mutable=["batch_stats"],
        )
        stats = {
            "student": new.get("batch_stats", {}),
            "teacher": teacher_new.get("batch_stats", {}),
        }
        weight, parts = batch["weight"], {}
        with jax.named_scope("<loss>"):
            for arm in student:
                # The centre moves once per update, in `finish`.
                values, _ = losses.dino(
                    student[arm],
                    teacher[arm],
                    center_k=state.center[arm],
                    where=weight > 0,
                    **self._temperatures(state),
                )
                parts[f"dino/{arm}"] = losses.weighted_mean(
                    values, weight, axis_name=self.axis_name
                )
        outputs = {"student": student, "teacher": teacher}
        return sum(parts.values()), LossAux(stats, parts, outputs)

    def reduce(self, state, outputs, *, batch):
        """Keep sums for the centre and DINO's panel, and the student's first crop.

        All logits of a batch of 64, at the paper's 10 crops and 65536 prototypes, are
        200 MB; those of the first crop, for the collapse panel, 17 MB.
        """
        student, teacher = outputs["student"], outputs["teacher"]
        where = batch["weight"] > 0

        def panel_sums(outputs: dict[str, Logits]) -> dict[str, Metrics]:
            return {
                arm: losses.sum_dino(
                    logits,
                    outputs["teacher"][arm],
                    center_k=state.center[arm],
                    where=where,
                    **self._temperatures(state),
                )
                for arm, logits in outputs["student"].items()
            }

        sums = {
            "center": {
                arm: losses.sum_teacher(logits, where=where)
                for arm, logits in teacher.items()
            },
            "panel": self.panel.compute(panel_sums, outputs, step=state.step),
        }
        return Reduced({arm: logits[0] for arm, logits in student.items()}, sums)

    def measure(self, state, reduced, *, batch):
        """Compute the schedules' values and, at its steps, the collapse panels."""

        def panels(sums: dict[str, Metrics]) -> Metrics:
            return {
                f"collapse/{arm}/{name}": value
                for arm, of_arm in sums.items()
                for name, value in losses.dino_panel_from_sums(
                    of_arm, axis_name=self.axis_name
                ).items()
            }

        scheduled = {
            "momentum": self.schedules.momentum(state.step),
            "teacher_temperature": self.schedules.teacher_temperature(state.step),
        }
        return {
            **{name: jnp.asarray(x, jnp.float32) for name, x in scheduled.items()},
            **collapse_metrics(
                reduced.kept,
                batch["weight"],
                step=state.step,
                panel=self.panel,
                axis_name=self.axis_name,
            ),
            **self.panel.compute(panels, reduced.sums["panel"], step=state.step),
        }

    def finish(self, state, params, *, stats, reduced):
        """Return the next state, with the updated student, teacher and centre."""
        momentum = self.schedules.momentum(state.step)
        return state.replace(
            params=params,
            batch_stats=stats["student"],
            teacher=optim.ema(state.teacher, params, momentum=momentum),
            teacher_stats=stats["teacher"],
            # Over the whole batch, whatever its number of parts.
            center={
                arm: losses.update_center_from_sums(
                    state.center[arm],
                    sums,
                    momentum=self.schedules.center_momentum,
                    axis_name=self.axis_name,
                )
                for arm, sums in reduced.sums["center"].items()
            },
        )

    def _temperatures(self, state: DinoState) -> dict[str, Any]:
        """Return both temperatures at a state's step."""
        return dict(
            student_temperature=self.schedules.student_temperature,
            teacher_temperature=self.schedules.teacher_temperature(state.step),
        )
