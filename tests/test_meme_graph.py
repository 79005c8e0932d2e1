import dataclasses
from functools import partial
from typing import Any

import jax
import jraph
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memejax import graphs
from memejax.graphs import boxes, meme_graph
from memejax.models import gnn


def some(n=3, k=3, t=0, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 50, size=(n, k, 2))
    more: Any = {}
    if t:
        more = dict(
            tokens=rng.normal(size=(n, t, 3)).astype(np.float32),
            token_where=np.arange(t) < rng.integers(0, t + 1, size=(n, 1)),
        )
    return graphs.MemeFeatures(
        image=rng.normal(size=(n, 6)).astype(np.float32),
        text=rng.normal(size=(n, 4)).astype(np.float32),
        entities=rng.normal(size=(n, k, 5)).astype(np.float32),
        where=np.arange(k) < rng.integers(0, k + 1, size=(n, 1)),
        boxes=np.concatenate([corners, corners + 30], axis=-1).astype(np.float32),
        sizes=np.tile(np.array([80, 100]), (n, 1)),
        classes=rng.integers(0, 7, size=(n, k)),
        scores=rng.uniform(0.1, 1, size=(n, k)).astype(np.float32),
        **more,
    )


def edges_of(graph, g, name):
    """Edges of one type within graph g, as pairs of its nodes."""
    first = graph.n_node[:g].sum()
    stretch = slice(graph.n_edge[:g].sum(), graph.n_edge[: g + 1].sum())
    kept = graph.edges["type"][stretch] == meme_graph.EDGE_TYPES.index(name)
    ends = graph.senders[stretch][kept] - first, graph.receivers[stretch][kept] - first
    return sorted(zip(*(e.tolist() for e in ends), strict=True))


def three():
    """A meme with the first two of three entities, and one with none."""
    memes = some(n=2)
    where = np.array([[True, True, False], [False, False, False]])
    return dataclasses.replace(memes, where=where)


def test_the_published_graph_by_hand():
    memes = three()
    graph = graphs.batch(memes, [0, 1])
    assert graph.n_node.tolist() == [4, 2, 5] and graph.n_edge.tolist() == [8, 0, 16]
    kinds = [0, 1, 2, 2, 0, 1, -1, -1, -1, -1, -1]
    assert graph.nodes["kind"].tolist() == kinds
    assert graph.nodes["place"][:6].tolist() == [0, 0, 0, 1, 0, 0]
    assert edges_of(graph, 0, "image_to_entity") == [(0, 2), (0, 3)]
    assert edges_of(graph, 0, "entity_to_image") == [(2, 0), (3, 0)]
    assert edges_of(graph, 0, "text_to_entity") == [(1, 2), (1, 3)]
    assert edges_of(graph, 0, "entity_to_text") == [(2, 1), (3, 1)]
    features = graph.nodes["features"]
    np.testing.assert_array_equal(features[0], memes.image[0])
    np.testing.assert_array_equal(features[5, :4], memes.text[1])
    np.testing.assert_array_equal(features[3, :5], memes.entities[0, 1])
    assert not features[5, 4:].any() and not features[6:].any()
    # Padding edges are at the first padding node, as jraph's are.
    assert (graph.senders[8:] == 6).all() and (graph.receivers[8:] == 6).all()
    assert jraph.get_node_padding_mask(graph).sum() == 6
    assert jraph.get_edge_padding_mask(graph).sum() == 8
    assert graph.globals["index"].tolist() == [0, 1, -1]
    into = graph.receivers[:8]
    types = graph.edges["type"][:8]
    scored = np.where(np.isin(into, [0, 1]), graph.senders[:8], into) - 2
    np.testing.assert_array_equal(
        graph.edges["weight"][:8], memes.scores[0, scored], err_msg=str(types)
    )


def test_geometry_by_hand():
    memes = three()
    two = np.array([[10.0, 20, 30, 60], [20, 20, 40, 40], [0, 0, 0, 0]])
    memes = dataclasses.replace(memes, boxes=np.stack([two, two]).astype(np.float32))
    graph = graphs.batch(memes, [0], relations=("image_entity", "overlap"), overlap=0.1)
    assert edges_of(graph, 0, "overlap") == [(2, 3), (3, 2)]
    at = np.flatnonzero((graph.senders == 2) & (graph.receivers == 3))[0]
    # Centres (20, 40) and (30, 30) of 100 x 80 pixels; sides 20 x 40 and 20 x 20;
    # they share 10 x 20 = 200 of 800 + 400 - 200 pixels.
    expected = [-0.1, 0.125, 0.0, np.log(2), 0.2]
    np.testing.assert_allclose(graph.edges["box"][at], expected, rtol=1e-6, atol=1e-7)
    at = np.flatnonzero((graph.senders == 0) & (graph.receivers == 2))[0]
    # The image is the whole picture.
    expected = [0.3, 0.0, np.log(5), np.log(2), 0.1]
    np.testing.assert_allclose(graph.edges["box"][at], expected, rtol=1e-6, atol=1e-7)
    graph = graphs.batch(memes, [0], relations=("overlap",), overlap=0.2)
    assert edges_of(graph, 0, "overlap") == []


def test_similar_entities_by_hand():
    memes = some(n=1, k=4)
    entities = np.zeros((1, 4, 5), np.float32)
    entities[0, :, :2] = [[1, 0], [2, 1], [0, 3], [1, 0]]
    where = np.array([[True, True, True, False]])
    memes = dataclasses.replace(memes, entities=entities, where=where)
    graph = graphs.batch(memes, [0], relations=("similar",), similar=1)
    # Cosines: 0-1 is 2 / sqrt(5), 1-2 is 1 / sqrt(5), 0-2 is 0; entity 3 is not there.
    assert edges_of(graph, 0, "similar") == [(2, 3), (3, 2), (3, 4)]
    graph = graphs.batch(memes, [0], relations=("similar",), similar=2)
    assert len(edges_of(graph, 0, "similar")) == 6


def test_tokens_by_hand():
    memes = some(n=1, k=1, t=3)
    memes = dataclasses.replace(
        memes,
        where=np.array([[True]]),
        token_where=np.array([[True, True, False]]),
    )
    relations = ("image_text", "next_token", "text_token", "token_entity")
    graph = graphs.batch(memes, [0], relations=relations)
    assert graph.nodes["kind"].tolist() == [0, 1, 2, 3, 3, -1, -1]
    assert edges_of(graph, 0, "image_to_text") == [(0, 1)]
    assert edges_of(graph, 0, "text_to_image") == [(1, 0)]
    assert edges_of(graph, 0, "text_to_token") == [(1, 3), (1, 4)]
    assert edges_of(graph, 0, "token_to_text") == [(3, 1), (4, 1)]
    assert edges_of(graph, 0, "token_to_next") == [(3, 4)]
    assert edges_of(graph, 0, "token_to_last") == [(4, 3)]
    assert edges_of(graph, 0, "token_to_entity") == [(3, 2), (4, 2)]
    assert edges_of(graph, 0, "entity_to_token") == [(2, 3), (2, 4)]
    np.testing.assert_array_equal(graph.nodes["features"][4, :3], memes.tokens[0, 1])
    # No relation of tokens, no nodes of tokens.
    assert len(graphs.batch(memes, [0]).nodes["kind"]) == 2 + 1 + 1


RELATIONS = ("image_entity", "text_entity", "overlap", "similar", "text_token")


@settings(deadline=None, derandomize=True, max_examples=30)
@given(seed=st.integers(0, 1000))
def test_shape_is_static_and_a_meme_is_the_same_in_any_batch(seed):
    memes = some(n=5, k=4, t=2, seed=seed)
    index = np.random.default_rng(seed).integers(0, 5, size=3)
    graph = graphs.batch(memes, index, relations=RELATIONS)
    # Edges: 4 * 4 published, 4 * 3 overlaps, 4 * 2 alike, 2 * 2 of tokens.
    assert len(graph.nodes["kind"]) == 3 * 8 + 1 and len(graph.senders) == 3 * 40
    assert graph.n_node.sum() == 25 and graph.n_edge.sum() == 120
    parts = jraph.unbatch_np(graph)
    for place, part in zip(index, parts, strict=False):
        alone = jraph.unbatch_np(graphs.batch(memes, [place], relations=RELATIONS))[0]
        jax.tree.map(np.testing.assert_array_equal, part, alone)
        assert part.n_node[0] == 2 + memes.where[place].sum() + (
            0 if memes.token_where is None else memes.token_where[place].sum()
        )


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(st.floats(0, 9), min_size=8, max_size=8))
def test_iou_agrees_with_counting_cells(values):
    ends = np.round(np.array(values)).reshape(2, 2, 2)
    a, b = np.sort(ends, axis=1).reshape(2, 4)
    cells = np.arange(10) + 0.5

    def inside(box):
        x, y = ((cells > box[i]) & (cells < box[i + 2]) for i in (0, 1))
        return x[None] & y[:, None]

    union = (inside(a) | inside(b)).sum()
    expected = (inside(a) & inside(b)).sum() / union if union else 0.0
    np.testing.assert_allclose(boxes.iou(a, b), expected, rtol=1e-6)


def test_a_model_reads_it_and_padding_entities_change_nothing():
    """The same memes with room for more entities have the same logits."""
    memes = some(n=2, k=2)
    wide = dataclasses.replace(
        memes,
        entities=np.pad(memes.entities, ((0, 0), (0, 2), (0, 0)), constant_values=9),
        **{
            name: np.pad(getattr(memes, name), ((0, 0), (0, 2)))
            for name in ("where", "classes", "scores")
        },
        boxes=np.pad(memes.boxes, ((0, 0), (0, 2), (0, 0))),
    )
    module = gnn.MemeGraphNet(
        gnn.NodeEncoder(
            graphs.widths(memes),
            names=("image", "text", "entity"),
            features=4,
            single_kinds=(0, 1),
        ),
        gnn.GraphClassifier(
            layer="rgcn",
            widths=(3,),
            dropouts=(0.0, 0.0),
            activation="relu",
            edge_fields=("type",),
            relations=len(meme_graph.EDGE_TYPES),
        ),
    )
    small, large = graphs.batch(memes, [1, 0]), graphs.batch(wide, [1, 0])
    shapes = jax.eval_shape(partial(module.init, train=False), jax.random.key(0), small)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
    )
    apply = jax.jit(partial(module.apply, train=False))
    logits = apply(variables, small)[:2]
    assert abs(float(logits[0] - logits[1])) > 1e-3
    np.testing.assert_allclose(apply(variables, large)[:2], logits, rtol=1e-5)


def test_what_is_wrong_is_said():
    memes = some()
    for options, match in (
        (dict(relations=("friends",)), "expected some of"),
        (dict(relations=("overlap", "overlap")), "each once"),
        (dict(relations=("text_token",)), "memes without tokens"),
        (dict(overlap=1.0), "got overlap 1.0"),
        (dict(similar=0), "similar 0"),
    ):
        with pytest.raises(ValueError, match=match):
            graphs.batch(memes, [0], **options)
    with pytest.raises(ValueError, match="places 0 to 3, expected 0 to below 3"):
        graphs.batch(memes, [0, 3])
    with pytest.raises(ValueError, match="got an index of shape"):
        graphs.batch(memes, [[0]])
    with pytest.raises(ValueError, match=r"got boxes of shape \(3, 2, 4\)"):
        dataclasses.replace(memes, boxes=memes.boxes[:, :2])
    with pytest.raises(ValueError, match="got one of tokens and token_where"):
        dataclasses.replace(memes, tokens=np.zeros((3, 2, 4), np.float32))
