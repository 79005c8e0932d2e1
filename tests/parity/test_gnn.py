"""Graph layers and classifiers beside PyTorch Geometric's, from random weights."""

import runpy
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    # torch_geometric and torch warn of what they themselves import.
    warnings.simplefilter("ignore")
    pytest.importorskip("torch_geometric")
    MAKE = runpy.run_path(str(Path(__file__).parents[1] / "golden" / "make_gnn.py"))

from memejax.models import gnn  # noqa: E402

GRAPHS = dict(MAKE["graphs"](seed=5))


def tuple_of(graph):
    graph = dict(graph)
    edges = {name: graph.pop(name) for name in ("weight", "box", "type")}
    return jraph.GraphsTuple(edges=edges, globals=None, **graph)


def assert_close(got, expected, tolerance=1e-5):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("case", sorted(MAKE["CASES"]))
def test_layers(case):
    """Outputs, and gradients by nodes and parameters."""
    ours, attributes, theirs, fields = MAKE["CASES"][case]
    theirs = MAKE["randomise"](theirs, 11)
    module: Any = getattr(gnn, ours)(**attributes)
    params = unflatten_dict(MAKE["parameters"](ours, theirs), sep="/")
    for name, graph in GRAPHS.items():
        nodes = torch.from_numpy(graph["nodes"]).requires_grad_()
        theirs.zero_grad()
        expected = MAKE["called"](theirs, graph, fields, nodes)
        torch.sin(expected).sum().backward()

        def loss(params, nodes, graph=graph):
            out = module.apply({"params": params}, tuple_of({**graph, "nodes": nodes}))
            return jnp.sum(jnp.sin(out.nodes)), out.nodes

        grad = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
        gradients, out = grad(params, graph["nodes"])
        assert_close(out, expected.detach())
        assert_close(gradients[1], nodes.grad, 2e-5)
        if name == "few":
            named = {k: p.grad.numpy() for k, p in theirs.named_parameters()}
            by_name = unflatten_dict(MAKE["renamed"](ours, named), sep="/")
            # A gradient sums over nodes and edges what an output has once.
            jax.tree.map(partial(assert_close, tolerance=4e-5), gradients[0], by_name)


@pytest.mark.parametrize("name", ["gcn", "sage", "gat"])
def test_published_classifiers(name):
    """At their full size, on memes with up to ten entities and one without."""
    rng = np.random.default_rng(3)
    sizes = {k: gnn.GNNS[name][k] for k in ("widths", "heads") if k in gnn.GNNS[name]}
    theirs = MAKE["randomise"](MAKE["Published"](name, inputs=256, **sizes), 4)
    with torch.no_grad():
        for parameter in theirs.parameters():
            # As wide as they are, at 0.7 each tanh would be at its end.
            parameter.mul_(0.1)
    senders, receivers, n_node, n_edge = [], [], [], []
    for k in (10, 3, 0):
        first = sum(n_node)
        one = [first + i for i in (0, 1) for _ in range(k)]
        two = [first + 2 + j for _ in (0, 1) for j in range(k)]
        senders, receivers = senders + one + two, receivers + two + one
        n_node, n_edge = [*n_node, 2 + k], [*n_edge, 4 * k]
    graph = {
        "nodes": rng.normal(size=(sum(n_node), 256)).astype(np.float32),
        "senders": np.array(senders, np.int32),
        "receivers": np.array(receivers, np.int32),
        "n_node": np.array(n_node, np.int32),
        "n_edge": np.array(n_edge, np.int32),
    }
    with torch.no_grad():
        expected = theirs(graph)
    params = unflatten_dict(theirs.parameters_of_ours(), sep="/")
    module = gnn.GraphClassifier(**gnn.GNNS[name])
    ours = jraph.GraphsTuple(edges=None, globals=None, **graph)
    logits = jax.jit(partial(module.apply, train=False))({"params": params}, ours)
    assert_close(logits, expected)
    assert sum(p.numel() for p in theirs.parameters()) == sum(
        leaf.size for leaf in jax.tree.leaves(params)
    )
