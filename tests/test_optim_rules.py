"""Update rules against PyTorch's, and against float64 written from the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from memejax import optim

STEPS = 6
SHAPES = {"kernel": (3, 2), "bias": (2,), "table": (4, 3)}


def numbers(seed):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=s).astype(np.float32) for k, s in SHAPES.items()}


def trained(rule, *, weight_decay=0.0, group=None, schedule=None, **options):
    """Parameters after every one of a few updates with random gradients."""
    params = jax.tree.map(jnp.asarray, numbers(0))
    recipe = optim.Group(".*", 0.05, weight_decay=weight_decay, **(group or {}))
    schedule = schedule or optim.schedule("cosine", steps=STEPS, warmup=2)
    tx = optim.make_optimizer(
        params, {"all": recipe}, schedule=schedule, rule=rule, **options
    )
    state, history, update = tx.init(params), [], jax.jit(tx.update)
    for step in range(STEPS):
        updates, state = update(
            jax.tree.map(jnp.asarray, numbers(step + 1)), state, params
        )
        params = optax.apply_updates(params, updates)
        history.append(params)
    return history


def rates():
    """Warm-up of 2 to 0.05, then the cosine, by hand."""
    t = np.arange(STEPS)
    wave = 0.5 * (1 + np.cos(np.pi * (t - 2) / (STEPS - 2)))
    return 0.05 * np.where(t < 2, t / 2, wave)


def by_torch(make, *, weight_decay, decays=None):
    torch = pytest.importorskip("torch")
    tensors = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in numbers(0).items()}
    groups = [
        dict(params=[t], weight_decay=weight_decay if t.ndim > 1 else 0.0)
        for t in tensors.values()
    ]
    optimizer, history = make(torch.optim)(groups), []
    for step, rate in enumerate(rates()):
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
            if decays is not None and group["weight_decay"]:
                group["weight_decay"] = float(decays[step])
        for name, gradient in numbers(step + 1).items():
            tensors[name].grad = torch.tensor(gradient)
        optimizer.step()
        history.append({k: t.detach().numpy().copy() for k, t in tensors.items()})
    return history


def assert_same(got, expected):
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        for name in SHAPES:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-6)


def test_adamw_is_pytorchs():
    expected = by_torch(
        lambda o: lambda g: o.AdamW(g, betas=(0.9, 0.95)), weight_decay=0.3
    )
    assert_same(trained("adamw", weight_decay=0.3, b2=0.95), expected)


def test_adamw_with_scheduled_decay_is_pytorchs():
    """DINO's: the decay of matrices is set anew at every update."""
    t = np.arange(STEPS)
    decays = 0.4 + 0.5 * (0.04 - 0.4) * (1 + np.cos(np.pi * t / STEPS))
    expected = by_torch(lambda o: o.AdamW, weight_decay=0.04, decays=decays)
    got = trained(
        "adamw",
        weight_decay=0.04,
        weight_decay_schedule=optim.cosine(0.04, 0.4, steps=STEPS),
    )
    assert_same(got, expected)


def test_adam_is_pytorchs():
    assert_same(trained("adam"), by_torch(lambda o: o.Adam, weight_decay=0.0))


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_sgd_is_pytorchs(momentum):
    expected = by_torch(
        lambda o: lambda g: o.SGD(g, lr=1.0, momentum=momentum), weight_decay=0.3
    )
    assert_same(trained("sgd", weight_decay=0.3, momentum=momentum), expected)


def test_sgd_by_hand():
    """w = 2, g = 1, decay 0.5: v = 2, w = 1.8; v = 1.8 + 1.9 = 3.7, w = 1.43."""
    params = {"w": jnp.full((1, 1), 2.0)}
    tx = optim.make_optimizer(
        params,
        {"all": optim.Group(".*", 0.1, weight_decay=0.5)},
        schedule=optim.schedule("constant", steps=2, warmup=0),
        rule="sgd",
    )
    state = tx.init(params)
    for expected in (1.8, 1.43):
        updates, state = tx.update({"w": jnp.ones((1, 1))}, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["w"], expected, rtol=1e-6)


def lars_by_numpy(decays, exempt=()):
    """Algorithm 1 of the paper in float64; biases are plain SGD with momentum."""
    w = {k: v.astype(np.float64) for k, v in numbers(0).items()}
    v = {k: np.zeros(s) for k, s in SHAPES.items()}
    history = []
    for step, rate in enumerate(rates()):
        for name, g in numbers(step + 1).items():
            g = g.astype(np.float64)
            local = 1.0
            if w[name].ndim > 1:
                beta = 0.0 if name in exempt else decays[step]
                norm = np.sqrt((w[name] ** 2).sum())
                local = 0.001 * norm / (np.sqrt((g**2).sum()) + beta * norm)
                g = g + beta * w[name]
            v[name] = 0.9 * v[name] + rate * local * g
            w[name] = w[name] - v[name]
        history.append(dict(w))
    return history


def test_lars_is_the_papers():
    """The steps are small beside the parameters, so their changes are compared."""
    decays = np.full(STEPS, 0.3)
    start = numbers(0)
    for got, expected in zip(
        trained("lars", weight_decay=0.3), lars_by_numpy(decays), strict=True
    ):
        for name in SHAPES:
            np.testing.assert_allclose(
                got[name] - start[name], expected[name] - start[name], atol=1e-6
            )
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-5)


def test_first_lars_update_by_hand():
    """|w| = 5, |g| = 2, decay 0.1: ratio 0.001 * 5 / 2.5 = 0.002, of g + 0.1 w."""
    params = {"w": jnp.array([[3.0, 4.0]]), "b": jnp.array([1.0])}
    grads = {"w": jnp.array([[0.0, 2.0]]), "b": jnp.array([7.0])}
    tx = optim.make_optimizer(
        params,
        {"all": optim.Group(".*", 10.0, weight_decay=0.1)},
        schedule=optim.schedule("constant", steps=2, warmup=0),
        rule="lars",
    )
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], [[-0.02 * 0.3, -0.02 * 2.4]], rtol=1e-5)
    np.testing.assert_allclose(updates["b"], [-70.0], rtol=1e-6)


def test_lars_with_scheduled_decay_and_an_exempt_leaf():
    schedule = optim.cosine(5.0, 50.0, steps=STEPS)
    decays = [float(schedule(step)) for step in range(STEPS)]
    got = trained(
        "lars",
        weight_decay=1.0,
        weight_decay_schedule=schedule,
        group=dict(decay_exempt="table"),
    )
    expected = lars_by_numpy(decays, exempt=("table",))
    start = numbers(0)
    for name in SHAPES:
        np.testing.assert_allclose(
            got[-1][name] - start[name], expected[-1][name] - start[name], atol=1e-6
        )


@pytest.mark.parametrize("zero", ["params", "grads"])
def test_lars_at_zero_is_sgd(zero):
    """No ratio can be made of a norm of 0: the update stays finite."""
    params, grads = {"w": jnp.ones((2, 2))}, {"w": jnp.ones((2, 2))}
    if zero == "params":
        params, expected = {"w": jnp.zeros((2, 2))}, -0.1
    else:
        grads, expected = {"w": jnp.zeros((2, 2))}, 0.0
    tx = optim.make_optimizer(
        params,
        {"all": optim.Group(".*", 0.1)},
        schedule=optim.schedule("constant", steps=2, warmup=0),
        rule="lars",
    )
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], expected)


def test_lars_does_not_depend_on_the_gradients_scale():
    params = {"w": jnp.array([[3.0, 4.0]])}
    tx = optim.make_optimizer(
        params,
        {"all": optim.Group(".*", 1.0)},
        schedule=optim.schedule("constant", steps=2, warmup=0),
        rule="lars",
    )
    small, large = (
        tx.update({"w": jnp.array([[s, -s]])}, tx.init(params), params)[0]["w"]
        for s in (1e-3, 1e3)
    )
    np.testing.assert_allclose(small, large, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(small), 0.005, rtol=1e-5)


def options(**group):
    return dict(
        groups={"all": optim.Group(".*", 0.1, **group)},
        schedule=optim.schedule("constant", steps=2, warmup=0),
    )


def test_optimizers_check_their_arguments():
    params = {"w": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match="'lamb': choose one of adamw, adam, sgd, l"):
        optim.make_optimizer(params, **options(), rule="lamb")
    with pytest.raises(ValueError, match=r"momentum 1.0, expected one in \[0, 1\)"):
        optim.make_optimizer(params, **options(), rule="sgd", momentum=1.0)
    with pytest.raises(ValueError, match="group all sets 0.1: choose adamw"):
        optim.make_optimizer(params, **options(weight_decay=0.1), rule="adam")


def test_updates_need_parameters_where_they_decay():
    params = {"w": jnp.ones((2, 2))}
    tx = optim.make_optimizer(params, **options(), rule="lars")
    with pytest.raises(ValueError, match="got no params"):
        tx.update(params, tx.init(params))


def test_each_group_may_have_a_rule_of_its_own():
    """Two optimizers, one an arm: the same as each over its own parameters."""
    params = {"a": jnp.ones((2, 2)), "b": jnp.full((2, 2), 2.0)}
    gradients = jax.tree.map(lambda x: 0.1 * x, params)
    schedule = optim.schedule("constant", steps=3, warmup=0)

    def after(params, groups, rule="adamw"):
        tx = optim.make_optimizer(params, groups, schedule=schedule, rule=rule)
        state = tx.init(params)
        for _ in range(3):
            mine = {name: gradients[name] for name in params}
            updates, state = tx.update(mine, state, params, value=1.0)
            params = optax.apply_updates(params, updates)
        return params

    both = after(
        params,
        {
            "a": optim.Group("a", lr=0.1, rule="sgd"),
            "b": optim.Group("b", lr=0.01),
        },
    )
    alone = {"a": optim.Group("a", lr=0.1)}, {"b": optim.Group("b", lr=0.01)}
    sgd = after({"a": params["a"]}, alone[0], rule="sgd")
    adamw = after({"b": params["b"]}, alone[1])
    np.testing.assert_array_equal(both["a"], sgd["a"])
    np.testing.assert_array_equal(both["b"], adamw["b"])
    # Momentum 0.9 on a gradient of 0.1: 0.1 (1 + 1.9 + 2.71) times the rate.
    np.testing.assert_allclose(both["a"], 1 - 0.1 * 0.561, rtol=1e-6)
    with pytest.raises(ValueError, match="unknown rule 'rmsprop'"):
        after(params, {"all": optim.Group(".*", lr=0.1, rule="rmsprop")})
