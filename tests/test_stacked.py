"""Graphs of memes in static slots: what is gathered is what `batch` makes."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memejax import graphs
from memejax.graphs import meme_graph
from memejax.graphs.stacked import stack
from memejax.models import gnn
from memejax.models.gnn.normalize import normalize_nodes


def some(n=5, k=3, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 50, size=(n, k, 2))
    # Entities that are there need not be the first.
    where = rng.random((n, k)) < 0.6
    where[0] = False
    if n > 1:
        where[1] = True
    return graphs.MemeFeatures(
        image=rng.normal(size=(n, 6)).astype(np.float32),
        text=rng.normal(size=(n, 4)).astype(np.float32),
        entities=rng.normal(size=(n, k, 6)).astype(np.float32),
        where=where,
        boxes=np.concatenate([corners, corners + 30], axis=-1).astype(np.float32),
        sizes=np.tile(np.array([80, 100]), (n, 1)),
        classes=rng.integers(0, 7, size=(n, k)),
        scores=rng.uniform(0.1, 1, size=(n, k)).astype(np.float32),
    )


def pieces(graph, count, step):
    """Nodes and edges of each meme's graph, edges counted within it."""
    node, edge, found = 0, 0, []
    for g in range(count * step):
        n, e = int(graph.n_node[g]), int(graph.n_edge[g])
        if g % step == 0:
            nodes = {k: np.asarray(x)[node : node + n] for k, x in graph.nodes.items()}
            edges = {k: np.asarray(x)[edge : edge + e] for k, x in graph.edges.items()}
            ends = [
                np.asarray(x)[edge : edge + e] - node
                for x in (graph.senders, graph.receivers)
            ]
            found.append((nodes, edges, ends, int(graph.globals["index"][g])))
        node, edge = node + n, edge + e
    return found


RELATIONS = st.lists(
    st.sampled_from(
        ["image_entity", "text_entity", "image_text", "overlap", "similar"]
    ),
    unique=True,
)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    RELATIONS,
    st.integers(1, 4),
    st.lists(st.integers(0, 4), min_size=1, max_size=6),
    st.integers(0, 99),
)
def test_the_gathered_graph_is_the_batch(relations, k, index, seed):
    memes = some(k=k, seed=seed)
    stacked = stack(memes, relations=relations, similar=1)
    assert len(stacked) == 5
    expected = graphs.batch(memes, index, relations=relations, similar=1)
    got = stacked[np.array(index)]
    b, m = len(index), 2 + k + 1
    assert got.n_node.reshape(b, 2).sum(axis=1).tolist() == [m] * b
    theirs, ours = pieces(expected, b, 1), pieces(got, b, 2)
    for x, y in zip(jax.tree.leaves(theirs), jax.tree.leaves(ours), strict=True):
        np.testing.assert_array_equal(x, y)
    # What is left is padding: of no kind, and its edges go from its first node to it.
    assert (got.nodes["kind"] >= 0).sum() == expected.n_node[:-1].sum()
    empty = got.nodes["kind"] < 0
    assert not got.nodes["features"][empty].any()
    ends = got.senders[empty[got.senders]]
    np.testing.assert_array_equal(ends, got.receivers[empty[got.receivers]])
    assert len(ends) == len(got.senders) - expected.n_edge[:-1].sum()
    first = m * (ends // m) + got.n_node[::2][ends // m]
    np.testing.assert_array_equal(ends, first)


def test_a_network_says_the_same_of_it_under_jit():
    memes = some()
    index = np.array([3, 0, 1, 1])
    net = gnn.MemeGraphNet(
        gnn.NodeEncoder(
            (6, 4, 6), ("image", "text", "image"), features=8, single_kinds=(0, 1)
        ),
        gnn.GraphClassifier(**{**gnn.GNNS["gat"], "widths": (4, 4)}),
    )
    batch = graphs.batch(memes, index)
    init, apply = (
        jax.jit(functools.partial(method, train=False))
        for method in (net.init, net.apply)
    )
    variables = init(jax.random.key(0), jax.device_put(batch))
    expected = np.asarray(apply(variables, batch))[:4]
    on_device = jax.device_put(stack(memes))

    @jax.jit
    def logits(graphs, index):
        return net.apply(variables, graphs[index], train=False)[::2]

    got = logits(on_device, index)
    np.testing.assert_allclose(
        got, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )
    # Memes one and one are one meme; the others differ.
    assert got[2] == got[3] and len(set(np.asarray(got).tolist())) == 3


def test_many_memes_are_stacked_in_parts(monkeypatch):
    memes = some(n=7)
    whole = stack(memes)
    monkeypatch.setattr("memejax.graphs.stacked._CHUNK", 3)
    for x, y in zip(jax.tree.leaves(stack(memes)), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(x, y)
    assert whole.slots.globals["index"][:, 0].tolist() == list(range(7))
    assert whole.slots.n_node[0].tolist() == [2, 4]
    assert whole.slots.senders.max() < 6 <= whole.slots.senders.shape[1]


def test_without_memes():
    none = some(n=1)
    fields = {
        f.name: getattr(none, f.name)[:0]
        for f in dataclasses.fields(none)
        if getattr(none, f.name) is not None
    }
    with pytest.raises(ValueError, match="got no memes"):
        stack(graphs.MemeFeatures(**fields))
    with pytest.raises(ValueError, match="got relations"):
        stack(none, relations=("friends",))


def test_normalized_nodes_by_numpy():
    """As published: within each meme by itself."""
    graph = stack(some())[np.array([0, 1, 4])]
    x = np.asarray(graph.nodes["features"], np.float64)
    ends = np.cumsum(graph.n_node)
    expected = np.zeros_like(x)
    for low, high in zip(ends - graph.n_node, ends, strict=True):
        if high > low:
            own = x[low:high] - x[low:high].min()
            expected[low:high] = own / np.maximum(own.sum(1, keepdims=True), 1)
    got = jax.jit(normalize_nodes)(graph._replace(nodes=graph.nodes["features"])).nodes
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
    assert np.asarray(got).sum(1).max() == pytest.approx(1)


def test_text_only_reads_the_text():
    graph = stack(some())[np.arange(5)]
    nodes = graph._replace(nodes=graph.nodes["features"])
    net = gnn.MLP(places=(1,), hidden=8)
    variables = net.init(jax.random.key(0), nodes, train=False)
    before = net.apply(variables, nodes, train=False)
    text = graph.nodes["kind"] == meme_graph.KINDS.index("text")
    for changed, same in ((~text, True), (text, False)):
        x = np.where(changed[:, None], 0.5, graph.nodes["features"]).astype(np.float32)
        after = net.apply(variables, nodes._replace(nodes=x), train=False)
        assert np.array_equal(before[::2], after[::2]) == same
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    hidden = graph.nodes["features"][text] @ p["hidden"]["kernel"] + p["hidden"]["bias"]
    logit = p["classifier"]["logit"]
    expected = np.maximum(hidden, 0) @ logit["kernel"][:, 0] + logit["bias"]
    np.testing.assert_allclose(before[::2], expected, rtol=0, atol=1e-5)
