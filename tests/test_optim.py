import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from memejax import optim


def params():
    return {
        "cnn": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 2.0)},
        "vit": {"kernel": jnp.full((2, 2), 2.0)},
    }


def groups(**changes):
    return {
        "cnn": optim.Group("cnn/.*", 0.1, **changes),
        "vit": optim.Group("vit/.*", 0.0),
    }


def constant():
    return optim.schedule("constant", steps=10, warmup=0)


def test_a_leaf_in_no_group_is_an_error():
    with pytest.raises(ValueError, match="vit/kernel is in no group"):
        optim.label_parameters(params(), {"cnn": optim.Group("cnn/.*", 0.1)})


def test_a_leaf_in_two_groups_is_an_error():
    twice = groups() | {"biases": optim.Group(".*/bias", 0.1)}
    with pytest.raises(ValueError, match=r"cnn/bias is in \['cnn', 'biases'\]"):
        optim.label_parameters(params(), twice)


def test_a_group_that_holds_nothing_is_an_error():
    with pytest.raises(ValueError, match="group text .* matches no leaf"):
        optim.label_parameters(params(), groups() | {"text": optim.Group("t/.*", 1.0)})


def test_the_pattern_matches_the_whole_path():
    with pytest.raises(ValueError, match="cnn/kernel is in no group"):
        optim.label_parameters(
            params(), {"a": optim.Group("cnn", 1.0), "b": optim.Group("vit/.*", 1.0)}
        )


def test_first_update_is_adamw_by_hand():
    """Adam's first step is lr * sign(g); decay adds lr * wd * w on matrices only."""
    tx = optim.make_optimizer(
        params(), groups(weight_decay=0.5), schedule=constant(), eps=0.0
    )
    grads = jax.tree.map(lambda x: -3.0 * jnp.ones_like(x), params())
    updates, _ = jax.jit(tx.update)(grads, tx.init(params()), params())
    # 1 - 0.999 is known to float32 to about 1e-5 only.
    np.testing.assert_allclose(updates["cnn"]["bias"], 0.1, rtol=1e-5)
    np.testing.assert_allclose(
        updates["cnn"]["kernel"], 0.1 - 0.1 * 0.5 * 2.0, atol=1e-6
    )


def test_a_group_with_rate_0_is_frozen():
    tx = optim.make_optimizer(params(), groups(), schedule=constant())
    grads = jax.tree.map(jnp.ones_like, params())
    updates, _ = tx.update(grads, tx.init(params()), params())
    assert np.all(updates["vit"]["kernel"] == 0) and np.all(updates["cnn"]["bias"] < 0)


def test_clipping_is_a_group_of_its_own():
    """A large gradient in one group leaves the other's update as it is."""
    both = {
        "cnn": optim.Group("cnn/.*", 0.1, clip=1.0),
        "vit": optim.Group("vit/.*", 0.1, clip=1.0),
    }
    tx = optim.make_optimizer(params(), both, schedule=constant(), eps=1.0)
    grads = jax.tree.map(lambda x: 0.1 * jnp.ones_like(x), params())
    loud = grads | {"cnn": jax.tree.map(lambda g: 1e4 * g, grads["cnn"])}
    quiet, _ = tx.update(grads, tx.init(params()), params())
    changed, _ = tx.update(loud, tx.init(params()), params())
    np.testing.assert_array_equal(quiet["vit"]["kernel"], changed["vit"]["kernel"])
    # Six gradients of 1000 are clipped to norm 1, 1/sqrt(6) each; with eps = 1
    # Adam's first update is lr * g / (g + 1).
    g = 1 / np.sqrt(6)
    np.testing.assert_allclose(changed["cnn"]["bias"], -0.1 * g / (g + 1), rtol=1e-5)


def test_cosine_by_hand():
    factor = optim.schedule("cosine", steps=110, warmup=10)
    steps = np.array([0, 5, 10, 60, 110])
    expected = [0.0, 0.5, 1.0, 0.5, 0.0]
    np.testing.assert_allclose([factor(s) for s in steps], expected, atol=1e-6)


def test_schedules_check_their_arguments():
    with pytest.raises(ValueError, match="'linear': choose one of cosine"):
        optim.schedule("linear", steps=1, warmup=0)
    with pytest.raises(
        ValueError, match="got warmup 20, expected at most the 10 steps"
    ):
        optim.schedule("cosine", steps=10, warmup=20)


def test_plateau_falls_as_pytorchs_does():
    """Patience 1: the rate falls after the second bad update, down to min_lr."""
    schedule = constant()
    tx = optim.make_optimizer(
        params(),
        groups(),
        schedule=schedule,
        plateau=dict(factor=0.5, patience=1, min_lr=0.02),
    )
    rates = optim.make_learning_rates(groups(), schedule)
    state, seen = tx.init(params()), []
    grads = jax.tree.map(jnp.ones_like, params())
    for loss in [1.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9]:
        _, state = tx.update(grads, state, params(), value=jnp.float32(loss))
        seen.append(float(rates(state, 0)["cnn"]))
    torch_rates = [0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.02, 0.02, 0.02]
    np.testing.assert_allclose(seen, torch_rates, rtol=1e-6)


def test_plateau_against_pytorch():
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="min", factor=0.8, patience=1, min_lr=1e-3
    )
    schedule = constant()
    tx = optim.make_optimizer(
        params(),
        groups(),
        schedule=schedule,
        plateau=dict(factor=0.8, patience=1, min_lr=1e-3),
    )
    rates = optim.make_learning_rates(groups(), schedule)
    update = jax.jit(lambda s, v: tx.update(params(), s, params(), value=v)[1])
    state = tx.init(params())
    for loss in np.random.default_rng(0).normal(1.0, 0.3, 60).astype(np.float32):
        reference.step(float(loss))
        state = update(state, loss)
        np.testing.assert_allclose(
            rates(state, 0)["cnn"], optimizer.param_groups[0]["lr"], rtol=1e-5
        )


def test_learning_rates_are_those_applied():
    schedule = optim.schedule("cosine", steps=8, warmup=2)
    tx = optim.make_optimizer(params(), groups(), schedule=schedule, eps=0.0)
    rates = optim.make_learning_rates(groups(), schedule)
    state, p = tx.init(params()), params()
    grads = jax.tree.map(jnp.ones_like, p)
    for step in range(8):
        updates, state = tx.update(grads, state, p)
        p = optax.apply_updates(p, updates)
        # With a constant gradient each Adam update is the learning rate.
        np.testing.assert_allclose(
            -updates["cnn"]["bias"], rates(state, step)["cnn"], rtol=1e-4, atol=1e-7
        )
