import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from memejax.models import gnn

GOLDEN = Path(__file__).parent / "golden" / "gnn.npz"
with np.load(GOLDEN) as _file:
    FILE = dict(_file)
CASES = sorted(
    k.split("/")[0] for k in FILE if k.endswith("/ours") and not k.startswith("net")
)
NETS = ("gcn", "sage", "gat")
PARAMETERS = {"gcn": 42_209, "sage": 84_193, "gat": 17_665}


def known(name):
    """A graph of the file."""
    prefix = f"{name}/"
    fields = {k[len(prefix) :]: v for k, v in FILE.items() if k.startswith(prefix)}
    return jraph.GraphsTuple(
        edges={k: fields.pop(k) for k in ("weight", "box", "type")},
        globals=None,
        **fields,
    )


def params(case):
    prefix = f"{case}/params/"
    flat = {k[len(prefix) :]: v for k, v in FILE.items() if k.startswith(prefix)}
    return {"params": unflatten_dict(flat, sep="/")}


def layer(case) -> Any:
    name, attributes = json.loads(str(FILE[f"{case}/ours"]))
    fields = attributes.pop("edge_fields", None)
    more = {} if fields is None else {"edge_fields": tuple(fields)}
    return getattr(gnn, name)(**attributes, **more)


def net(name, **changed):
    sizes = json.loads(str(FILE[f"net_{name}/ours"]))
    sizes = {k: tuple(v) for k, v in sizes.items()}
    return gnn.GraphClassifier(**{**gnn.GNNS[name], **sizes, **changed})


@partial(jax.jit, static_argnames=("module", "train"))
def applied(variables, graph, *, module, train=False, key=None):
    rngs = None if key is None else {"dropout": key}
    out, sown = module.apply(
        variables, graph, train=train, rngs=rngs, mutable=["intermediates"]
    )
    return out, sown


def padded(graph, n_node=16, n_edge=21, n_graph=5):
    """As jraph pads; its numbers of the padding are then not 0 but large."""
    more = jraph.pad_with_graphs(graph, n_node, n_edge, n_graph)
    n, e = len(graph.nodes), len(graph.senders)
    nodes = np.concatenate([graph.nodes, np.full_like(more.nodes[n:], 9.0)])
    edges = {
        k: np.concatenate([v, np.full_like(more.edges[k][e:], 2)])
        for k, v in graph.edges.items()
    }
    return more._replace(nodes=nodes, edges=edges)


def assert_close(got, expected, tolerance=1e-5):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


# "few" has double edges, self loops and lonely nodes; "none" has no edge at all.
@pytest.mark.parametrize("case", CASES)
def test_layers_agree_with_the_reference_under_padding(case):
    module, graph, variables = layer(case), known("few"), params(case)
    expected = FILE[f"{case}/few/out"]

    @jax.jit
    def value_and_gradients(variables, graph):
        def loss(variables, nodes):
            out, sown = module.apply(
                variables,
                graph._replace(nodes=nodes),
                train=False,
                mutable=["intermediates"],
            )
            real = jraph.get_node_padding_mask(graph)[:, None]
            value = jnp.sum(jnp.where(real, jnp.sin(out.nodes), 0.0))
            return value, (out.nodes, sown)

        grad = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        return grad(variables, graph.nodes)

    more = padded(graph)
    (value, (out, sown)), gradients = value_and_gradients(variables, more)
    n = len(expected)
    assert_close(out[:n], expected)
    np.testing.assert_allclose(value, np.sin(expected).sum(), rtol=1e-4)
    for leaf in jax.tree.leaves(gradients):
        assert np.isfinite(leaf).all()
    assert np.abs(gradients[1][:n]).max() > 0
    assert not np.asarray(gradients[1][n:]).any()
    if f"{case}/few/attention" not in FILE:
        assert not sown
        return
    (weights,) = sown["intermediates"]["attention"]
    edges = len(more.senders)
    assert len(weights) == edges + len(more.nodes)
    loop = more.senders == more.receivers
    assert not np.asarray(weights[:edges])[loop].any()
    kept = np.concatenate([~loop, np.arange(len(more.nodes)) < n])
    assert_close(weights[kept], FILE[f"{case}/few/attention"])


@pytest.mark.parametrize("case", CASES)
def test_layers_agree_with_the_reference_without_edges(case):
    out, _ = applied(params(case), known("none"), module=layer(case))
    assert_close(out.nodes, FILE[f"{case}/none/out"])


def by_hand(name, nodes, weights):
    """One value a node: 0 -> 1 twice, 1 -> 2, with weights; node 3 alone."""
    x = nodes.astype(np.float64)
    w0, w1, w2 = weights.astype(np.float64)
    if name == "gcn":
        d = np.array([1, 1 + w0 + w1, 1 + w2, 1]) ** -0.5
        return np.array(
            [
                x[0],
                d[1] ** 2 * x[1] + (w0 + w1) * d[0] * d[1] * x[0],
                d[2] ** 2 * x[2] + w2 * d[1] * d[2] * x[1],
                x[3],
            ]
        )
    return x + np.array([0, x[0], x[1], 0])


@pytest.mark.parametrize("name", ["gcn", "mean", "max"])
def test_layers_by_hand(name):
    rng = np.random.default_rng(1)
    nodes = rng.normal(size=4).astype(np.float32)
    weights = rng.uniform(0.5, 2, size=3).astype(np.float32)
    graph = jraph.GraphsTuple(
        nodes=nodes[:, None],
        edges={"w": weights},
        senders=np.array([0, 0, 1]),
        receivers=np.array([1, 1, 2]),
        n_node=np.array([4]),
        n_edge=np.array([3]),
        globals=None,
    )
    one = {"kernel": jnp.ones((1, 1))}
    if name == "gcn":
        module: Any = gnn.GCN(1, weight_field="w")
        variables: Any = {"linear": one, "bias": jnp.zeros(1)}
    else:
        module = gnn.GraphSAGE(1, aggregate=name)
        variables = {"neighbours": one, "root": one, "bias": jnp.zeros(1)}
    out, _ = applied({"params": variables}, graph, module=module)
    assert_close(out.nodes[:, 0], by_hand(name, nodes, weights))


@pytest.mark.parametrize("name", NETS)
def test_published_classifiers_agree_with_the_reference(name):
    graph, expected = known("few"), FILE[f"net_{name}/out"]
    logits, _ = applied(params(f"net_{name}"), padded(graph), module=net(name))
    assert logits.shape == (5,)
    assert_close(logits[:2], expected)


def test_published_classifiers_have_the_known_number_of_parameters():
    graph = known("few")._replace(nodes=jnp.zeros((10, 256)))
    for name, count in PARAMETERS.items():
        init = partial(gnn.GraphClassifier(**gnn.GNNS[name]).init, train=False)
        shapes = jax.eval_shape(init, jax.random.key(0), graph)
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_projections_have_the_known_number_of_parameters():
    nodes = {"features": jnp.zeros((10, 2048)), "kind": jnp.zeros(10, jnp.int32)}
    encoder = gnn.NodeEncoder((2048, 768, 2048), names=("image", "text", "image"))
    init = partial(encoder.init, train=False)
    graph = known("few")._replace(nodes=nodes)
    shapes = jax.eval_shape(init, jax.random.key(0), graph)["params"]
    counts = {
        k: sum(leaf.size for leaf in jax.tree.leaves(v)) for k, v in shapes.items()
    }
    assert counts == {"image": 590_848, "text": 263_168}


MODULES: dict[str, Any] = {
    "gatv2": gnn.GraphClassifier(
        **{**gnn.GNNS["gatv2"], "widths": (3, 4), "heads": (2, 1)},
        edge_fields=("box", "type"),
        relations=3,
        readout="attention",
    ),
    "rgcn": gnn.GraphClassifier(
        **{**gnn.GNNS["rgcn"], "widths": (4, 3, 3)}, relations=3
    ),
    "gcn": net("gcn", edge_fields=("weight",)),
    "sage": net("sage", aggregate="max"),
    "deep_sets": gnn.DeepSets(4),
}


def random_graph(seed):
    """Two graphs of 4 and 3 nodes, 7 and 4 edges anywhere within them."""
    rng = np.random.default_rng(seed)
    ends = [
        np.concatenate([rng.integers(0, 4, 7), rng.integers(4, 7, 4)]) for _ in "sr"
    ]
    return jraph.GraphsTuple(
        nodes=rng.normal(size=(7, 5)).astype(np.float32),
        edges={
            "weight": rng.uniform(0.5, 2, 11).astype(np.float32),
            "box": rng.normal(size=(11, 3)).astype(np.float32),
            "type": rng.integers(0, 3, 11).astype(np.int32),
        },
        senders=ends[0].astype(np.int32),
        receivers=ends[1].astype(np.int32),
        n_node=np.array([4, 3], np.int32),
        n_edge=np.array([7, 4], np.int32),
        globals=None,
    )


@pytest.fixture(scope="module")
def variables():
    """Of each module; random, where `init` has biases of 0."""
    out = {}
    for name, module in MODULES.items():
        init = partial(module.init, train=False)
        shapes = jax.eval_shape(init, jax.random.key(0), random_graph(0))
        rng = np.random.default_rng(3)
        out[name] = jax.tree.map(
            lambda x, rng=rng: 0.7 * rng.normal(size=x.shape).astype(np.float32), shapes
        )
    return out


@pytest.mark.parametrize("name", sorted(MODULES))
@settings(deadline=None, derandomize=True, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_order_of_nodes_and_edges_does_not_matter(variables, name, seed):
    graph, rng = random_graph(seed), np.random.default_rng(seed + 1)
    new = np.concatenate([rng.permutation(4), 4 + rng.permutation(3)])
    order = np.concatenate([rng.permutation(7), 7 + rng.permutation(4)])
    moved = graph._replace(
        nodes=graph.nodes[np.argsort(new)],
        senders=new[graph.senders][order].astype(np.int32),
        receivers=new[graph.receivers][order].astype(np.int32),
        # "gcn" counts the last of two self loops, so that their order would matter.
        edges={k: v[order] for k, v in graph.edges.items()},
    )
    if name == "gcn":
        moved.edges["weight"] = np.ones(11, np.float32)
        graph = graph._replace(edges={**graph.edges, "weight": np.ones(11, np.float32)})
    out = [applied(variables[name], g, module=MODULES[name])[0] for g in (graph, moved)]
    assert np.abs(out[0]).max() > 0
    # Sums in another order: rounding grows over three layers.
    assert_close(out[1], out[0], 3e-5)


def test_training_under_padding_has_finite_gradients():
    graph = padded(random_graph(5), 12, 15, 5)
    module = gnn.GraphClassifier(
        layer="gat",
        widths=(3,),
        heads=(2,),
        activation="elu",
        dropouts=(0.5, 0.0),
        attention_dropout=0.5,
        readout="attention",
    )
    shapes = jax.eval_shape(partial(module.init, train=False), jax.random.key(0), graph)
    variables = jax.tree.map(lambda x: jnp.full(x.shape, 0.3), shapes)

    @jax.jit
    def gradient(variables):
        def loss(variables):
            rngs = {"dropout": jax.random.key(1)}
            logits = module.apply(variables, graph, train=True, rngs=rngs)
            return jnp.sum(jnp.where(jraph.get_graph_padding_mask(graph), logits, 0.0))

        return jax.grad(loss)(variables)

    leaves = jax.tree.leaves(gradient(variables))
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert any(np.abs(leaf).max() > 0 for leaf in leaves)


def test_dropout_of_attention_is_off_at_test_time():
    module = gnn.GAT(4, heads=3, dropout=0.6)
    run = partial(applied, params("gat_concat"), known("few"), module=module)
    assert_close(run()[0].nodes, FILE["gat_concat/few/out"])
    one, two = (run(train=True, key=jax.random.key(i))[0].nodes for i in range(2))
    assert np.abs(one - two).max() > 0.1


def test_readouts_by_hand():
    graph = jraph.GraphsTuple(
        nodes=np.array([[1.0, 0], [3, 2], [5, 5], [7, 7]], np.float32),
        edges=None,
        senders=np.zeros(0, np.int32),
        receivers=np.zeros(0, np.int32),
        n_node=np.array([2, 0, 1, 1], np.int32),
        n_edge=np.zeros(4, np.int32),
        globals=None,
    )
    mean, first, second = jax.jit(
        lambda g: (gnn.mean_nodes(g), gnn.node_at(g, 0), gnn.node_at(g, 1))
    )(graph)
    np.testing.assert_array_equal(mean, [[2, 1], [0, 0], [5, 5], [7, 7]])
    np.testing.assert_array_equal(first, [[1, 0], [0, 0], [5, 5], [7, 7]])
    np.testing.assert_array_equal(second, [[3, 2], [0, 0], [0, 0], [0, 0]])


def test_attention_pool_agrees_with_the_reference():
    pool = gnn.AttentionPool()
    graph = padded(known("few"))
    out, sown = jax.jit(partial(pool.apply, mutable=["intermediates"]))(
        params("pool"), graph
    )
    assert_close(out[:2], FILE["pool/out"])
    assert not np.asarray(out[3:]).any()  # Graphs without nodes.
    (weights,) = sown["intermediates"]["attention"]
    np.testing.assert_allclose([weights[:6].sum(), weights[6:10].sum()], 1, rtol=1e-6)


def test_softmax_of_nothing_is_zero():
    weights = gnn.segment_softmax(
        jnp.array([0.0, np.log(3.0), 5.0]),
        jnp.array([0, 0, 1]),
        segments=2,
        where=jnp.array([True, True, False]),
    )
    np.testing.assert_allclose(weights, [0.25, 0.75, 0.0], rtol=1e-6)


def test_mlp_reads_the_first_two_nodes():
    graph = random_graph(0)
    kernel = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    tree: Any = {
        "hidden": {"kernel": kernel, "bias": np.zeros(4, np.float32)},
        "classifier": {
            "logit": {"kernel": np.ones((4, 1), np.float32), "bias": np.ones(1)}
        },
    }
    logits, _ = applied({"params": tree}, graph, module=gnn.MLP(4))
    pairs = np.stack([graph.nodes[:2].reshape(-1), graph.nodes[4:6].reshape(-1)])
    expected = 1 + np.maximum(pairs.astype(np.float64) @ kernel, 0).sum(axis=1)
    assert_close(logits, expected)


def test_encoder_projects_each_kind():
    """With or without `once`, and as a projection alone does."""
    rng = np.random.default_rng(0)
    widths, names = (4, 3, 4), ("image", "text", "image")
    kind = np.array([0, 1, 2, 2, 0, 1, -1, -1], np.int32)
    features = rng.normal(size=(8, 4)).astype(np.float32)
    nodes: Any = {"features": features, "kind": kind}
    graph = jraph.GraphsTuple(
        nodes=nodes,
        edges=None,
        senders=np.zeros(0, np.int32),
        receivers=np.zeros(0, np.int32),
        n_node=np.array([4, 2, 2], np.int32),
        n_edge=np.zeros(3, np.int32),
        globals=None,
    )
    encoder = gnn.NodeEncoder(widths, names=names, features=6, single_kinds=(0, 1))
    every = gnn.NodeEncoder(widths, names=names, features=6)
    shapes = jax.eval_shape(
        partial(encoder.init, train=False), jax.random.key(0), graph
    )
    variables = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
    )
    out = applied(variables, graph, module=encoder)[0].nodes
    assert_close(applied(variables, graph, module=every)[0].nodes, out)
    assert not np.asarray(out[6:]).any()
    for name, rows, width in (("image", [0, 2, 3, 4], 4), ("text", [1, 5], 3)):
        p = jax.tree.map(lambda x: x.astype(np.float64), variables["params"][name])
        x = features[rows, :width] @ p["linear"]["kernel"] + p["linear"]["bias"]
        erf = np.asarray(jax.lax.erf(jnp.asarray(x / np.sqrt(2), jnp.float32)))
        hidden = x * (1 + erf) / 2 @ p["hidden"]["kernel"] + p["hidden"]["bias"]
        y = x + hidden
        y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5)
        assert_close(out[np.array(rows)], y * p["norm"]["scale"] + p["norm"]["bias"])


def test_edge_features_are_side_by_side():
    edges = {"box": np.array([[0.5], [2.0]]), "type": np.array([1, 0], np.int32)}
    graph = known("none")._replace(edges=edges, senders=np.zeros(2, np.int32))
    features = gnn.edge_features(graph, ("box", "type"), relations=3)
    np.testing.assert_array_equal(features, [[0.5, 0, 1, 0], [2, 1, 0, 0]])


def applied_anew(module, graph):
    return jax.eval_shape(module.init, jax.random.key(0), graph)


def test_what_is_wrong_is_said():
    graph = known("few")
    wide = graph._replace(nodes=graph.nodes[:, :, None])
    with pytest.raises(ValueError, match=r"expected one array \[nodes, features\]"):
        applied_anew(gnn.GCN(2), wide)
    with pytest.raises(ValueError, match="expected a field 'w'"):
        applied_anew(gnn.GCN(2, weight_field="w"), graph)
    with pytest.raises(ValueError, match="got 0 relations for the types"):
        applied_anew(gnn.GATv2(2, edge_fields=("type",)), graph)
    with pytest.raises(ValueError, match="aggregate must be one of"):
        applied_anew(gnn.GraphSAGE(2, aggregate="sum"), graph)
    with pytest.raises(ValueError, match="types 0 to 2, expected them in .0, 2"):
        gnn.RGCN(2, relations=2).init(jax.random.key(0), graph)
    for changed, match in (
        (dict(layer="transformer"), "layer must be one of"),
        (dict(readout="max"), "readout must be one of"),
        (dict(dropouts=(0.0,)), "one dropout more than layers"),
        (dict(layer="rgcn"), "expected 1 to 1 in"),
    ):
        module = gnn.GraphClassifier(**{**gnn.GNNS["gcn"], **changed})
        with pytest.raises(ValueError, match=match):
            jax.eval_shape(partial(module.init, train=False), jax.random.key(0), graph)
    with pytest.raises(ValueError, match="expected one width per name"):
        nodes: Any = {"features": np.zeros((10, 4)), "kind": np.zeros(10, np.int32)}
        encoder = gnn.NodeEncoder((4, 3), names=("a", "a"))
        jax.eval_shape(
            partial(encoder.init, train=False),
            jax.random.key(0),
            graph._replace(nodes=nodes),
        )
