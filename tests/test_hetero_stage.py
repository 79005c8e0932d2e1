"""Networks on the graph over memes, from a store of features to results."""

import collections
import dataclasses
import json
import signal
from functools import partial

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest
from graph_support import SIZES, reseal, tiny, write_store
from safetensors.numpy import load_file, save_file
from support import ROOT

from memejax import (
    graphs,
    logs,
    metrics,
    optim,
    parallel,
    report,
    scoring,
    train,
)
from memejax.checkpoint import Checkpoints
from memejax.config import load_config
from memejax.data import plans
from memejax.graphs import hetero
from memejax.loop import Interrupted, LoopOptions, Signals, loop
from memejax.models import gnn
from memejax.stages import graph as graph_stage
from memejax.stages.parts.graphs import hetero as hetero_build
from memejax.store.read import open_store, shard_path

HETERO = {
    "graph.network": "rgcn",
    "graph.hetero.fanouts": (2, 4, 2),
    "graph.hetero.distance": 1,
    "graph.hetero.label_features": True,
    # The same in all tests, whose step is then compiled once.
    "graph.epochs": 6.0,
    "graph.eval_every": 12,
    "checkpoint.every": 12,
    "log.every": 6,
    # Less to compile.
    "graph.projection_dropout": 0.0,
    "graph.optimizer.clip": 0.0,
    "graph.optimizer.groups.encoder.lr": 1e-2,
    "graph.optimizer.groups.head.lr": 1e-2,
}


def over_memes(store, **changes):
    return tiny(store, "hetero", **HETERO | changes)


def write_shared(where, *, flip=False):
    """Memes whose label is that of all who say the same, whatever they look like.

    There are four captions. `flip` turns the labels of all but the training memes.
    """
    write_store(where)
    path = where / "memes.jsonl"
    memes = [json.loads(line) for line in path.read_text().splitlines()]
    place = collections.Counter()
    for meme in memes:
        # Four in a row have the four signs of picture and caption.
        group = place[meme["split"]] // 4 % 4
        place[meme["split"]] += 1
        turned = flip and meme["split"] != "train"
        meme |= {"caption": f"Said {group}", "label": group % 2 ^ turned}
    path.write_text("".join(json.dumps(meme) + "\n" for meme in memes))
    reseal(where)
    return where


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_shared(tmp_path_factory.mktemp("store") / "features")


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    where = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        # The page is that of any graph network, and slow to draw.
        patch.setattr(report, "write", lambda _: None)
        return where, train.run(over_memes(store), where)


def make(config):
    """Data and stage of a config."""
    data = graph_stage.load(config, None)
    return data, graph_stage.make(config, data, seed=0, mesh=parallel.mesh(1))


@pytest.fixture(scope="module")
def made(store):
    return make(over_memes(store))


@pytest.fixture(scope="module")
def weights(run, made):
    """Of the run's best checkpoint."""
    with Checkpoints(run[0] / "0/graph/checkpoints", keep=2, best=["auroc"]) as saves:
        return saves.restore(made[1].abstract, step=saves.best("auroc")).state.weights()


def test_it_learns_from_those_who_say_the_same(run):
    where, results = run
    stages = results["seeds"]["0"]
    assert stages["graph"]["steps"] == 24
    assert set(stages["evaluate"]["splits"]) == set(SIZES) - {"train"}
    for split in ("dev_seen", "test_unseen"):
        assert results["summary"][split]["rgcn"]["auroc"]["mean"] > 0.95
    lines = logs.read_metrics(where / "0/graph/metrics.jsonl")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 4 and losses[-1] < 0.5 * losses[0]
    facts = results["data"]
    assert facts["widths"] == [1, 6, 4, 1] and facts["edges"]["image_to_meme"] == 48
    # Twelve training memes of each of four captions.
    assert facts["edges"]["same_text"] == 4 * 12 * 11
    assert (where / "0/evaluate/predictions/test_seen.csv").is_file()


class Hidden:
    """A pass in which no neighbour shows its label."""

    def __init__(self, feeder):
        self.feeder, self.plan = feeder, feeder.plan

    def chunks(self, start):
        for count, batch in self.feeder.chunks(start):
            graph = batch["graph"]
            nodes = graph.nodes | {"label": jnp.full_like(graph.nodes["label"], -1)}
            yield count, batch | {"graph": graph._replace(nodes=nodes)}


def test_without_the_labels_of_neighbours_nothing_is_known(store, made, weights):
    data, stage = made
    split = data.splits["test_unseen"]
    feeder = stage.scoring(split)
    shown, hidden = (
        metrics.auroc(
            scoring.probabilities(stage.predict, weights, passes)["rgcn"], split.labels
        )
        for passes in (feeder, Hidden(feeder))
    )
    assert shown > 0.95 and 0.2 < hidden < 0.8


def whole_graph(store, names):
    """The graph over some splits' memes, made by hand."""
    parts = [open_store(store).splits[name] for name in names]
    columns = {
        field.name: np.concatenate([getattr(p.features, field.name) for p in parts])
        for field in dataclasses.fields(graphs.MemeFeatures)
        if "token" not in field.name
    }
    training = np.concatenate([np.full(len(p), p.name == "train") for p in parts])
    return graphs.hetero_graph(
        graphs.MemeFeatures(**columns),
        captions=[caption for p in parts for caption in p.captions],
        hashes=np.concatenate([p.hashes for p in parts]),
        labels=np.concatenate([p.labels for p in parts]),
        training=training,
        classes=1,
        distance=1,
    )


def test_predictions_are_of_the_graph_of_all(run, store, made, weights):
    """The network on trees from the graph over all memes, made by hand."""
    graph, logits = whole_graph(store, SIZES), []
    first = SIZES["train"] + SIZES["dev_seen"]
    # Sixteen memes are a batch of 12, and 4 with padding.
    for step, places in enumerate((np.arange(12), np.r_[12:16, [15] * 8])):
        tree = graphs.sample(
            graph,
            first + places,
            fanouts=(2, 4, 2),
            seed=over_memes(store).seed,
            step=step,
            label_features=True,
        )
        batch = jax.device_put({"graph": tree}, parallel.replicated(parallel.mesh(1)))
        logits.append(made[1].predict(weights, batch)["rgcn"])
    expected = 1 / (1 + np.exp(-np.concatenate(logits)[:16]))
    ids, proba, _ = metrics.read_predictions(
        run[0] / "0/evaluate/predictions/test_unseen.rgcn.csv"
    )
    assert list(ids) == list(open_store(store).splits["test_unseen"].ids)
    np.testing.assert_allclose(proba, expected, rtol=0, atol=1e-5)


def test_training_sees_training_memes_alone_unless_it_is_transductive(store):
    config = over_memes(store)
    roots = graph_stage.load(config, None).splits["train"].source["graph"]
    by_hand = whole_graph(store, ["train"])
    assert roots.first == 0 and len(roots.graph) == SIZES["train"]
    for name, links in by_hand.links.items():
        np.testing.assert_array_equal(roots.graph.links[name].senders, links.senders)
    config.graph.hetero.transductive = True
    data = graph_stage.load(config, None)
    roots = data.splits["train"].source["graph"]
    assert roots.first == 0 and len(roots.graph) == sum(SIZES.values())
    # Held-out memes are neighbours, without labels.
    stage = graph_stage.make(config, data, seed=0, mesh=parallel.mesh(1))
    feeder = stage.scoring(data.splits["train"])
    nodes = feeder.batch(0)["graph"].nodes
    held_out = (nodes["kind"] == 0) & (nodes["place"] >= SIZES["train"])
    assert held_out.any() and (nodes["label"][held_out] == -1).all()
    assert (nodes["label"][nodes["kind"] == 0] >= 0).any()


def test_held_out_labels_change_no_batch_and_no_parameter(store, made, tmp_path):
    flipped = write_shared(tmp_path / "flipped", flip=True)
    data, stage = make(over_memes(flipped))
    one, other = (d.splits["dev_seen"].labels for d in (made[0], data))
    np.testing.assert_array_equal(one, 1 - other)
    batches = [
        [feeder.batch(step) for step in range(len(feeder.plan))]
        for feeder in (made[1].feeder, stage.feeder)
    ]
    # And where most could leak: all memes are there when it is trained.
    for these, where in zip(batches, (store, flipped), strict=True):
        config = over_memes(where, **{"graph.hetero.transductive": True})
        data = graph_stage.load(config, None)
        all_memes = graph_stage.make(config, data, seed=0, mesh=parallel.mesh(1))
        feeder = all_memes.scoring(data.splits["train"])
        these += [feeder.batch(step) for step in range(len(feeder.plan))]
    assert len(batches[0]) == 24 + 4
    assert (np.stack([batch["label"] for batch in batches[0]]) >= 0).all()
    jax.tree.map(np.testing.assert_array_equal, *batches)
    ends = []
    for it in (made[1], stage):
        state = it.init()
        for _, batch in it.feeder.chunks(0, 5):
            state, _ = it.run_chunk(state, batch)
        ends.append(jax.device_get(state.params))
    jax.tree.map(np.testing.assert_array_equal, *ends)
    begun = jax.device_get(stage.init().params)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), begun, ends[0])
    assert max(jax.tree.leaves(moved)) > 1e-3


@pytest.mark.parametrize("kind", ["stored", "hetero"])
def test_an_interrupted_run_is_the_run_without(store, made, tmp_path, kind):
    """Bitwise: state and metrics."""
    config, stage, middle = over_memes(store), made[1], 2
    config.log.every = 2
    if kind == "stored":
        config = tiny(store, **{"graph.network": "text", "checkpoint.every": 1000})
        stage, middle = make(config)[1], 8
    else:
        plan = plans.shuffled(48, batch=12, steps=6, seed=1)
        stage = dataclasses.replace(stage, feeder=stage.feeder.with_plan(plan))
    options = LoopOptions(
        save_every=config.checkpoint.every,
        keep=config.checkpoint.keep,
        log_every=config.log.every,
    )
    states, lines = [], []
    for stops in (0, 2):
        where = tmp_path / str(stops)
        for _ in range(stops):
            # Seen after the first chunk.
            signals = Signals()
            signals.received = signal.SIGTERM
            with pytest.raises(Interrupted):
                loop(stage, options, where, signals)
        assert (where / f"checkpoints/{middle}").exists() == (stops > 0)
        ended, outcome = loop(stage, options, where, Signals())
        assert outcome["steps"] == len(stage.feeder.plan) > middle
        states.append(ended.replace(key=jax.random.key_data(ended.key)))
        found = logs.read_metrics(where / "metrics.jsonl")
        lines.append([{k: line[k] for k in line if k != "clock"} for line in found])
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get(states))
    assert lines[0] == lines[1] and len(lines[0]) == 3


def test_a_tree_has_no_more_nodes_of_a_kind():
    # A root, its image, text and 2 classes; 3 near images, 3 texts and 2 x 3 memes.
    assert hetero_build.most_of_kinds((2, 3)) == (1 + 6, 1 + 3, 1 + 3, 2)
    # All of the slots of a tree, and one node of padding a batch.
    graph = hetero.hetero_graph(
        graphs.MemeFeatures(
            *(np.zeros((2, 1)), np.zeros((2, 1)), np.zeros((2, 0, 0))),
            where=np.zeros((2, 0), bool),
            boxes=np.zeros((2, 0, 4)),
            sizes=np.ones((2, 2), int),
            classes=np.zeros((2, 0), int),
            scores=np.zeros((2, 0)),
        ),
        captions=["", ""],
        hashes=np.zeros(2, np.uint64),
        labels=np.zeros(2, int),
        training=np.ones(2, bool),
        classes=1,
    )
    for fanouts in ((1,), (2, 3), (3, 1, 2), (1, 2, 1, 2)):
        tree = hetero.sample(graph, [0, 1], fanouts=fanouts, seed=0, step=0)
        assert (
            len(tree.nodes["kind"]) == 2 * sum(hetero_build.most_of_kinds(fanouts)) + 1
        )


def drawn(init, *args):
    """Variables of the shapes that `init` gives, at random."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(partial(init, train=False), jax.random.key(0), *args)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes)


def test_gathered_kinds_are_projected_alike(store):
    """With and without a bound on how many nodes of a kind there are."""
    tree = hetero.sample(
        whole_graph(store, ["train"]), [0, 5, 7], fanouts=(2, 3), seed=0, step=0
    )
    fields = dict(widths=(1, 6, 4, 1), names=hetero.KINDS, features=5)
    plain = gnn.NodeEncoder(**fields)
    bound = gnn.NodeEncoder(**fields, max_counts=hetero_build.most_of_kinds((2, 3)))
    variables = drawn(plain.init, tree)
    one, other = (
        np.asarray(jax.jit(partial(net.apply, train=False))(variables, tree).nodes)
        for net in (plain, bound)
    )
    np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(one).max())
    np.testing.assert_array_equal(np.any(one != 0, axis=1), tree.nodes["kind"] >= 0)
    with pytest.raises(ValueError, match="expected a number for each of 4 kinds"):
        drawn(gnn.NodeEncoder(**fields, max_counts=(1, 2)).init, tree)


def test_labels_are_added_to_nodes():
    class Encoder(gnn.NodeEncoder):
        def __call__(self, graph, *, train):
            return graph._replace(nodes=jnp.asarray(graph.nodes["features"]))

    nodes = {"features": np.ones((4, 2)), "label": np.array([-1, 0, 1, -1])}
    # Only its nodes are read.
    graph = jraph.GraphsTuple(nodes, *[None] * 6)
    module = gnn.LabelledNodes(Encoder((2,), ("x",)))
    table = np.array([[10.0, 20.0], [30.0, 40.0]])
    got = module.apply({"params": {"label": table}}, graph, train=False).nodes
    np.testing.assert_array_equal(got, [[1, 1], [11, 21], [31, 41], [1, 1]])
    bare = graph._replace(nodes={"features": np.ones((4, 2))})
    with pytest.raises(ValueError, match="expected the field 'label'"):
        module.apply({"params": {"label": table}}, bare, train=False)


@pytest.mark.parametrize("name", hetero_build.NETWORKS)
def test_every_network_is_built_and_optimised(store, name):
    """By shapes alone, at the real sizes."""
    config = load_config(str(ROOT / "configs/graph.py:kind=hetero"))
    config.graph.network = name
    graph = whole_graph(store, ["train"])
    tree = hetero.sample(graph, [0, 5], fanouts=(8, 4), seed=0, step=0)
    net = hetero_build.hetero_network(config, graph.widths)
    init = partial(net.init_with_output, train=False)
    logits, variables = jax.eval_shape(init, jax.random.key(0), tree)
    assert logits.shape == (3,)
    groups = {
        group: optim.Group(g.pattern, g.lr)
        for group, g in config.graph.optimizer.groups.items()
    }
    labels = optim.label_parameters(variables["params"], groups)
    assert set(jax.tree.leaves(labels)) == set(groups)
    assert set(variables["params"]["encoder"]) == set(hetero.KINDS)


def test_controls_read_a_roots_own_nodes_alone(store):
    """Gradients of the logits by nodes: the image's and the text's, or the text's."""
    graph = whole_graph(store, ["train"])
    tree = hetero.sample(graph, [0, 5], fanouts=(2,), seed=0, step=0)
    first = np.array([0, tree.n_node[0]])
    nodes = np.random.default_rng(0).normal(size=(len(tree.nodes["kind"]), 8))
    for name, places in {"mlp": (1, 2), "text": (2,)}.items():
        config = over_memes(store, **{"graph.network": name})
        head = hetero_build.hetero_network(config, graph.widths).head
        plain = tree._replace(nodes=nodes.astype(np.float32))
        variables = drawn(head.init, plain)

        def total(nodes, head=head, plain=plain, variables=variables):
            read = plain._replace(nodes=nodes)
            return head.apply(variables, read, train=False)[:2].sum()

        slope = np.abs(jax.jit(jax.grad(total))(plain.nodes)).sum(axis=1)
        own = (first[:, None] + np.array(places)[None]).reshape(-1)
        assert sorted(np.flatnonzero(slope)) == sorted(own.tolist())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graph.kind": "whole"}, "graph.kind: got 'whole'.*hetero, stored"),
        ({"graph.network": "gat"}, "kind='hetero' 'gat': choose.*mlp.*rgcn.*sage"),
        ({"graph.hetero.fanouts": (4, 0)}, r"fanouts: got \(4, 0\), expected at least"),
        ({"graph.hetero.fanouts": ()}, r"fanouts: got \(\), expected"),
        ({"graph.hetero.fanouts": (1, 1, 1, 1)}, "got 4 fan-outs.*at most 3"),
        (
            {"graph.hetero.distance": 16},
            "distance: got 16, expected .* from 1 to 15",
        ),
        ({"graph.hetero.most": 0}, "most: got 0, expected a whole number >= 1"),
        ({"graph.kind": "trained"}, "'trained' is switched on .*demo,kind=trained"),
    ],
)
def test_bad_input_is_named(store, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train.run(over_memes(store, **changes), tmp_path)


def test_stores_that_do_not_do(tmp_path):
    where = write_store(tmp_path / "silent")
    path = where / "memes.jsonl"
    lines = path.read_text().splitlines()
    memes = [json.loads(line) | {"caption": " "} for line in lines]
    path.write_text("".join(json.dumps(meme) + "\n" for meme in memes))
    reseal(where)
    with pytest.raises(ValueError, match="silent has no captions"):
        graph_stage.load(over_memes(where), None)
    where = write_shared(tmp_path / "unhashed")
    facts = json.loads((where / "store.json").read_text())
    for shard in range(3):
        columns = load_file(shard_path(where, shard))
        del columns["hash"]
        save_file(columns, shard_path(where, shard))
    del facts["columns"]["hash"]
    (where / "store.json").write_text(json.dumps(facts))
    reseal(where)
    with pytest.raises(ValueError, match="unhashed has no column 'hash'"):
        graph_stage.load(over_memes(where), None)
    # One graph a meme needs none.
    assert graph_stage.load(tiny(where), None).facts["sizes"] == SIZES
