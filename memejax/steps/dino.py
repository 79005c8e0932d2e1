"""DINO: a student matches on all crops what its moving average outputs on two."""

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
        tx: the optimizer; its update receives `value=loss`.
        teacher_fn: the same for the teacher, which has no drop path; it is given the
            global crops only.
        objective: temperatures and momenta.
        views: `(key, batch, train=, step_key=) -> {arm: {"crops": (globals, locals)}}`.
        accumulate: parts that a batch is worked on in; the centre is over all of them.
        panel: when the panels, of collapse and of DINO, are computed.
        learning_rates: `(opt_state, step) -> {group: rate}`, logged as `lr/<group>`.
        axis_name: device axis that the batch is split over, under pmap; `student_fn`
            and `teacher_fn` have to know it too.

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
        """Those of the student and those of the teacher."""
        return {"student": state.batch_stats, "teacher": state.teacher_stats}

    def loss(self, params, state, *, stats, batch, keys):
        """The sum of the arms' losses, each of them, and all logits."""
        with jax.named_scope("<views>"):
            made = self.views(keys["views"], batch, train=True, step_key=keys["batch"])
        student, new = self.student_fn(
            {"params": params, "batch_stats": stats["student"]},
            made,
            train=True,
            rngs={"dropout": keys["dropout"]},
            mutable=["batch_stats"],
        )
        # The teacher sees the global crops, and learns from no gradient.
        whole = {arm: {"crops": view["crops"][:1]} for arm, view in made.items()}
        teacher, teacher_new = self.teacher_fn(
            {"params": state.teacher, "batch_stats": stats["teacher"]},
            whole,
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
                # The centre moves once an update, in `finish`.
                each, _ = losses.dino(
                    student[arm],
                    teacher[arm],
                    center_k=state.center[arm],
                    where=weight > 0,
                    **self._temperatures(state),
                )
                parts[f"dino/{arm}"] = losses.weighted_mean(
                    each, weight, axis_name=self.axis_name
                )
        outputs = {"student": student, "teacher": teacher}
        return sum(parts.values()), LossAux(stats, parts, outputs)

    def reduce(self, state, outputs, *, batch):
        """Sums for the centre and for DINO's panel; the student's first crop.

        All logits of a batch of 64, at the paper's 10 crops and 65536 prototypes, are
        200 MB; the first crop's, which the collapse panel reads, 17 MB.
        """
        student, teacher = outputs["student"], outputs["teacher"]
        counted = batch["weight"] > 0

        def of_panel(outputs: dict[str, Logits]) -> dict[str, Metrics]:
            return {
                arm: losses.sum_dino(
                    logits,
                    outputs["teacher"][arm],
                    center_k=state.center[arm],
                    where=counted,
                    **self._temperatures(state),
                )
                for arm, logits in outputs["student"].items()
            }

        sums = {
            "center": {
                arm: losses.sum_teacher(logits, where=counted)
                for arm, logits in teacher.items()
            },
            "panel": self.panel.compute(of_panel, outputs, step=state.step),
        }
        return Reduced({arm: logits[0] for arm, logits in student.items()}, sums)

    def measure(self, state, reduced, *, batch):
        """The schedules' values, and now and then the panels of outputs and of DINO."""

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
        """The student after its update, the teacher that follows it, and the centre."""
        momentum = self.schedules.momentum(state.step)
        return state.replace(
            params=params,
            batch_stats=stats["student"],
            teacher=optim.ema(state.teacher, params, momentum=momentum),
            teacher_stats=stats["teacher"],
            # Over the whole batch, whatever the parts it was worked on in.
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
        """Both temperatures at a state's step."""
        return dict(
            student_temperature=self.schedules.student_temperature,
            teacher_temperature=self.schedules.teacher_temperature(state.step),
        )
