"""Our side: this library's own steps, compiled for one device."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from memejax import profile, steps
from memejax.bench.train_step.problem import (
    CENTER_MOMENTUM,
    DECAY,
    LR,
    MOMENTUM,
    STUDENT_TEMPERATURE,
    TEACHER_TEMPERATURE,
    Problem,
    data,
)
from memejax.models import distilbert, fusion, heads, image, resnet, vit
from memejax.parallel import xla

Tree = Any
# The interval of the collapse panel in our runs.
PANEL_EVERY = 10
INPUTS = ("image", "input_ids", "attention_mask", "crops")
PRODUCTS = ("dot_general", "conv_general_dilated")


def make(given: Problem) -> tuple[Callable[..., Tree], Callable, Callable]:
    """Make the networks and step of a case.

    Returns:
        `(key, batch) -> variables`, `variables -> state` and `(state, batch) -> (state,
        metrics)`.
    """
    tx = optax.adamw(LR, weight_decay=DECAY)
    start = functools.partial(steps.init_state, tx=tx, key=jax.random.key(1))
    if given.case in ("resnet", "vit", "text"):
        init, apply_fn = _labelled(given)
        step = steps.make_supervised_step(
            apply_fn, tx, views=lambda _, batch, **__: batch
        )
        return init, start, step

    arms, method = _arms(given)

    def views(_: Any, batch: Tree, **__: Any) -> Tree:
        view = {name: batch[name] for name in INPUTS if name in batch}
        if "crops" in view:
            view["crops"] = (view["crops"],)
        return {name: view for name in arms.arms}

    def init(key: jax.Array, batch: Tree) -> Tree:
        return arms.init(key, views(None, batch), train=False, method=method)

    apply_fn = functools.partial(arms.apply, method=method)
    if given.case == "finetune":
        step = steps.make_supervised_step(apply_fn, tx, views=views)
    elif given.case == "dino":
        start = functools.partial(
            steps.init_dino_state,
            tx=tx,
            key=jax.random.key(1),
            prototypes={"vit": given.head["out"]},
        )
        step = steps.make_dino_step(
            apply_fn,
            tx,
            teacher_fn=apply_fn,
            objective=steps.DinoObjective(
                momentum=lambda _: MOMENTUM,
                teacher_temperature=lambda _: TEACHER_TEMPERATURE,
                student_temperature=STUDENT_TEMPERATURE,
                center_momentum=CENTER_MOMENTUM,
            ),
            views=views,
            panel=steps.Panel(PANEL_EVERY),
        )
    else:
        step = steps.make_cass_step(
            apply_fn,
            tx,
            objective=steps.CassObjective(),
            views=views,
            panel=steps.Panel(PANEL_EVERY),
        )
    return init, start, step


def parameters(given: Problem) -> int:
    """Number of trained parameters of a case, without computing anything."""
    init, _, _ = make(given)
    shapes = jax.eval_shape(init, jax.random.key(0), data(given))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


class Trainer:
    """A compiled step, its state and a batch on the device.

    Attributes:
        parameters: number of trained parameters.
        flops: FLOPs of the matrix products and convolutions of a step, forward and
            backward.
        compile_seconds: seconds of tracing and compiling.
        losses: loss of the last step of each run.
    """

    def __init__(self, given: Problem, *, variables: Tree | None = None):
        """Compile the step.

        Args:
            given: the case.
            variables: initial variables; random ones if None.
        """
        self.device = jax.local_devices()[0]
        self._size = given.batch
        self._batch = jax.device_put(data(given), self.device)
        init, start, step = make(given)
        if variables is None:
            # Runs only once: optimising it would take longer.
            init = jax.jit(init, compiler_options=xla.RUN_ONCE)
            variables = init(jax.random.key(0), self._batch)
        self._state = jax.device_put(start(variables), self.device)
        self._step = step
        leaves = jax.tree.leaves(self._state.params)
        self.parameters = sum(leaf.size for leaf in leaves)
        began = time.perf_counter()
        traced = jax.jit(step, donate_argnums=0).trace(self._state, self._batch)
        self._compiled = traced.lower().compile()
        self.compile_seconds = time.perf_counter() - began
        counted = profile.count_jaxpr(traced.jaxpr).by_primitive()
        self.flops = sum(counted[p].flops for p in PRODUCTS if p in counted)
        self.losses: list[float] = []

    def run(self, count: int) -> float:
        """Train for `count` steps after an uncounted one; return examples per second.

        In the first after a pause memory has to be got from the system again.
        """
        metrics = {}
        self._state, metrics = self._compiled(self._state, self._batch)
        jax.block_until_ready((self._state, metrics))
        began = time.perf_counter()
        for _ in range(count):
            self._state, metrics = self._compiled(self._state, self._batch)
        jax.block_until_ready((self._state, metrics))
        seconds = time.perf_counter() - began
        self.losses.append(float(metrics["loss"]))
        return self._size * count / seconds

    def parts(self) -> tuple[Callable[..., Any], Tree, Tree]:
        """Return the step, which donates its state, a copy of that, and a batch.

        The step is not compiled yet, so that its operations can be given the names of
        their modules.
        """
        step = jax.jit(lambda *given: self._step(*given), donate_argnums=0)
        return step, jax.tree.map(jnp.copy, self._state), self._batch

    def memory(self) -> int | None:
        """Peak bytes in use on the device; None on a CPU."""
        return (self.device.memory_stats() or {}).get("peak_bytes_in_use")


def _labelled(given: Problem) -> tuple[Callable[..., Tree], Callable[..., Any]]:
    """Return init and apply functions of an encoder with one logit."""
    encoder = _encoder(given, given.case)
    head = heads.Classifier(dropout=0.0)

    def inputs(batch: Tree) -> tuple[jax.Array, ...]:
        return tuple(batch[name] for name in INPUTS if name in batch)

    def pooled(out: jax.Array) -> jax.Array:
        return out[:, 0] if given.case == "text" else out

    def init(key: jax.Array, batch: Tree) -> Tree:
        out, variables = encoder.init_with_output(key, *inputs(batch), train=False)
        top = head.init(key, pooled(out), train=False)
        params = {"encoder": variables["params"], "head": top["params"]}
        return {**variables, "params": params}

    def apply_fn(variables: Tree, batch: Tree, *, train: bool, **more: Any) -> Any:
        params = variables["params"]
        own = {**variables, "params": params["encoder"]}
        out, new = encoder.apply(own, *inputs(batch), train=train, **more)
        top = {"params": params["head"]}
        return {"label": head.apply(top, pooled(out), train=train)}, new

    return init, apply_fn


def _arms(given: Problem) -> tuple[fusion.Arms, str]:
    """Return the arms of a case, and the method whose output its loss takes."""
    if given.case == "dino":
        head = heads.DinoHead(**given.head)
        return fusion.Arms({"vit": image.DinoArm(_encoder(given, "vit"), head)}), (
            "project"
        )
    encoders = {"cnn": _encoder(given, "resnet"), "vit": _encoder(given, "vit")}
    if given.case == "cass":
        return fusion.Arms({k: image.ImageArm(e) for k, e in encoders.items()}), (
            "project"
        )
    arms = {
        name: fusion.Arm(
            image_encoder=encoder, text_encoder=_encoder(given, "text"), **given.arm
        )
        for name, encoder in encoders.items()
    }
    return fusion.Arms(arms), "classify" if given.case == "finetune" else "project"


def _encoder(given: Problem, kind: str) -> Any:
    """Make an encoder in the case's dtype."""
    module = {"resnet": resnet.ResNet, "vit": vit.ViT, "text": distilbert.DistilBert}
    return module[kind](dtype=jnp.dtype(given.dtype), **getattr(given, kind))
