"""Linen modules inside of NNX code, which newcomers to Flax write."""

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from flax import nnx

from memejax.models import GCN, ResNet, ViT


def test_an_encoder():
    vit = ViT(hidden=8, layers=1, heads=2, mlp=8, patch=4, grid=2)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    module = nnx.bridge.ToNNX(vit, rngs=nnx.Rngs(0)).lazy_init(images, train=False)
    params = nnx.to_pure_dict(nnx.state(module, nnx.Param))

    @nnx.jit
    def features(module, images):
        return module(images, train=False)

    expected = vit.apply({"params": params}, images, train=False)
    np.testing.assert_allclose(features(module, images), expected, rtol=0, atol=1e-6)


def test_an_encoder_with_statistics_trains():
    resnet = ResNet(stage_sizes=(1,), bottleneck=False, width=4, stem="patch4")
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    module = nnx.bridge.ToNNX(resnet, rngs=nnx.Rngs(0)).lazy_init(images, train=False)
    before = nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

    @nnx.jit
    def gradient(module, images):
        def loss(module):
            return jnp.square(module(images, train=True, mutable=["batch_stats"])).sum()

        return nnx.grad(loss)(module)

    norms = jax.tree.map(jnp.linalg.norm, gradient(module, images))
    assert all(np.isfinite(x) for x in jax.tree.leaves(norms))
    assert any(x > 0 for x in jax.tree.leaves(norms))
    after = nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, after)
    assert all(x > 0 for x in jax.tree.leaves(moved))


def test_a_graph_layer():
    graph = jraph.GraphsTuple(
        nodes=jnp.array([[1.0, 0.0], [3.0, 1.0], [10.0, 2.0]]),
        edges=None,
        globals=None,
        senders=jnp.array([0, 1]),
        receivers=jnp.array([2, 2]),
        n_node=jnp.array([3]),
        n_edge=jnp.array([2]),
    )
    layer = GCN(4)
    module = nnx.bridge.ToNNX(layer, rngs=nnx.Rngs(0)).lazy_init(graph)
    params = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    expected = layer.apply({"params": params}, graph)
    np.testing.assert_allclose(module(graph).nodes, expected.nodes, rtol=1e-6)
