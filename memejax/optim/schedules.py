"""Schedules: values that change over a run, as functions of the step.

`schedule` returns a factor for every group's learning rate; `cosine` and
`linear_then_constant` return values (a momentum, a weight decay, a temperature). All
accept a Python or a traced step.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

# Names of `schedule`.
SCHEDULES = ("cosine", "cosine_cycle", "constant", "plateau")
Schedule = Callable[[jax.typing.ArrayLike], jax.typing.ArrayLike]


def schedule(
    name: str,
    *,
    steps: int,
    warmup: int,
    floor: float = 0.0,
    half_period: int = 16,
) -> Schedule:
    """Make a schedule of a factor in [0, 1] for every group's learning rate.

    With t the updates since the warm-up, T = steps - warmup, P = half_period:

        cosine        floor + (1 - floor) (1 + cos(pi t / T)) / 2
        cosine_cycle  floor + (1 - floor) (1 + cos(pi t / P)) / 2, for all t

    Args:
        name: "cosine" (down to the floor at the end), "cosine_cycle" (down and up
            again, with period 2 P: PyTorch's CosineAnnealingLR(T_max=P) stepped at
            every update, as CASS was published with P = 16 and eta_min = 1e-6, which is
            floor 1e-3 at its rate of 1e-3) or "constant" ("plateau" is constant here:
            its factor depends on the loss and is kept in the optimizer's state).
        steps: updates of the run.
        warmup: updates of linear warm-up from 0.
        floor: lowest factor of the cosines, in [0, 1], a fraction of the peak.
        half_period: updates from a peak of "cosine_cycle" to its floor.

    Returns:
        step -> factor.

    Raises:
        ValueError: for an unknown name, a warm-up longer than the run, a floor outside
            [0, 1] or a half_period below 1.

    References:
        Loshchilov and Hutter, SGDR, 1608.03983, equation 5.

    >>> factor = schedule("cosine_cycle", steps=100, warmup=0, half_period=2)
    >>> [round(float(factor(step)), 3) for step in range(5)]
    [1.0, 0.5, 0.0, 0.5, 1.0]
    """
    if warmup > steps:
        raise ValueError(
            f"got warmup {warmup}, expected at most the {steps} steps (in a config: "
            "optimizer.warmup of the stage)"
        )
    if not 0 <= floor <= 1:
        raise ValueError(f"got floor {floor}, expected a fraction in [0, 1]")
    if half_period < 1:
        raise ValueError(f"got half_period {half_period}, expected 1 or more")
    if name == "cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0 if warmup else 1.0, 1.0, warmup, max(steps, warmup + 1), floor
        )
    if name == "cosine_cycle":
        return _cosine_cycle(warmup, floor, half_period)
    if name in ("constant", "plateau"):
        if not warmup:
            return optax.constant_schedule(1.0)
        return optax.linear_schedule(0.0, 1.0, warmup)
    raise ValueError(f"unknown schedule {name!r}: choose one of {', '.join(SCHEDULES)}")


def cosine(start: float, end: float, *, steps: int) -> Schedule:
    """Make a schedule from start to end over the run, along half a cosine.

    `end + (start - end) (1 + cos(pi t / steps)) / 2`, and `end` after the run. DINO's
    schedule of the teacher's momentum (0.996 to 1) and the weight decay (0.04 to 0.4);
    the last update of a run, t = steps - 1, does not quite reach the end.

    Args:
        start: value at step 0.
        end: value at step `steps` and after it.
        steps: updates of the run, 1 or more.

    Returns:
        step -> float32 [].

    Raises:
        ValueError: for steps below 1.

    References:
        Caron et al., DINO, 2104.14294, implementation details.

    >>> decay = cosine(0.04, 0.4, steps=100)
    >>> [round(float(decay(step)), 3) for step in (0, 50, 100)]
    [0.04, 0.22, 0.4]
    """
    if steps < 1:
        raise ValueError(f"got {steps} steps, expected 1 or more")

    def value(step):
        t = jnp.clip(jnp.asarray(step), 0, steps) / steps
        return end + (start - end) * (1 + jnp.cos(jnp.pi * t)) / 2

    return value


def linear_then_constant(
    start: float, end: float, *, steps_per_epoch: int, epochs: int
) -> Schedule:
    """Make a schedule that changes linearly per epoch from start to end, then stays.

    In epoch e, counted from 0, `start + (end - start) e / (epochs - 1)` for
    e < epochs and `end` afterwards: `numpy.linspace(start, end, epochs)`, then a
    constant. DINO's warm-up of the teacher's temperature (0.04 to 0.07).

    Args:
        start: value in the first epoch.
        end: value in epoch `epochs - 1` and after it. (If epochs is 1, the first epoch
            has `start`.)
        steps_per_epoch: updates per epoch, 1 or more.
        epochs: epochs of the change; 0 gives `end` throughout.

    Returns:
        step -> float32 [].

    Raises:
        ValueError: for steps_per_epoch below 1 or epochs below 0.

    References:
        Caron et al., DINO, 2104.14294, implementation details.

    >>> temperature = linear_then_constant(0.04, 0.07, steps_per_epoch=10, epochs=4)
    >>> [round(float(temperature(step)), 3) for step in (0, 9, 10, 29, 30, 99)]
    [0.04, 0.04, 0.05, 0.06, 0.07, 0.07]
    """
    if steps_per_epoch < 1 or epochs < 0:
        raise ValueError(
            f"got {steps_per_epoch} steps per epoch and {epochs} epochs, expected at "
            "least 1 and 0"
        )

    def value(step):
        epoch = jnp.asarray(step) // steps_per_epoch
        part = (end - start) * epoch / max(epochs - 1, 1)
        return jnp.where(epoch < epochs, start + part, end)

    return value


def _cosine_cycle(warmup: int, floor: float, half_period: int) -> Schedule:
    def factor(step):
        step = jnp.asarray(step)
        t = step - warmup
        # mod first: a cosine after 1e4 periods is off by 1e-3 in float32.
        phase = jnp.mod(t, 2 * half_period) / half_period
        wave = floor + (1 - floor) * (1 + jnp.cos(jnp.pi * phase)) / 2
        return jnp.where(t < 0, step / max(warmup, 1), wave)

    return factor
