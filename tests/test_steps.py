"""Steps on a model small enough to work out: two linear arms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from memejax import parallel, steps
from memejax.steps import views

B, D, K = 8, 4, 3
KEY = jax.random.key(0)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 255, (B, 2, 2, 3), np.uint8),
        "input_ids": rng.integers(0, 9, (B, 5)).astype(np.int32),
        "attention_mask": np.ones((B, 5), np.int32),
        "label": rng.integers(0, 2, B).astype(np.int32),
        "index": np.arange(B, dtype=np.int32),
        "draw": np.zeros(B, np.int32),
        "weight": np.ones(B, np.float32),
    }


def variables(seed=1, out=K):
    rng = np.random.default_rng(seed)
    return {
        "params": {
            arm: jnp.asarray(rng.normal(size=(12, out)), jnp.float32) for arm in "ab"
        },
        "batch_stats": {"seen": jnp.zeros(())},
    }


def linear(variables, views, *, train, rngs=None, mutable=()):
    out = {
        arm: v["image"].reshape(v["image"].shape[0], -1) @ variables["params"][arm]
        for arm, v in views.items()
    }
    if not train:
        return out
    return out, {"batch_stats": {"seen": variables["batch_stats"]["seen"] + 1}}


def cass_apply(*args, **kwargs):
    out, new = linear(*args, **kwargs)
    return {arm: (z, z) for arm, z in out.items()}, new


def logits_apply(*args, **kwargs):
    result = linear(*args, **kwargs)
    out, new = result if kwargs["train"] else (result, None)
    out = {arm: z[:, 0] for arm, z in out.items()}
    return (out, new) if kwargs["train"] else out


PLAIN = views.make_views(
    {arm: views.Recipe(mean=(0.0,) * 3, std=(1.0,) * 3) for arm in "ab"}
)


def cass_step(objective=None, **more):
    tx = optax.with_extra_args_support(optax.sgd(0.1))
    step = steps.make_cass_step(
        cass_apply,
        tx,
        objective=objective or steps.CassObjective(),
        views=PLAIN,
        **more,
    )
    return step, steps.init_state(variables(), tx, key=KEY)


def features(data):
    return np.asarray(data["image"], np.float64).reshape(B, -1) / 255


def test_cass_step_by_numpy():
    """Loss and the update of one arm in float64, from the formula."""
    step, state = cass_step()
    data = batch()
    new, metrics = jax.jit(step)(state, data)
    x = features(data)
    a, b = (np.asarray(state.params[k], np.float64) for k in "ab")

    def loss(a, b):
        za, zb = x @ a, x @ b
        cos = (
            (za * zb).sum(-1)
            / np.linalg.norm(za, axis=-1)
            / np.linalg.norm(zb, axis=-1)
        )
        return np.mean(2 - 2 * cos)

    np.testing.assert_allclose(metrics["loss"], loss(a, b), rtol=1e-5)
    np.testing.assert_allclose(metrics["cass"], loss(a, b), rtol=1e-5)
    for i, j in [(0, 0), (7, 2)]:
        bump = np.zeros_like(a)
        bump[i, j] = 1e-5
        slope = (loss(a + bump, b) - loss(a - bump, b)) / 2e-5
        moved = float(new.params["a"][i, j] - state.params["a"][i, j])
        np.testing.assert_allclose(moved, -0.1 * slope, rtol=1e-3, atol=1e-6)
    assert int(new.step) == 1 and float(new.batch_stats["seen"]) == 1


def test_both_arms_get_gradients_unless_stopped():
    step, state = cass_step()
    new, _ = jax.jit(step)(state, batch())
    assert all(np.any(new.params[k] != state.params[k]) for k in "ab")

    def loss(params, which):
        out, _ = cass_apply(
            {**variables(), "params": params},
            PLAIN(KEY, batch(), train=True),
            train=True,
        )
        other = "b" if which == "a" else "a"
        fixed = {
            which: out[which],
            other: jax.tree.map(jax.lax.stop_gradient, out[other]),
        }
        return steps.cass_loss(
            fixed, jnp.ones(B), objective=steps.CassObjective(stop_gradient=True)
        )[0]

    # With stop-gradient an arm learns through its own prediction only.
    params = variables()["params"]
    full = jax.grad(
        lambda p: steps.cass_loss(
            cass_apply(
                {**variables(), "params": p},
                PLAIN(KEY, batch(), train=True),
                train=True,
            )[0],
            jnp.ones(B),
            objective=steps.CassObjective(stop_gradient=True),
        )[0]
    )(params)
    np.testing.assert_allclose(full["a"], jax.grad(loss)(params, "a")["a"], rtol=1e-5)
    np.testing.assert_allclose(full["b"], jax.grad(loss)(params, "b")["b"], rtol=1e-5)


def test_objective_terms_add_up():
    objective = steps.CassObjective(standardize=True, variance=2.0, covariance=0.5)
    step, state = cass_step(objective)
    _, metrics = jax.jit(step)(state, batch())
    total = metrics["cass"] + 2 * metrics["variance"] + 0.5 * metrics["covariance"]
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-6)
    _, plain = jax.jit(cass_step()[0])(state, batch())
    assert abs(float(plain["cass"] - metrics["cass"])) > 1e-3


def test_masked_examples_do_not_matter():
    objective = steps.CassObjective(standardize=True, variance=1.0, covariance=1.0)
    step, state = cass_step(objective)
    data = batch()
    data["weight"][5:] = 0
    noisy = dict(data, image=data["image"].copy())
    noisy["image"][5:] = 255 - noisy["image"][5:]
    step = jax.jit(step)
    one, other = step(state, data), step(state, noisy)
    for a, b in zip(
        jax.tree.leaves(one[0].params), jax.tree.leaves(other[0].params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert np.isfinite(one[1]["loss"])


def test_supervised_step_by_numpy():
    tx = optax.with_extra_args_support(optax.sgd(0.1))
    step = steps.make_supervised_step(
        logits_apply, tx, views=PLAIN, positive_weight=3.0
    )
    data = batch()
    data["label"][2] = -1  # unknown: left out
    state = steps.init_state(variables(out=1), tx, key=KEY)
    new, metrics = jax.jit(step)(state, data)
    known = data["label"] >= 0
    x, y = features(data)[known], data["label"][known]
    for arm in "ab":
        w = np.asarray(state.params[arm], np.float64)
        p = 1 / (1 + np.exp(-(x @ w)[:, 0]))
        loss = np.mean(-3.0 * y * np.log(p) - (1 - y) * np.log(1 - p))
        np.testing.assert_allclose(metrics[f"bce/{arm}"], loss, rtol=1e-5)
        slope = x.T @ (-3.0 * y * (1 - p) + (1 - y) * p) / known.sum()
        np.testing.assert_allclose(
            new.params[arm][:, 0], w[:, 0] - 0.1 * slope, rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_gives_the_same_update(parts):
    tx = optax.with_extra_args_support(optax.sgd(0.1))

    def make(accumulate):
        return steps.make_supervised_step(
            logits_apply, tx, views=PLAIN, accumulate=accumulate
        )

    data = batch()
    data["weight"][:3] = 0  # parts of unequal weight
    state = steps.init_state(variables(out=1), tx, key=KEY)
    whole, m1 = jax.jit(make(1))(state, data)
    split, m2 = jax.jit(make(parts))(state, data)
    np.testing.assert_allclose(m1["loss"], m2["loss"], rtol=1e-6)
    for a, b in zip(
        jax.tree.leaves(whole.params), jax.tree.leaves(split.params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert float(split.batch_stats["seen"]) == parts


def test_accumulated_outputs_keep_their_examples():
    """The collapse panel sees the outputs beside their weights."""
    data = batch()
    data["weight"][4:] = 0
    (one, state), (two, _) = cass_step(), cass_step(accumulate=2)
    _, whole = jax.jit(one)(state, data)
    _, parts = jax.jit(two)(state, data)
    for name in ("std", "mean_cosine", "effective_rank"):
        np.testing.assert_allclose(
            whole[f"collapse/a/{name}"], parts[f"collapse/a/{name}"], rtol=1e-5
        )


def test_a_batch_that_cannot_be_parted_is_refused():
    step, state = cass_step(accumulate=3)
    with pytest.raises(ValueError, match="8 does not divide into 3 parts"):
        step(state, batch())


def test_a_panel_is_computed_now_and_then():
    """In a branch of the program or not, the figures are the same."""
    seen = []
    for branch in (True, False):
        step, state = cass_step(panel=steps.Panel(3, branch=branch))
        assert ("cond[" in str(jax.make_jaxpr(step)(state, batch(0)))) == branch
        step, found = jax.jit(step), []
        for i in range(6):
            state, metrics = step(state, batch(i))
            found.append([v for k, v in metrics.items() if k.startswith("collapse/")])
        seen.append(np.array(found))
    np.testing.assert_allclose(seen[1], seen[0], rtol=1e-6)
    there = np.isfinite(seen[0]).all(axis=1)
    assert there.tolist() == [True, False, False, True, False, False]
    assert np.isnan(seen[0][~there]).all()


def test_scan_steps_is_the_steps_one_after_another():
    step, state = cass_step()
    data = [batch(i) for i in range(3)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *data)
    scanned, metrics = jax.jit(steps.scan_steps(step))(state, stacked)
    losses = []
    for one in data:
        state, m = jax.jit(step)(state, one)
        losses.append(m["loss"])
    np.testing.assert_allclose(metrics["loss"], losses, rtol=1e-6)
    for a, b in zip(
        jax.tree.leaves(scanned.params), jax.tree.leaves(state.params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_batch_must_split_evenly():
    with pytest.raises(ValueError, match="a batch of 6 .* over 4 devices"):
        parallel.check_batch(parallel.mesh(4), 6)
    with pytest.raises(ValueError, match="asked for 99 devices"):
        parallel.mesh(99)


HAND = {
    # start 1, momentum 3/4: the parameters, then the average.
    ("ema", 1): [
        [0, 1, 0, 0, 0],
        [0, 3 / 4, 1 / 4, 0, 0],
        [0, 9 / 16, 3 / 16, 1 / 4, 0],
        [0, 27 / 64, 9 / 64, 3 / 16, 1 / 4],
    ],
    # From the start it is an average with the parameters before the first update.
    ("ema", 0): [
        [3 / 4, 1 / 4, 0, 0, 0],
        [9 / 16, 3 / 16, 1 / 4, 0, 0],
        [27 / 64, 9 / 64, 3 / 16, 1 / 4, 0],
        [81 / 256, 27 / 256, 9 / 64, 3 / 16, 1 / 4],
    ],
    # The mean of the models after the updates from the start on.
    ("swa", 2): [
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1 / 2, 1 / 2],
    ],
    ("swa", 0): [
        [0, 1, 0, 0, 0],
        [0, 1 / 2, 1 / 2, 0, 0],
        [0, 1 / 3, 1 / 3, 1 / 3, 0],
        [0, 1 / 4, 1 / 4, 1 / 4, 1 / 4],
    ],
}


@pytest.mark.parametrize(("kind", "start"), HAND)
def test_averages_by_hand(kind, start):
    """As shares of the parameters after 0 to 4 updates without an average."""
    plain, state = cass_step()
    plain, path = jax.jit(plain), [state.params]
    for number in range(4):
        state, _ = plain(state, batch(number))
        path.append(state.params)

    averaging = steps.Averaging(kind, momentum=0.75, start=start)
    step, _ = cass_step(averaging=averaging)
    tx = optax.with_extra_args_support(optax.sgd(0.1))
    state = steps.init_state(variables(), tx, key=KEY, averaging=averaging)
    step = jax.jit(step)
    for number, shares in enumerate(HAND[kind, start]):
        state, _ = step(state, batch(number))
        for arm in "ab":
            expected = sum(
                share * np.asarray(params[arm], np.float64)
                for share, params in zip(shares, path, strict=True)
            )
            np.testing.assert_allclose(
                state.average[arm], expected, rtol=1e-5, atol=1e-6
            )
            # What is trained is not touched by its average.
            np.testing.assert_allclose(
                state.params[arm], path[number + 1][arm], rtol=1e-6, atol=1e-7
            )
    assert np.abs(state.average["a"] - state.params["a"]).max() > 1e-3


def test_an_average_is_what_is_evaluated():
    tx = optax.sgd(0.1)
    plain = steps.init_state(variables(), tx, key=KEY)
    averaging = steps.Averaging("swa")
    kept = steps.init_state(variables(), tx, key=KEY, averaging=averaging)
    kept = kept.replace(average=jax.tree.map(lambda x: x + 1, kept.average))
    assert plain.average == {}
    for state, params in ((plain, plain.params), (kept, kept.average)):
        chosen = state.weights()
        assert chosen.keys() == {"params", "batch_stats"}
        assert chosen["params"] is params
        assert chosen["batch_stats"] is state.batch_stats


def test_an_unknown_average():
    with pytest.raises(ValueError, match="'ema' or 'swa', got 'mean'"):
        steps.Averaging("mean")


def test_exactly_two_arms():
    z = jnp.ones((2, 3))
    with pytest.raises(ValueError, match="two arms, got"):
        steps.cass_loss({"a": (z, z)}, jnp.ones(2), objective=steps.CassObjective())


def test_unknown_labels_do_not_weigh_on_parts():
    """Two parts with different numbers of known labels: the update of one."""
    tx = optax.with_extra_args_support(optax.sgd(0.1))
    data = batch()
    data["label"][[0, 2, 4]] = -1
    results = []
    for parts in (1, 2):
        step = steps.make_supervised_step(
            logits_apply, tx, views=PLAIN, accumulate=parts
        )
        state = steps.init_state(variables(out=1), tx, key=KEY)
        results.append(jax.jit(step)(state, data))
    (one, m1), (two, m2) = results
    np.testing.assert_allclose(m1["loss"], m2["loss"], rtol=1e-6)
    for arm in "ab":
        np.testing.assert_allclose(one.params[arm], two.params[arm], rtol=1e-5)
