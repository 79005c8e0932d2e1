"""Small networks with dropout, by numpy and by the number of their parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax.models import convnet, layers, perceptron, resnet


def parameters(module, shape):
    variables = jax.eval_shape(
        lambda x: module.init(jax.random.key(0), x, train=False), jnp.zeros(shape)
    )
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_the_networks_are_those_of_their_names():
    mnist = convnet.ConvNet(10, **convnet.CONVNETS["convnet_mnist"])
    cifar = convnet.ConvNet(10, **convnet.CONVNETS["convnet_cifar10"])
    assert parameters(mnist, (1, 28, 28, 1)) == 1_199_882
    assert parameters(cifar, (1, 32, 32, 3)) == 1_250_858
    # torchvision's resnet18 with a 3x3 stem in place of its 7x7 and 10 classes.
    resnet18 = resnet.DropoutResNet(10)
    assert parameters(resnet18, (1, 32, 32, 3)) == 11_173_962
    three = perceptron.Perceptron(3)
    assert parameters(three, (1, 32, 32, 1)) == 1024 * 200 + 2 * 200 * 200 + 603 + 600


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(
    ("channels", "size", "stride"),
    # Sides of 7 and 6: with a stride windows reach all rows, but not all columns.
    [(1, 3, 1), (5, 3, 1), (5, 3, 2), (2, 5, 3)],
)
def test_a_convolution_by_product_is_the_librarys(channels, size, stride, padding):
    """Results and both gradients."""
    key = jax.random.key(channels)
    x = jax.random.normal(key, (2, 7, 6, channels))
    kernel = jax.random.normal(jax.random.fold_in(key, 1), (size, size, channels, 4))

    def run(way):
        both = functools.partial(way, stride=stride, padding=padding)
        out, pull = jax.vjp(both, x, kernel)
        return out, *pull(jax.random.normal(jax.random.key(9), out.shape))

    results = run(layers.convolve_by_product), run(layers.convolve)
    for ours, theirs in zip(*map(jax.tree.leaves, results), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize(
    ("shape", "features", "stride", "by_product"),
    [
        ((2, 9, 9, 3), 8, 1, True),
        ((2, 9, 9, 3), 8, 2, False),
        # 18 and 25 positions for 8 channels, up to 4 for each.
        ((2, 3, 3, 40), 8, 1, True),
        ((1, 5, 5, 40), 8, 1, True),
        ((1, 6, 6, 40), 8, 1, False),
        ((1, 11, 11, 40), 8, 2, False),
        ((1, 10, 10, 40), 8, 2, True),
    ],
)
def test_which_convolutions_are_products(shape, features, stride, by_product):
    """On a CPU alone; and derivatives go forward as well as backward."""
    conv = layers.Conv(features, 3, stride=stride, padding=1)
    x = jax.random.normal(jax.random.key(0), shape)
    variables = conv.init(jax.random.key(1), x)
    text = jax.jit(conv.apply).lower(variables, x).as_text()
    assert ("stablehlo.convolution" not in text) == by_product
    out, tangent = jax.jvp(lambda x: conv.apply(variables, x), (x,), (x,))
    np.testing.assert_allclose(tangent, out, rtol=1e-4, atol=1e-5)


def test_a_small_convnet_by_numpy():
    """Windows, bias, relu, maximum and dense layers written out."""
    module = convnet.ConvNet(3, stages=((2,),), padding=(1, 1), dense=4)
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 1)).astype(np.float32)
    variables = module.init(jax.random.key(0), x, train=False)
    params = jax.tree.map(lambda p: np.asarray(p) + 0.1, variables["params"])
    conv = params["convolutions_0_0"]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    mapped = np.zeros((2, 5, 4, 2))
    for i in range(3):
        for j in range(3):
            window = padded[:, i : i + 5, j : j + 4]
            mapped += window @ np.asarray(conv["conv"]["kernel"])[i, j]
    mapped = np.maximum(mapped + np.asarray(conv["bias"]), 0)[:, :4]
    halved = mapped.reshape(2, 2, 2, 2, 2, 2).max((2, 4)).reshape(2, -1)
    dense, out = params["hidden"], params["out"]
    hidden = np.maximum(halved @ dense["kernel"] + dense["bias"], 0)
    expected = hidden @ out["kernel"] + out["bias"]
    given = module.apply({"params": params}, x, train=False)
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "module",
    [
        perceptron.Perceptron(3, hidden=(8,), dropout=0.5),
        convnet.ConvNet(3, stages=((2,), (2,)), dense=8),
        resnet.DropoutResNet(3, stage_sizes=(1,), width=4, dropout=0.5),
    ],
    ids=["perceptron", "convnet", "resnet"],
)
def test_trunk_and_head_make_the_network_and_masks_can_be_shared(module):
    x = jax.random.normal(jax.random.key(1), (4, 16, 16, 1))
    variables = module.init(jax.random.key(0), x, train=False)

    def head(features, *, key=None, shared=False):
        rngs = {} if key is None else {"dropout": key}
        return module.apply(
            variables,
            features,
            train=key is not None,
            shared_mask=shared,
            rngs=rngs,
            method="head",
        )

    features = module.apply(variables, x, method="trunk")
    whole = module.apply(variables, x, train=False)
    np.testing.assert_allclose(head(features), whole, rtol=1e-5, atol=1e-6)
    key = jax.random.key(2)
    together = head(features, key=key, shared=True)
    alone = jnp.concatenate([head(f[None], key=key, shared=True) for f in features])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    # Something is dropped, and of each example its own where the mask is not shared.
    assert np.abs(together - whole).max() > 1e-3
    own = head(jnp.broadcast_to(features[:1], features.shape), key=key)
    assert np.abs(own - own[:1]).max() > 1e-3


def test_dropout_keeps_the_mean():
    x = jnp.ones((1, 100_000))
    dropped = layers.dropout(jax.random.key(0), x, rate=0.25)
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    # Four standard errors of the share kept.
    np.testing.assert_allclose(dropped.mean(), 1, atol=4 * (0.25 / 0.75 / 1e5) ** 0.5)
