import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from memejax import parallel
from memejax.losses import dino, dino_panel, is_dino_collapsed

# Student views, teacher views, examples, prototypes.
SIZES = [(2, 2, 4, 5), (2, 1, 3, 2), (6, 2, 4, 9), (3, 3, 2, 4)]
WHERE = np.array([1, 0, 1, 1, 0, 1, 1, 1], bool)
PANEL = jax.jit(dino_panel)


def inputs(views, teachers, batch, k, seed=0):
    rng = np.random.default_rng(seed)
    student = rng.normal(size=(views, batch, k)).astype(np.float32)
    teacher = rng.normal(size=(teachers, batch, k)).astype(np.float32)
    return student, 0.3 * teacher, 0.1 * rng.normal(size=k).astype(np.float32)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def reference(student, teacher, center, tau_s=0.1, tau_t=0.04):
    """Loss, entropy and KL per example in float64: pairs and examples one by one."""
    student, teacher = np.asarray(student, np.float64), np.asarray(teacher, np.float64)
    rows = []
    for i in range(student.shape[1]):
        pairs = []
        for u in range(len(teacher)):
            for v in range(len(student)):
                if u != v:
                    p = softmax((teacher[u, i] - center) / tau_t)
                    q = softmax(student[v, i] / tau_s)
                    pairs.append(
                        [-p @ np.log(q), -p @ np.log(p), p @ (np.log(p) - np.log(q))]
                    )
        rows.append(np.mean(pairs, axis=0))
    return np.transpose(rows)


def reference_center(teacher, center, momentum=0.9):
    mean = np.mean([row for view in np.float64(teacher) for row in view], axis=0)
    return momentum * np.float64(center) + (1 - momentum) * mean


def slope(function, x, step=1e-5):
    """The gradient of a float64 function by central differences."""
    out = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        moved = [np.array(x, np.float64), np.array(x, np.float64)]
        moved[0][place] += step
        moved[1][place] -= step
        out[place] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return out


def close(got, expected, rtol=1e-5):
    expected = np.asarray(expected)
    np.testing.assert_allclose(
        got, expected, rtol=0, atol=rtol * np.abs(expected).max()
    )


def total(student, teacher, center, **settings):
    """A scalar that weighs the examples unequally, and both results."""
    loss, new = dino(student, teacher, center_k=center, **settings)
    return loss @ jnp.arange(1.0, loss.size + 1), (loss, new)


GRADIENT = jax.jit(jax.value_and_grad(total, has_aux=True))


@pytest.mark.parametrize("sizes", SIZES)
def test_value_and_gradient_agree_with_float64(sizes):
    student, teacher, center = inputs(*sizes)
    (_, (loss, new)), gradient = GRADIENT(student, teacher, center)
    close(loss, reference(student, teacher, center)[0])
    close(new, reference_center(teacher, center))
    weights = np.arange(1.0, sizes[2] + 1)
    expected = slope(lambda s: reference(s, teacher, center)[0] @ weights, student)
    close(gradient, expected)


def test_by_hand():
    # Teacher logits ln 2 and ln 3 apart at temperature 1, the centre takes 1 from the
    # first prototype: P_0 = (2/3, 1/3), P_1 = (3/4, 1/4). Student: S_0 = (1/2, 1/2),
    # S_1 = (1/5, 4/5), S_2 = (9/10, 1/10). Pairs (0,1) (0,2) (1,0) (1,2).
    teacher = np.log([[[2.0, 1.0]], [[3.0, 1.0]]]) + np.array([1.0, 0.0])
    student = 0.5 * np.log([[[1.0, 1.0]], [[1.0, 4.0]], [[9.0, 1.0]]])
    pairs = [
        -2 / 3 * np.log(1 / 5) - 1 / 3 * np.log(4 / 5),
        -2 / 3 * np.log(9 / 10) - 1 / 3 * np.log(1 / 10),
        np.log(2),
        -3 / 4 * np.log(9 / 10) - 1 / 4 * np.log(1 / 10),
    ]
    loss, new = jax.jit(
        functools.partial(
            dino, student_temperature=0.5, teacher_temperature=1.0, center_momentum=0.75
        )
    )(student, teacher, center_k=np.array([1.0, 0.0]))
    np.testing.assert_allclose(loss, [np.mean(pairs)], rtol=1e-6)
    # 3/4 of (1, 0) and 1/4 of the mean of (ln 2 + 1, 0) and (ln 3 + 1, 0).
    np.testing.assert_allclose(new, [1 + np.log(6) / 8, 0.0], atol=1e-6)


def test_no_gradient_to_teacher_or_center():
    student, teacher, center = inputs(3, 2, 4, 5)

    def everything(student, teacher, center):
        value, (_, new) = total(student, teacher, center)
        return value + new.sum()

    gradients = jax.jit(jax.grad(everything, (0, 1, 2)))(student, teacher, center)
    assert np.abs(gradients[0]).max() > 0.1
    assert not np.any(gradients[1]) and not np.any(gradients[2])


def test_vmap_over_seeds():
    runs = [inputs(3, 2, 4, 5, seed) for seed in range(3)]
    taus = np.array([0.04, 0.05, 0.07], np.float32)
    (_, (loss, new)), gradient = jax.jit(
        jax.vmap(
            lambda s, t, c, tau: jax.value_and_grad(total, has_aux=True)(
                s, t, c, teacher_temperature=tau
            )
        )
    )(*(np.stack(parts) for parts in zip(*runs, strict=True)), taus)
    for i, (student, teacher, center) in enumerate(runs):
        close(loss[i], reference(student, teacher, center, tau_t=taus[i])[0])
        close(new[i], reference_center(teacher, center))
        (_, _), alone = GRADIENT(
            student, teacher, center, teacher_temperature=float(taus[i])
        )
        close(gradient[i], alone)


def masked(results, where):
    """Loss, new centre and gradient in float64 of the examples that count alone."""
    student, teacher, center = results
    kept = student[:, where], teacher[:, where]
    weights = np.arange(1.0, len(where) + 1)[where]
    loss = np.zeros(len(where))
    loss[where] = reference(*kept, center)[0]
    gradient = np.zeros(student.shape)
    gradient[:, where] = slope(
        lambda s: reference(s, kept[1], center)[0] @ weights, kept[0]
    )
    return loss, reference_center(kept[1], center), gradient


@pytest.mark.parametrize("spoil", [1e9, np.nan, np.inf])
def test_masked_examples_leave_no_trace(spoil):
    student, teacher, center = inputs(3, 2, 8, 4)
    expected = masked((student, teacher, center), WHERE)
    rows = WHERE[None, :, None]
    student, teacher = np.where(rows, student, spoil), np.where(rows, teacher, spoil)
    (_, (loss, new)), gradient = GRADIENT(student, teacher, center, where=WHERE)
    for got, value in zip((loss, new, gradient), expected, strict=True):
        assert np.isfinite(got).all()
        close(got, value)
    assert not np.any(loss[~WHERE]) and not np.any(gradient[:, ~WHERE])


def test_no_example_leaves_the_center():
    student, teacher, center = inputs(3, 2, 4, 5)
    nobody = np.zeros(4, bool)
    (_, (loss, new)), gradient = GRADIENT(student, teacher, center, where=nobody)
    assert not np.any(loss) and not np.any(gradient)
    np.testing.assert_array_equal(new, center)


def test_a_batch_sharded_by_the_compiler():
    student, teacher, center = inputs(3, 2, 8, 6)
    expected = masked((student, teacher, center), WHERE)
    mesh = parallel.mesh(4)
    views, rows = (
        NamedSharding(mesh, PartitionSpec(*axes))
        for axes in [(None, "data"), ("data",)]
    )
    (_, (loss, new)), gradient = GRADIENT(
        jax.device_put(student, views),
        jax.device_put(teacher, views),
        jax.device_put(center, parallel.replicated(mesh)),
        where=jax.device_put(WHERE, rows),
    )
    assert len(gradient.sharding.device_set) == 4
    (_, (alone, alone_new)), alone_gradient = GRADIENT(
        student, teacher, center, where=WHERE
    )
    for got, one in zip(
        (loss, new, gradient), (alone, alone_new, alone_gradient), strict=True
    ):
        close(got, one, 1e-6)
    for got, value in zip((loss, new, gradient), expected, strict=True):
        close(got, value)


@pytest.mark.parametrize("mapped", ["pmap", "shard_map"])
def test_a_split_batch_is_the_batch(mapped):
    student, teacher, center = inputs(3, 2, 8, 6)
    taus = {"student_temperature": 0.1, "teacher_temperature": 0.04}

    def step(student, teacher, center, where, axis_name="data"):
        settings = {"center_k": center, "where": where, "axis_name": axis_name} | taus

        def summed(student):
            loss, new = dino(student, teacher, **settings)
            return loss.sum(), (loss, new)

        gradient, (loss, new) = jax.grad(summed, has_aux=True)(student)
        return loss, gradient, new, dino_panel(student, teacher, **settings)

    if mapped == "pmap":
        parts = [np.stack(np.split(x, 4, axis=1)) for x in (student, teacher)]
        run = jax.pmap(step, axis_name="data", in_axes=(0, 0, None, 0))
        loss, gradient, new, panel = run(*parts, center, WHERE.reshape(4, 2))
        loss, gradient = loss.reshape(8), np.concatenate(gradient, axis=1)
    else:
        views, whole = PartitionSpec(None, "data"), PartitionSpec()
        run = jax.shard_map(
            step,
            mesh=parallel.mesh(4),
            in_specs=(views, views, whole, PartitionSpec("data")),
            out_specs=(PartitionSpec("data"), views, whole, whole),
        )
        loss, gradient, new, panel = jax.jit(run)(student, teacher, center, WHERE)
        new, panel = new[None], jax.tree.map(lambda x: x[None], panel)
    alone = jax.jit(functools.partial(step, axis_name=None))
    one_loss, one_gradient, one_new, one_panel = alone(student, teacher, center, WHERE)
    close(loss, one_loss, 1e-6)
    close(gradient, one_gradient, 1e-6)
    for device in range(len(new)):
        close(new[device], one_new, 1e-6)
        close(new[device], reference_center(teacher[:, WHERE], center))
        for name, value in one_panel.items():
            close(panel[name][device], value, 1e-6)


def test_uniform_is_ln_k_and_the_floor_is_the_entropy():
    zeros, center = np.zeros((3, 2, 64)), np.linspace(-1, 1, 64)
    loss, _ = jax.jit(dino)(zeros, zeros[:2] + center, center_k=center)
    np.testing.assert_allclose(loss, np.log(64), rtol=1e-6)
    # A student that says what the teacher says, of every view.
    _, teacher, center = inputs(2, 1, 4, 8)
    teacher = np.repeat(teacher, 2, axis=0)
    student = np.repeat((teacher[:1] - center) * (0.1 / 0.04), 3, axis=0)
    entropy = reference(student, teacher, center)[1]
    (_, (loss, _)), gradient = GRADIENT(student, teacher, center)
    close(loss, entropy)
    assert np.abs(gradient).max() < 1e-5
    (_, (worse, _)), _ = GRADIENT(student + teacher.sum(), teacher, center)
    close(worse, entropy)  # an offset of all logits is none
    (_, (worse, _)), _ = GRADIENT(1.1 * student, teacher, center)
    assert (np.asarray(worse) > entropy).all()


def test_low_precision_inputs_are_computed_in_float32():
    student, teacher, center = (
        jnp.asarray(x, jnp.bfloat16) for x in inputs(3, 2, 4, 5)
    )
    loss, new = jax.jit(dino)(student, teacher, center_k=center)
    assert loss.dtype == new.dtype == jnp.float32
    exact = [np.asarray(x, np.float64) for x in (student, teacher, center)]
    close(loss, reference(*exact)[0])
    close(new, reference_center(*exact[1:]))


@pytest.mark.parametrize("sizes", SIZES)
def test_panel_agrees_with_float64(sizes):
    student, teacher, center = inputs(*sizes)
    panel = PANEL(
        student,
        teacher,
        center_k=center,
        student_temperature=0.2,
        teacher_temperature=0.3,
    )
    loss, entropy, kl = reference(student, teacher, center, 0.2, 0.3).mean(axis=1)
    used = np.mean(
        [softmax((row - center) / 0.3) for view in np.float64(teacher) for row in view],
        axis=0,
    )
    expected = {
        "cross_entropy": loss,
        "teacher_entropy": entropy,
        "kl": kl,
        "mean_entropy": -used @ np.log(used),
        "log_k": np.log(sizes[3]),
    }
    assert set(panel) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(panel[name], value, rtol=2e-5, err_msg=name)


def panel_of(student, teacher, center=None, where=None, tau_t=0.04):
    center = np.zeros(np.shape(teacher)[-1]) if center is None else center
    return PANEL(
        student,
        teacher,
        center_k=center,
        student_temperature=0.1,
        teacher_temperature=tau_t,
        where=where,
    )


def test_panel_under_a_mask():
    student, teacher, center = inputs(3, 2, 8, 4)
    expected = panel_of(student[:, WHERE], teacher[:, WHERE], center)
    rows = WHERE[None, :, None]
    spoilt = np.where(rows, student, np.nan), np.where(rows, teacher, np.inf)
    for name, value in panel_of(*spoilt, center, WHERE).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_examples_say_nothing(count):
    panel = panel_of(*inputs(3, 2, 4, 5), np.arange(4) < count)
    assert np.isnan(panel["mean_entropy"])
    assert np.isnan(panel["cross_entropy"]) == (count == 0)
    assert is_dino_collapsed(panel) == (False, "")


def healthy(batch, k, seed=0):
    """Each example prefers a prototype of its own, in all views."""
    rng = np.random.default_rng(seed)
    logits = 0.06 * rng.normal(size=(1, batch, k))
    logits[:, np.arange(batch), rng.permutation(k)[:batch]] += 0.6
    return logits + 0.02 * rng.normal(size=(4, batch, k))


@pytest.mark.parametrize(("batch", "k"), [(2, 4096), (16, 64), (32, 4096), (2, 2)])
def test_healthy_outputs(batch, k):
    logits = healthy(batch, k)
    assert is_dino_collapsed(panel_of(logits, logits[:2])) == (False, "")


def test_near_uniform_but_of_the_example_is_healthy():
    # As at the start of a run from pretrained weights: the loss is ln K to 1 %.
    rng = np.random.default_rng(1)
    logits = np.repeat(0.02 * rng.normal(size=(1, 16, 512)), 3, axis=0)
    panel = panel_of(logits, logits[:2])
    assert panel["teacher_entropy"] > 0.97 * panel["log_k"]
    assert is_dino_collapsed(panel) == (False, "")


@pytest.mark.parametrize("batch", [2, 64])
@pytest.mark.parametrize("kind", ["constant", "uniform", "followed", "one"])
def test_each_kind_of_collapse(kind, batch):
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(4, batch, 256))
    constant = np.tile(0.1 * rng.normal(size=256), (4, batch, 1)) + 1e-4 * noise
    logits, center, begins = {
        "constant": (constant, None, "constant output"),
        "uniform": (1e-4 * noise, None, "uniform teacher"),
        # The centre has caught up with the constant output.
        "followed": (constant, constant[0, 0], "uniform teacher"),
        "one": (0.1 * noise + np.eye(256)[7] * 2.0, None, "one prototype"),
    }[kind]
    collapsed, reason = is_dino_collapsed(panel_of(logits, logits[:2], center))
    assert collapsed
    assert reason.startswith(begins)


@jax.jit
def train(offset, tau_t, momentum):
    """The panel of a linear student after training with its EMA as the teacher."""
    keys = jax.random.split(jax.random.key(0), 3)
    # The larger the mean that examples share, the easier one output serves them all.
    x = offset + jax.random.normal(keys[0], (32, 16))
    weights = 0.1 * jax.random.normal(keys[1], (16, 24))

    def views(key):
        return x[None] + 0.3 * jax.random.normal(key, (4, 32, 16))

    def step(carry, key):
        student, teacher, center = carry
        seen = views(key)

        def mean_loss(student):
            loss, new = dino(
                seen @ student,
                seen[:2] @ teacher,
                center_k=center,
                teacher_temperature=tau_t,
                center_momentum=momentum,
            )
            return loss.mean(), new

        gradient, center = jax.grad(mean_loss, has_aux=True)(student)
        student = student - 0.01 * gradient
        return (student, 0.9 * teacher + 0.1 * student, center), None

    carry = weights, weights, jnp.zeros(24)
    student, teacher, center = jax.lax.scan(
        step, carry, jax.random.split(keys[2], 300)
    )[0]
    seen = views(keys[2])
    return panel_of(seen @ student, seen[:2] @ teacher, center, tau_t=tau_t)


@pytest.mark.parametrize(
    ("offset", "tau_t", "momentum", "begins"),
    [
        (1.5, 0.04, 0.9, ""),
        (1.5, 0.4, 0.9, "uniform teacher"),  # centred, not sharpened
        (3.0, 0.04, 0.9, ""),
        (3.0, 0.04, 1.0, "one prototype"),  # sharpened, never centred
    ],
)
def test_training_collapses_without_centring_or_sharpening(
    offset, tau_t, momentum, begins
):
    collapsed, reason = is_dino_collapsed(train(offset, tau_t, momentum))
    assert collapsed == bool(begins)
    assert reason.startswith(begins)


def test_errors():
    student, teacher, center = np.zeros((3, 4, 5)), np.zeros((2, 4, 5)), np.zeros(5)
    ones = np.ones((3, 4, 1))
    for function in (
        dino,
        functools.partial(
            dino_panel, student_temperature=0.1, teacher_temperature=0.04
        ),
    ):
        for arguments, changes, message in [
            ((student, teacher[:, :3]), {}, r"\(3, 4, 5\).*\(2, 3, 5\), expected"),
            ((student[0], teacher), {}, r"\(4, 5\).*expected \[V, batch, K\]"),
            ((student[:1], teacher[:1]), {}, "1 student views and 1 teacher"),
            ((teacher, student), {}, "2 student views and 3 teacher"),
            ((student, teacher[:0]), {}, "and 0 teacher views"),
            ((ones, ones), {"center_k": np.zeros(1)}, "1 prototypes, expected at"),
            ((student, teacher), {"center_k": np.zeros(4)}, r"\(4,\), expected \(5,\)"),
            ((student, teacher), {"where": np.ones(3)}, r"where of shape \(3,\)"),
            ((student, teacher), {"teacher_temperature": 0.0}, "teacher_temper.* 0.0"),
            ((student, teacher), {"student_temperature": -1}, "expected above 0"),
            ((student, teacher), {"student_temperature": np.nan}, "expected above 0"),
            ((student, teacher), {"teacher_temperature": np.ones(2)}, "a scalar"),
        ]:
            with pytest.raises(ValueError, match=message):
                function(*arguments, **({"center_k": center} | changes))
    for momentum in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="expected 0 to 1"):
            dino(student, teacher, center_k=center, center_momentum=momentum)
    with pytest.raises(ValueError, match="without .*log_k"):
        is_dino_collapsed({"teacher_entropy": 0.0, "mean_entropy": 3.0})
