"""DINO's step on a model small enough to work out: a linear student of mean colours."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from memejax import optim, steps
from memejax.models import heads
from memejax.steps import views

B, C, K, U, V = 8, 3, 5, 2, 4
KEY = jax.random.key(0)
MEANS = {"a": (0.0, 0.0, 0.0), "b": (0.5, 0.25, 0.0)}
DINO = ("cross_entropy", "teacher_entropy", "kl", "mean_entropy", "log_k")
OUTPUTS = ("std", "mean_cosine", "effective_rank")
STUDENT_TEMPERATURE, RATE, CENTER_MOMENTUM = 0.3, 0.4, 0.8


def cut(keys, images):
    """Two global crops and two local ones of another size, nothing of it random."""
    del keys
    whole = jnp.stack([images, images[:, ::-1, :, ::-1] ** 2])
    local = jnp.stack([images[:, :1, 1:], 1 - images[:, 1:, :1]])
    return whole, local


def shake(keys, images):
    """The same, of images with random noise."""
    noise = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:]))(keys)
    return cut(keys, 0.5 * images + 0.5 * noise)


def crops_of(arms="ab", augment=cut):
    return views.make_views(
        {
            arm: views.Recipe(
                mean=MEANS[arm], std=(0.5,) * 3, augment=augment, stream=ord(arm)
            )
            for arm in arms
        }
    )


def batch(seed=0, size=B):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 255, (size, 2, 2, 3), np.uint8),
        "index": np.arange(size, dtype=np.int32),
        "draw": np.zeros(size, np.int32),
        "weight": np.ones(size, np.float32),
    }


def variables(arms="ab", seed=1):
    rng = np.random.default_rng(seed)
    drawn = {arm: rng.normal(size=(C, K)) for arm in "ab"}
    return {
        "params": {arm: jnp.asarray(drawn[arm], jnp.float32) for arm in arms},
        "batch_stats": {},
    }


def linear(variables, made, *, train, rngs=None, mutable=()):
    """Mean colour of every crop, times a matrix: {arm: [v, b, k]}."""
    assert train
    means = {
        arm: jnp.concatenate([x.mean((2, 3)) for x in view["crops"]])
        for arm, view in made.items()
    }
    logits = {arm: x @ variables["params"][arm] for arm, x in means.items()}
    stats = {
        arm: 0.75 * old + 0.25 * means[arm].mean((0, 1))
        for arm, old in variables["batch_stats"].items()
    }
    return logits, {"batch_stats": stats} if stats else {}


class Net(nn.Module):
    """A model with a head of DINO's on the mean colours."""

    drop: float = 0.0

    def setup(self):
        self.head = heads.DinoHead(out=K, hidden=6, bottleneck=4, layers=2)
        self.dropout = nn.Dropout(self.drop)

    def __call__(self, views, *, train):
        means = [x.mean((2, 3)) for x in views["a"]["crops"]]
        x = self.dropout(jnp.concatenate(means), deterministic=not train)
        return {"a": self.head(x.reshape(-1, C)).reshape(*x.shape[:2], K)}


def net_variables():
    made = crops_of("a")(KEY, batch(), train=True)
    return {"batch_stats": {}, **Net().init(KEY, made, train=True)}


def objective():
    return steps.DinoObjective(
        momentum=optim.cosine(0.9, 1.0, steps=4),
        teacher_temperature=optim.linear_then_constant(
            0.2, 0.5, steps_per_epoch=1, epochs=3
        ),
        student_temperature=STUDENT_TEMPERATURE,
        center_momentum=CENTER_MOMENTUM,
    )


def dino_step(arms="ab", *, augment=cut, tx=None, model=None, start=None, **more):
    tx = tx or optax.with_extra_args_support(optax.sgd(RATE))
    step = steps.make_dino_step(
        model or linear,
        tx,
        teacher_fn=model or linear,
        objective=objective(),
        views=crops_of(arms, augment),
        **more,
    )
    state = steps.init_dino_state(
        start or variables(arms), tx, key=KEY, prototypes=dict.fromkeys(arms, K)
    )
    return step, state


@functools.cache
def plain_step():
    """The step of both arms, compiled once for several tests."""
    step, state = dino_step()
    return jax.jit(step), state


def assert_close(one, other, *, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def learnt(state):
    return {
        name: getattr(state, name)
        for name in ("params", "teacher", "center", "batch_stats", "teacher_stats")
    }


# The same in float64 numpy, from the formulas.


def mean_colours(data, arm):
    """Of each crop, [v, b, 3]."""
    x = data["image"].astype(np.float64) / 255
    crops = [x, x[:, ::-1, :, ::-1] ** 2, x[:, :1, 1:], 1 - x[:, 1:, :1]]
    return np.stack([(c.mean((1, 2)) - np.array(MEANS[arm])) / 0.5 for c in crops])


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def numpy_update(x, student, teacher, center, *, momentum, temperature, weight):
    """(loss, student, teacher, centre) after one update of SGD, pair by pair."""
    of_student = softmax(x @ student / STUDENT_TEMPERATURE)
    raw = x[:U] @ teacher
    of_teacher = softmax((raw - center) / temperature)
    pairs = [(u, v) for u in range(U) for v in range(V) if u != v]
    share = weight / weight.sum()
    loss, slope = 0.0, np.zeros_like(student)
    for u, v in pairs:
        each = -(of_teacher[u] * np.log(of_student[v])).sum(-1)
        loss += (share * each).sum() / len(pairs)
        error = (of_student[v] - of_teacher[u]) / STUDENT_TEMPERATURE
        slope += x[v].T @ (share[:, None] * error) / len(pairs)
    student = student - RATE * slope
    teacher = momentum * teacher + (1 - momentum) * student
    mean = raw[:, weight > 0].mean((0, 1))
    center = CENTER_MOMENTUM * center + (1 - CENTER_MOMENTUM) * mean
    return loss, student, teacher, center


def test_four_updates_by_numpy():
    """Student, teacher, old and new centre and both schedules at steps 0 to 3."""
    step, state = plain_step()
    expected = {
        arm: [np.asarray(w, np.float64)] * 2 + [np.zeros(K)]
        for arm, w in variables()["params"].items()
    }
    for number, temperature in enumerate([0.2, 0.35, 0.5, 0.5]):
        data = batch(number)
        data["weight"][:3] = 0.5, 2.0, 0.0
        momentum = 1 - 0.1 * (1 + math.cos(math.pi * number / 4)) / 2
        state, metrics = step(state, data)
        total = 0.0
        for arm, old in expected.items():
            loss, *new = numpy_update(
                mean_colours(data, arm),
                *old,
                momentum=momentum,
                temperature=temperature,
                weight=data["weight"].astype(np.float64),
            )
            got = state.params[arm], state.teacher[arm], state.center[arm]
            assert_close(list(got), new, rtol=2e-5, atol=2e-6)
            np.testing.assert_allclose(metrics[f"dino/{arm}"], loss, rtol=1e-5)
            expected[arm], total = new, total + loss
        np.testing.assert_allclose(metrics["loss"], total, rtol=1e-5)
        np.testing.assert_allclose(metrics["momentum"], momentum, rtol=1e-6)
        np.testing.assert_allclose(
            metrics["teacher_temperature"], temperature, rtol=1e-6
        )
        assert int(state.step) == number + 1


def test_the_teacher_starts_as_the_student():
    _, state = dino_step()
    assert_close(state.teacher, state.params, rtol=0, atol=0)
    assert {arm: c.tolist() for arm, c in state.center.items()} == {
        arm: [0.0] * K for arm in "ab"
    }


def test_a_state_can_be_given_up_as_it_is():
    """Donation refuses a buffer that is in a state twice."""
    step, state = dino_step()
    kept = learnt(plain_step()[0](state, batch())[0])
    state = state.replace(key=jax.random.key(0))
    new, _ = jax.jit(step, donate_argnums=0)(state, batch())
    assert_close(learnt(new), kept)


def test_the_teacher_sees_global_crops_and_draws_nothing():
    seen = {}

    def spy(name):
        def apply(variables, made, *, train, rngs=None, mutable=()):
            sizes = {arm: [x.shape for x in v["crops"]] for arm, v in made.items()}
            seen[name] = sizes, train, sorted(rngs or {})
            return linear(variables, made, train=train)

        return apply

    tx = optax.with_extra_args_support(optax.sgd(RATE))
    step = steps.make_dino_step(
        spy("student"),
        tx,
        teacher_fn=spy("teacher"),
        objective=objective(),
        views=crops_of(),
    )
    jax.eval_shape(step, dino_step()[1], batch())
    whole, local = (2, B, 2, 2, 3), (2, B, 1, 1, 3)
    assert seen["student"] == ({a: [whole, local] for a in "ab"}, True, ["dropout"])
    assert seen["teacher"] == ({a: [whole] for a in "ab"}, True, [])


def test_what_is_dropped_is_dropped_of_the_student():
    """The teacher's logits, so the centre, are those of a model that drops nothing."""
    start = net_variables()
    tx = optax.with_extra_args_support(optax.sgd(RATE))
    made = crops_of("a")(KEY, batch(), train=True)
    whole = {"a": {"crops": made["a"]["crops"][:1]}}
    logits = Net().apply(start, whole, train=True)["a"]
    step_losses = []
    for rate in (0.0, 0.9):
        step = steps.make_dino_step(
            Net(drop=rate).apply,
            tx,
            teacher_fn=Net().apply,
            objective=objective(),
            views=crops_of("a"),
        )
        state = steps.init_dino_state(start, tx, key=KEY, prototypes={"a": K})
        new, metrics = jax.jit(step)(state, batch())
        np.testing.assert_allclose(
            new.center["a"],
            (1 - CENTER_MOMENTUM) * logits.mean((0, 1)),
            rtol=1e-5,
            atol=1e-7,
        )
        step_losses.append(float(metrics["loss"]))
    assert abs(step_losses[0] - step_losses[1]) > 1e-3


def test_batch_statistics_of_student_and_teacher_are_their_own():
    start = {**variables(), "batch_stats": {arm: jnp.zeros(C) for arm in "ab"}}
    step, state = dino_step(start=start)
    step = jax.jit(step)
    student, teacher = (dict.fromkeys("ab", 0.0) for _ in range(2))
    for number in range(2):
        data = batch(number)
        state, _ = step(state, data)
        for arm in "ab":
            x = mean_colours(data, arm)
            student[arm] = 0.75 * student[arm] + 0.25 * x.mean((0, 1))
            teacher[arm] = 0.75 * teacher[arm] + 0.25 * x[:U].mean((0, 1))
    assert_close(state.batch_stats, student)
    assert_close(state.teacher_stats, teacher)
    # The teacher is what is evaluated, with statistics of its own.
    chosen = state.weights()
    assert_close(chosen["params"], state.teacher, rtol=0, atol=0)
    assert_close(chosen["batch_stats"], teacher)
    assert np.abs(chosen["params"]["a"] - state.params["a"]).max() > 1e-3


def test_arms_side_by_side_are_as_alone():
    (both, state), *alone = (dino_step(a, augment=shake) for a in ("ab", "a", "b"))
    both = jax.jit(both)
    for number in range(2):
        state, metrics = both(state, batch(number))
    for arm, (one, single) in zip("ab", alone, strict=True):
        one = jax.jit(one)
        for number in range(2):
            single, own = one(single, batch(number))
        for name in ("params", "teacher", "center"):
            got, expected = (getattr(s, name)[arm] for s in (state, single))
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
        for name in (f"dino/{arm}", f"collapse/{arm}/kl"):
            np.testing.assert_allclose(metrics[name], own[name], rtol=1e-5)


def test_accumulation_gives_the_same_update():
    (whole, state), (split, same) = plain_step(), dino_step(accumulate=2)
    split = jax.jit(split)
    for number in range(2):
        data = batch(number)
        data["weight"][:3] = 0.0, 2.0, 0.0  # parts of unequal weight
        state, m1 = whole(state, data)
        same, m2 = split(same, data)
    assert_close(learnt(state), learnt(same))
    assert_close(m1, m2, rtol=2e-5)


def scans(jaxpr):
    """All scans of a program, those within others too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from scans(inner)


@pytest.mark.parametrize("every", [1, 2])
def test_logits_do_not_outlive_their_part_of_a_batch(every):
    """Of [v, b, k] and [u, b, k] the scan over parts gives one crop and sums alone."""
    parts = 4
    step, state = dino_step(accumulate=parts, panel=steps.Panel(every))
    program = jax.make_jaxpr(step)(state, batch())
    (scan,) = scans(program.jaxpr)
    assert scan.params["length"] == parts
    inner = [out.aval.shape for out in scan.params["jaxpr"].jaxpr.outvars]
    outer = [out.aval.shape for out in scan.outvars]
    # What a part gives is stacked, what is carried from part to part is not.
    stacked = [a for a, b in zip(outer, inner, strict=True) if a != b]
    carried = [a for a, b in zip(outer, inner, strict=True) if a == b]
    # Stacked: the first crop of each arm. Added up: nothing larger than a parameter.
    assert stacked == [(parts, B // parts, K)] * 2
    assert carried and max(map(math.prod, carried)) <= C * K


def test_masked_examples_do_not_matter():
    """The update is that of the batch without them."""
    step, state = plain_step()
    padded, short = batch(), batch()
    padded["weight"][6:] = 0
    noisy = dict(padded, image=padded["image"].copy())
    noisy["image"][6:] = 255 - noisy["image"][6:]
    short = {name: column[:6] for name, column in short.items()}
    (one, m1), (other, m2), (without, m3) = (
        step(state, data) for data in (padded, noisy, short)
    )
    assert_close(learnt(one), learnt(other), rtol=1e-6, atol=1e-7)
    assert_close(learnt(one), learnt(without))
    assert_close(m1, m2)
    assert_close(m1, m3, atol=1e-5)
    full, _ = step(state, batch())
    assert np.abs(one.center["a"] - full.center["a"]).max() > 1e-3


def test_a_batch_of_padding_changes_nothing_and_is_finite():
    step, state = plain_step()
    data = batch() | {"weight": np.zeros(B, np.float32)}
    new, metrics = step(state, data)
    assert_close(learnt(new), learnt(state), rtol=1e-6, atol=0)
    assert float(metrics["loss"]) == 0 and float(metrics["grad_norm"]) == 0


def test_panels_are_of_outputs_and_of_the_loss():
    step, state = dino_step(panel=steps.Panel(2))
    step, panels = jax.jit(step), []
    for number in range(3):
        state, metrics = step(state, batch(number))
        panels.append({k: v for k, v in metrics.items() if k.startswith("collapse/")})
        if number == 0:
            # The teacher's temperature is 0.2, its centre 0.
            x = mean_colours(batch(0), "b")
            w = np.asarray(variables()["params"]["b"], np.float64)
            p = softmax(x[:U] @ w / 0.2)
            entropy = -(p * np.log(p)).sum(-1).mean()
            mean = p.mean((0, 1))
            z = x[0] @ w
            u = z / np.linalg.norm(z, axis=-1, keepdims=True)
            cosine = ((u @ u.T).sum() - B) / (B * (B - 1))
            expected = {
                "teacher_entropy": entropy,
                "mean_entropy": -(mean * np.log(mean)).sum(),
                "cross_entropy": float(metrics["dino/b"]),
                "kl": float(metrics["dino/b"]) - entropy,
                "log_k": math.log(K),
                "mean_cosine": cosine,
            }
            for name, value in expected.items():
                np.testing.assert_allclose(
                    metrics[f"collapse/b/{name}"], value, rtol=2e-5, atol=1e-6
                )
    names = {f"collapse/{arm}/{name}" for arm in "ab" for name in DINO + OUTPUTS}
    for number, panel in enumerate(panels):
        assert panel.keys() == names
        there = {bool(np.isfinite(value)) for value in panel.values()}
        assert there == {number % 2 == 0}


def test_scan_steps_is_the_steps_one_after_another():
    step, state = plain_step()
    data = [batch(number) for number in range(3)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *data)
    scanned, metrics = jax.jit(steps.scan_steps(step))(state, stacked)
    seen = []
    for one in data:
        state, m = step(state, one)
        seen.append(m["loss"])
    np.testing.assert_allclose(metrics["loss"], seen, rtol=1e-6)
    assert_close(learnt(scanned), learnt(state))
    assert int(scanned.step) == 3


def test_frozen_prototypes_stay_bit_by_bit():
    start = net_variables()
    groups = {
        "rest": optim.Group("(?!.*prototypes).*", 0.1, weight_decay=0.1),
        "prototypes": optim.Group(
            ".*prototypes", 0.1, weight_decay=0.1, frozen_steps=2
        ),
    }
    schedule = optim.schedule("constant", steps=4, warmup=0)
    tx = optim.make_optimizer(start["params"], groups, schedule=schedule)
    step, state = dino_step(
        "a",
        tx=tx,
        model=Net().apply,
        start=start,
        learning_rates=optim.make_learning_rates(groups, schedule),
    )
    step, before = jax.jit(step), start["params"]["head"]
    changed, rates = [], []
    for number in range(4):
        state, metrics = step(state, batch(number))
        now = state.params["head"]
        changed.append(bool(np.any(now["prototypes"] != before["prototypes"])))
        rates.append(round(float(metrics["lr/prototypes"]), 6))
        moved = np.any(now["bottleneck"]["kernel"] != before["bottleneck"]["kernel"])
        assert moved and math.isclose(float(metrics["lr/rest"]), 0.1, rel_tol=1e-6)
        before = now
    assert changed == [False, False, True, True]
    assert rates == [0.0, 0.0, 0.1, 0.1]
