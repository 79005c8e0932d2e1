"""Networks on graphs of memes, from a store of features to results and pages."""

import functools
import json

import jax
import numpy as np
import pytest
from graph_support import SIZES, reseal, tiny, write_store
from safetensors.numpy import load_file, save_file
from support import ROOT

from memejax import folder, graphs, metrics, optim, parallel, train
from memejax.checkpoint import Checkpoints
from memejax.config import load_config
from memejax.stages import graph as graph_stage
from memejax.stages.parts.graphs.networks import GRAPH_NETWORKS, stored_network
from memejax.store.read import open_store, shard_path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    where = tmp_path_factory.mktemp("store") / "features"
    return write_store(where, without=("test_seen",))


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    where = tmp_path_factory.mktemp("run")
    config = tiny(
        store,
        **{
            "graph.network": "sage",
            "graph.epochs": 30.0,
            "graph.eval_every": 30,
            "checkpoint.every": 30,
            "log.every": 30,
            "graph.optimizer.groups.encoder.lr": 1e-2,
            "graph.optimizer.groups.head.lr": 1e-2,
        },
    )
    return where, config, train.run(config, where)


def test_it_learns_what_picture_and_caption_say_together(run):
    where, _, results = run
    assert json.loads((where / "results.json").read_text()) == results
    # Picture alone, caption alone: 0.5.
    area = results["summary"]["test_unseen"]["sage"]["auroc"]["mean"]
    assert area > 0.95
    stages = results["seeds"]["0"]
    assert set(stages) == {"graph", "evaluate"} and stages["graph"]["steps"] == 120
    assert set(stages["evaluate"]["splits"]["dev_seen"]) == {
        "sage",
        "average",
        "constant",
    }
    page = (where / "report.html").read_text()
    assert "Training on graphs" in page and "ROC curves" in page
    assert "No curves" not in page


def test_predictions_are_those_of_the_network_on_the_packed_graph(run, store):
    """The network applied by hand to what `graphs.batch` makes on the host."""
    where, config, results = run
    data = graph_stage.load(config, None)
    stage = graph_stage.make(config, data, seed=0, mesh=parallel.mesh(1))
    with Checkpoints(where / "0/graph/checkpoints", keep=2, best=["auroc"]) as saves:
        params = saves.restore(stage.abstract, step=saves.best("auroc")).state.params
    split = open_store(store).splits["test_unseen"]
    graph = graphs.batch(
        split.features, np.arange(16), relations=tuple(config.graph.relations)
    )
    net = stored_network(config, (6, 4, 6))
    apply = jax.jit(functools.partial(net.apply, train=False))
    logits = np.asarray(apply({"params": params}, graph))[:16]
    ids, proba, _ = metrics.read_predictions(
        where / "0/evaluate/predictions/test_unseen.sage.csv"
    )
    assert list(ids) == list(split.ids)
    np.testing.assert_allclose(proba, 1 / (1 + np.exp(-logits)), rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        metrics.auroc(proba, split.labels),
        results["seeds"]["0"]["evaluate"]["splits"]["test_unseen"]["sage"]["auroc"],
    )


def test_a_chunk_is_its_steps(store):
    """Twelve updates in one call are twelve in three calls."""
    config = tiny(store, **{"log.every": 12, "checkpoint.every": 12})
    config.graph.eval_every, config.graph.network = 12, "text"
    mesh = parallel.mesh(1)
    stage = graph_stage.make(config, graph_stage.load(config, None), seed=0, mesh=mesh)
    ((count, whole),) = stage.feeder.chunks(0)
    assert count == 12 and whole["rows"]["index"].shape == (1, 12, 12)
    parts = [
        whole | {"rows": {k: x[:, i : i + 4] for k, x in whole["rows"].items()}}
        for i in (0, 4, 8)
    ]
    ends = []
    for chunks in ([whole], parts):
        # The stage's own state stays as it began.
        state, losses = stage.init(), []
        for chunk in chunks:
            state, values = stage.run_chunk(state, chunk)
            losses.append(values["loss"])
        ends.append((jax.tree.leaves(state.params), np.concatenate(losses)))
    (one, losses), (other, again) = ends
    assert int(state.step) == 12
    np.testing.assert_allclose(again, losses, rtol=1e-5)
    start = jax.tree.leaves(stage.init().params)
    assert max(np.abs(a - b).max() for a, b in zip(one, start, strict=True)) > 1e-3
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "preset"),
    [(name, "demo") for name in GRAPH_NETWORKS] + [("gcn", "full"), ("gcn", "paper")],
)
def test_every_network_is_built_and_optimised(store, name, preset):
    """By shapes alone, at the real sizes."""
    config = load_config(str(ROOT / f"configs/graph.py:{preset}"))
    config.graph.network = name
    memes = open_store(store).splits["train"].features
    graph = jax.device_put(
        graphs.batch(memes, [0, 1], relations=tuple(config.graph.relations))
    )
    net = stored_network(config, graphs.widths(memes))
    init = functools.partial(net.init_with_output, train=False)
    logits, variables = jax.eval_shape(init, jax.random.key(0), graph)
    assert logits.shape == (3,)
    groups = {
        group: optim.Group(g.pattern, g.lr)
        for group, g in config.graph.optimizer.groups.items()
    }
    params = variables["params"]
    assert set(jax.tree.leaves(optim.label_parameters(params, groups))) == set(groups)
    # The published networks' counts.
    known = {"gcn": 42_209, "sage": 84_193, "gat": 17_665}
    count = sum(leaf.size for leaf in jax.tree.leaves(params["head"]))
    assert count == known.get(name, count)
    assert (set(params["encoder"]) == {"encoder"}) == (preset == "paper")


def test_the_papers_preset_keeps_its_quirks():
    c = load_config(str(ROOT / "configs/graph.py:paper")).graph
    assert c.optimizer.groups.all.lr == 0.1 and c.normalize_features
    assert tuple(c.relations) == ("image_entity", "text_entity") and not c.balance


def test_controls_do_not_see_edges(store):
    """Of controls and networks, the logits with and without edges."""
    memes = open_store(store).splits["train"].features
    with_edges, without = (
        graphs.batch(memes, [1, 2], relations=relations)
        for relations in (("image_entity", "text_entity"), ())
    )
    assert with_edges.n_edge[:2].sum() > 0 == without.n_edge.sum()
    for name in ("text", "deepsets", "sage"):
        net = stored_network(tiny(store, **{"graph.network": name}), (6, 4, 6))
        init, apply = (
            jax.jit(functools.partial(method, train=False))
            for method in (net.init, net.apply)
        )
        variables = init(jax.random.key(0), jax.device_put(with_edges))
        a, b = (np.asarray(apply(variables, g))[:2] for g in (with_edges, without))
        assert np.allclose(a, b, atol=1e-6) == (name != "sage"), name


def test_a_meme_without_entities_is_scored(run, store):
    assert not open_store(store).splits["test_unseen"].features.where[0].any()
    _, proba, _ = metrics.read_predictions(
        run[0] / "0/evaluate/predictions/test_unseen.csv"
    )
    # Picture and caption agree in the first meme, and in one of two.
    assert np.isfinite(proba).all() and proba[0] > 0.5 > proba[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graph.network": "gin"}, "graph.network: got 'gin'.*deepsets, gat"),
        ({"features": None}, "needs features=STORE"),
        ({"features": "nowhere"}, "no feature store in nowhere"),
        ({"data.dev": "dev_unseen"}, r"'test_unseen', 'train'\].*dev_unseen"),
        ({"graph.relations": ("friends",)}, "graph.relations: got .*image_entity"),
        ({"graph.relations": ("text_token",)}, "memes without tokens"),
        ({"graph.readout": "sum"}, "graph.readout: got 'sum'.*mean, node"),
        ({"stages": ("finetune", "graph")}, "graph may come first"),
        ({"graph.optimizer.groups.head.pattern": "tail/.*"}, "exactly one optimizer"),
    ],
)
def test_bad_input_is_named(store, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train.run(tiny(store, **changes), tmp_path)
    assert folder.read_json(tmp_path / "results.json") is None


def test_stores_that_do_not_do(tmp_path):
    none = write_store(tmp_path / "none", without=("train",))
    with pytest.raises(ValueError, match="training memes of both labels"):
        train.run(tiny(none), tmp_path / "a")
    only = write_store(tmp_path / "only", sizes={"dev_seen": 16})
    with pytest.raises(ValueError, match=r"has the splits \['dev_seen'\].*train"):
        train.run(tiny(only), tmp_path / "b")
    spoilt = write_store(tmp_path / "spoilt")
    columns = load_file(shard_path(spoilt, 0))
    columns["text"][3, 1] = np.nan
    save_file(columns, shard_path(spoilt, 0))
    reseal(spoilt)
    with pytest.raises(ValueError, match="text of train.*00003"):
        train.run(tiny(spoilt), tmp_path / "c")


def test_where_the_memes_are_from(store, tmp_path):
    facts = graph_stage.load(tiny(store), None).facts
    assert facts["root"] is None and facts["sizes"] == SIZES
    theirs = write_store(tmp_path / "theirs", root="F")
    assert graph_stage.load(tiny(theirs), None).facts["root"] == "F"
    named = tiny(theirs, **{"data.root": "G"})
    assert graph_stage.load(named, None).facts["root"] == "G"
    # Built-in memes lie in the store, with the best possible scores.
    own = tmp_path / "own"
    write_store(own, root=str(own / "memes"))
    (own / "memes").mkdir()
    (own / "memes/bayes.json").write_text('{"bayes": {"both": 1}}')
    facts = graph_stage.load(tiny(own), None).facts
    assert facts["root"] is None and facts["bayes"] == {"both": 1}


def test_splits_without_labels_are_scored(run):
    where, _, results = run
    assert set(results["summary"]) == {"dev_seen", "test_unseen"}
    ids, proba, _ = metrics.read_predictions(
        where / "0/evaluate/predictions/test_seen.csv"
    )
    assert len(ids) == SIZES["test_seen"] and np.isfinite(proba).all()
