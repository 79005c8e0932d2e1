"""Group options, each through `make_optimizer` and against numbers by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from memejax import optim
from memejax.models.distilbert import DistilBert
from memejax.models.resnet import ResNet
from memejax.models.vit import ViT

CONSTANT = optim.schedule("constant", steps=100, warmup=0)


def tree():
    return {
        "head": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 2.0)},
        "body": {"kernel": jnp.full((1, 2), 2.0)},
    }


def sgd(params, groups, **options):
    """Plain gradient descent: each update is -rate times what the group made of g."""
    return optim.make_optimizer(
        params,
        groups,
        **{"schedule": CONSTANT, "rule": "sgd", "momentum": 0.0} | options,
    )


def first_update(tx, grads, params):
    return jax.jit(tx.update)(grads, tx.init(params), params)[0]


# clip_each


def test_clip_each_by_hand():
    """Norms 10, 5 and 0.5, each alone against 1."""
    grads = {
        "head": {
            "kernel": jnp.array([[6.0, 0.0], [0.0, 8.0]]),
            "bias": jnp.array([-3.0, 4.0]),
        },
        "body": {"kernel": jnp.array([[0.3, 0.4]])},
    }
    tx = sgd(tree(), {"all": optim.Group(".*", 1.0, clip_each=1.0)})
    updates = first_update(tx, grads, tree())
    np.testing.assert_allclose(updates["head"]["kernel"], [[-0.6, 0], [0, -0.8]])
    np.testing.assert_allclose(updates["head"]["bias"], [0.6, -0.8])
    np.testing.assert_allclose(updates["body"]["kernel"], [[-0.3, -0.4]])


def test_clip_each_comes_before_clip():
    """Three norms cut to 1 are together sqrt(3), cut to 1 again."""
    grads = jax.tree.map(lambda x: 100 * x, tree())
    tx = sgd(tree(), {"all": optim.Group(".*", 1.0, clip_each=1.0, clip=1.0)})
    updates = first_update(tx, grads, tree())
    norms = [np.linalg.norm(u) for u in jax.tree.leaves(updates)]
    np.testing.assert_allclose(norms, [3**-0.5] * 3, rtol=1e-5)


def test_clip_each_leaves_a_gradient_of_zero():
    tx = sgd(tree(), {"all": optim.Group(".*", 1.0, clip_each=0.1)})
    updates = first_update(tx, jax.tree.map(jnp.zeros_like, tree()), tree())
    assert all(np.all(np.asarray(u) == 0) for u in jax.tree.leaves(updates))


# clip


@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 4.0, np.inf, np.nan])
def test_clip_against_optax(norm):
    """All leaves as one vector; up to the largest norm bit for bit unchanged."""
    ones = jax.tree.map(jnp.ones_like, tree())
    grads = jax.tree.map(lambda x: x * jnp.float32(norm) / jnp.sqrt(8.0), ones)
    tx = sgd(tree(), {"all": optim.Group(".*", 1.0, clip=1.0)})
    clip = optax.clip_by_global_norm(1.0)
    wanted, _ = clip.update(grads, clip.init(grads))
    if norm < 1:
        wanted = grads
    for ours, theirs in zip(
        jax.tree.leaves(first_update(tx, grads, tree())),
        jax.tree.leaves(wanted),
        strict=True,
    ):
        rtol = 0 if norm < 1 else 1e-6
        np.testing.assert_allclose(-ours, theirs, rtol=rtol, atol=0)


# frozen_steps


def groups(**head):
    return {
        "head": optim.Group("head/.*", 0.1, weight_decay=0.5, **head),
        "body": optim.Group("body/.*", 0.1, weight_decay=0.5),
    }


@pytest.mark.parametrize("rule", ["adamw", "sgd", "lars"])
def test_frozen_steps_then_as_fresh(rule):
    """After n updates that leave it alone, a group starts as on its first day."""
    rng = np.random.default_rng(0)
    grads = [
        jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), tree())
        for _ in range(6)
    ]
    tx = optim.make_optimizer(
        tree(), groups(frozen_steps=3), schedule=CONSTANT, rule=rule
    )
    fresh = optim.make_optimizer(tree(), groups(), schedule=CONSTANT, rule=rule)
    update, update_fresh = jax.jit(tx.update), jax.jit(fresh.update)
    params, state = tree(), tx.init(tree())
    begun = state.inner_states["head"]
    for grad in grads[:3]:
        updates, state = update(grad, state, params)
        assert np.any(np.asarray(updates["body"]["kernel"]) != 0)
        params = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(params["head"]["kernel"], 2.0)
    np.testing.assert_array_equal(params["head"]["bias"], 2.0)
    changed = [
        np.asarray(b)
        for a, b in zip(
            jax.tree.leaves(begun),
            jax.tree.leaves(state.inner_states["head"]),
            strict=True,
        )
        if np.any(np.asarray(a) != np.asarray(b))
    ]
    assert changed == [3]  # the count of steps, and nothing of the rule's
    other, other_state = dict(params), fresh.init(params)
    for grad in grads[3:]:
        updates, state = update(grad, state, params)
        params = optax.apply_updates(params, updates)
        updates, other_state = update_fresh(grad, other_state, other)
        other = optax.apply_updates(other, updates)
        for a, b in zip(
            jax.tree.leaves(params["head"]), jax.tree.leaves(other["head"]), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    assert np.all(np.asarray(params["head"]["kernel"]) != 2.0)


def test_frozen_steps_do_not_hold_the_schedules_up():
    """Adam's update with g = 1 is the rate; both schedules are at step 2 by then."""
    rate = optim.schedule("cosine", steps=4, warmup=0)
    decay = optim.cosine(0.1, 0.5, steps=4)
    recipes = {"all": optim.Group(".*", 0.1, weight_decay=9.0, frozen_steps=2)}
    tx = optim.make_optimizer(
        tree(), recipes, schedule=rate, weight_decay_schedule=decay, eps=0.0
    )
    rates = optim.make_learning_rates(recipes, rate)
    decays = optim.make_weight_decays(recipes, decay)
    params, state, seen = tree(), tx.init(tree()), []
    for step in range(3):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        seen.append((float(rates(state, step)["all"]), float(decays(step)["all"])))
    np.testing.assert_allclose(seen, [(0, 0), (0, 0), (0.05, 0.3)], rtol=1e-6)
    np.testing.assert_allclose(updates["head"]["bias"], -0.05, rtol=1e-4)
    np.testing.assert_allclose(
        updates["head"]["kernel"], -0.05 * (1 + 0.3 * 2), rtol=1e-4
    )


def test_a_plateau_sees_the_frozen_steps_too():
    recipes = {"all": optim.Group(".*", 0.1, frozen_steps=3)}
    tx = optim.make_optimizer(
        tree(),
        recipes,
        schedule=CONSTANT,
        plateau=dict(factor=0.5, patience=1, min_lr=0.0),
    )
    rates = optim.make_learning_rates(recipes, CONSTANT)
    state, seen = tx.init(tree()), []
    for step in range(4):
        _, state = tx.update(tree(), state, tree(), value=jnp.float32(1.0))
        seen.append(float(rates(state, step)["all"]))
    np.testing.assert_allclose(seen, [0, 0, 0, 0.05])


# decay_exempt and weight_decay_schedule


def decay_alone(params, recipes, **options):
    """The updates of a gradient of 0: minus rate times decay times the leaf."""
    tx = sgd(params, recipes, **options)
    return first_update(tx, jax.tree.map(jnp.zeros_like, params), params)


def test_decay_exempt_and_small_leaves_do_not_decay():
    recipes = {"all": optim.Group(".*", 0.5, weight_decay=0.1, decay_exempt="body/.*")}
    updates = decay_alone(tree(), recipes)
    np.testing.assert_allclose(updates["head"]["kernel"], -0.5 * 0.1 * 2)
    np.testing.assert_array_equal(updates["head"]["bias"], 0)
    np.testing.assert_array_equal(updates["body"]["kernel"], 0)


def test_decay_exempt_matches_the_whole_path_and_something():
    recipes = {"all": optim.Group(".*", 0.5, weight_decay=0.1, decay_exempt="body")}
    with pytest.raises(ValueError, match="decay_exempt body matches no leaf"):
        sgd(tree(), recipes)
    # Shared by groups of which only one has such a leaf.
    sgd(tree(), groups(decay_exempt="body/.*"))


def test_weight_decay_schedule_replaces_constants_but_not_zero():
    recipes = {
        "head": optim.Group("head/.*", 1.0, weight_decay=0.001),
        "body": optim.Group("body/.*", 1.0),
    }
    updates = decay_alone(
        tree(), recipes, weight_decay_schedule=optim.cosine(0.04, 0.4, steps=10)
    )
    np.testing.assert_allclose(updates["head"]["kernel"], -0.04 * 2, rtol=1e-6)
    np.testing.assert_array_equal(updates["body"]["kernel"], 0)


def test_weight_decays_by_hand():
    recipes = {
        "a": optim.Group("a", 1.0, weight_decay=0.001),
        "b": optim.Group("b", 1.0),
        "c": optim.Group("c", 0.0, weight_decay=0.1),
    }
    got = optim.make_weight_decays(recipes)(5)
    assert {k: round(float(v), 6) for k, v in got.items()} == dict(a=0.001, b=0, c=0)
    got = optim.make_weight_decays(recipes, optim.cosine(0.04, 0.4, steps=10))(5)
    assert {k: round(float(v), 6) for k, v in got.items()} == dict(a=0.22, b=0, c=0)


# layer_decay


def paths(model, *inputs):
    shapes = jax.eval_shape(
        lambda key, *x: model.init(key, *x, train=False),
        jax.random.key(0),
        *inputs,
    )
    return [
        optim.path_of(p)
        for p, _ in jax.tree_util.tree_leaves_with_path(shapes["params"])
    ]


def layers_by_part(names, depth=0):
    found = {}
    for name in names:
        layer, last = optim.layer_of(name, names)
        found.setdefault(name.split("/")[depth], set()).add((layer, last))
    return {part: layers.pop() for part, layers in found.items() if len(layers) == 1}


def test_layers_of_a_vit():
    model = ViT(hidden=8, layers=2, heads=2, mlp=8, patch=4, grid=2)
    assert layers_by_part(paths(model, jnp.zeros((1, 8, 8, 3)))) == {
        "patch": (0, 3),
        "cls": (0, 3),
        "positions": (0, 3),
        "block0": (1, 3),
        "block1": (2, 3),
        "norm": (3, 3),
    }


def test_layers_of_bert_whose_norm_is_of_the_embeddings():
    model = DistilBert(vocab_size=9, hidden=8, layers=2, heads=2, mlp=8, max_length=4)
    ids = jnp.zeros((1, 4), jnp.int32)
    assert layers_by_part(paths(model, ids, ids)) == {
        "words": (0, 3),
        "positions": (0, 3),
        "norm": (0, 3),
        "block0": (1, 3),
        "block1": (2, 3),
    }


def test_layers_of_a_resnet_count_through_the_stages():
    model = ResNet(stage_sizes=(2, 1), width=4, stem="patch4")
    assert layers_by_part(paths(model, jnp.zeros((1, 16, 16, 3)))) == {
        "stem": (0, 4),
        "stage0_block0": (1, 4),
        "stage0_block1": (2, 4),
        "stage1_block0": (3, 4),
    }


def test_layers_of_several_encoders_and_of_what_follows():
    names = [
        "arms_vit/image/patch/kernel",
        *(f"arms_vit/image/block{i}/mlp/kernel" for i in range(11)),
        "arms_vit/image/norm/scale",
        "arms_vit/text/words",
        "arms_vit/text/norm/scale",
        "arms_vit/text/block0/norm1/scale",
        "arms_vit/fc/kernel",
    ]
    got = {name: optim.layer_of(name, names) for name in names}
    assert got["arms_vit/image/patch/kernel"] == (0, 12)
    assert got["arms_vit/image/block2/mlp/kernel"] == (3, 12)
    # By number, not by letter.
    assert got["arms_vit/image/block10/mlp/kernel"] == (11, 12)
    assert got["arms_vit/image/norm/scale"] == (12, 12)
    assert got["arms_vit/text/words"] == (0, 2)
    assert got["arms_vit/text/norm/scale"] == (0, 2)
    assert got["arms_vit/text/block0/norm1/scale"] == (1, 2)
    assert got["arms_vit/fc/kernel"] == (12, 12)
    assert optim.layer_of("fc/kernel", ["fc/kernel"]) == (0, 0)


@pytest.mark.parametrize("rule", ["adamw", "sgd", "lars"])
def test_layer_decay_by_hand(rule):
    """Rates of decay^(L - l), with weight decay and momentum, against no decay."""
    params = {
        "vit": {
            "patch": jnp.full((2, 2), 1.0),
            "block0": jnp.full((2, 2), 1.0),
            "block1": jnp.full((2, 2), 1.0),
            "norm": jnp.full(2, 1.0),
        },
        "fc": jnp.full((2, 2), 1.0),
    }
    runs = {}
    for decay in (0.5, 1.0):
        recipes = {"all": optim.Group(".*", 0.1, weight_decay=0.1, layer_decay=decay)}
        tx = optim.make_optimizer(params, recipes, schedule=CONSTANT, rule=rule)
        state = tx.init(params)
        for _ in range(2):  # the same parameters again, so that updates compare
            updates, state = tx.update(params, state, params)
        runs[decay] = updates
    ratio = jax.tree.map(lambda a, b: float((a / b).mean()), runs[0.5], runs[1.0])
    expected = {
        "vit": {"patch": 0.125, "block0": 0.25, "block1": 0.5, "norm": 1.0},
        "fc": 1.0,
    }
    for a, b in zip(jax.tree.leaves(ratio), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert np.all(np.asarray(runs[1.0]["fc"]) < 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lr", -1.0),
        ("clip_each", -1.0),
        ("frozen_steps", -1),
        ("layer_decay", 0.0),
        ("layer_decay", 1.5),
    ],
)
def test_groups_check_their_numbers(field, value):
    with pytest.raises(ValueError, match=f"got {field} {value}"):
        optim.Group(**{"pattern": ".*", "lr": 0.1, field: value})
