"""Graph networks whose encoders are trained along, and what is cut out for them."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_support import reseal
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file, save_file
from support import ROOT

from memejax import graphs, parallel, scoring
from memejax.config import load_config
from memejax.data import canvases
from memejax.extract import cutting, extract
from memejax.models import crops
from memejax.models.gnn.end_to_end import node_features
from memejax.models.maskrcnn import rescale_boxes
from memejax.stages import graph as graph_stage
from memejax.stages.parts.encoders import encoders_config, start_encoders
from memejax.stages.parts.graphs import end_to_end, stored
from memejax.store.read import open_store, shard_path


def tiny(run, store=None, **changes):
    config = load_config(str(ROOT / "configs/graph.py:kind=trained"))
    named = {} if store is None else {"features": str(store)}
    config.update_from_flattened_dict(
        {
            "extract.run": str(run),
            "extract.allow_random": False,
            "extract.grid": 2,
            "extract.chunk": 40,
            "extract.batch": 16,
            "data.root": str(run / "memes"),
            "graph.trained.encoder_lr": 3e-3,
            "graph.network": "gcn",
            "graph.width": 8,
            "graph.batch": 8,
            "graph.epochs": 1.0,
            "graph.optimizer.warmup": 0,
            "graph.optimizer.schedule": "constant",
            "graph.optimizer.groups.encoder.lr": 1e-2,
            "graph.optimizer.groups.head.lr": 1e-2,
        }
        | named
        | changes
    )
    return config


# What is cut out


def on_canvas(picture, side):
    canvas = np.zeros((1, side, side, 3), np.uint8)
    canvas[0, : len(picture), : picture.shape[1]] = picture
    # What lies beside a picture is not read.
    canvas[0, len(picture) :] = canvas[0, :, picture.shape[1] :] = 77
    return canvas


cut_boxes = jax.jit(crops.cut_boxes, static_argnames="size")


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_boxes_are_cut_out_as_pillow_does(seed, height, width):
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    size = np.array([width, height], np.float32)
    low = rng.random((4, 2), np.float32) * (size - 1)
    high = np.minimum(low + 1 + rng.random((4, 2), np.float32) * (size - low), size)
    boxes = np.concatenate([low, high], axis=1)
    boxes[0], boxes[1] = [0, 0, width, height], np.rint(boxes[1])
    boxes[1, 2:] = np.maximum(boxes[1, 2:], boxes[1, :2] + 1)
    got = np.asarray(cut_boxes(on_canvas(picture, 40), boxes[None], size=12))[0]
    off = np.abs(got - cutting.cut_boxes(picture, boxes, size=12))
    # Pillow 13 works along columns first where these shrink more than rows do, and
    # rounds in between; all others are the same to the bit, but that a box whose
    # corners are no whole numbers may fall between two values.
    sides = boxes[:, 2:] - boxes[:, :2]
    upright = sides[:, 1] > np.maximum(sides[:, 0], 11)
    assert off.max() <= 1
    assert (off[~upright] > 0).sum() <= 1


def test_boxes_by_hand():
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[:, 3:] = 100, 50, 7
    boxes = np.float32([[[2, 0, 4, 2], [3, 1, 6, 4], [0, 0, 0, 0]]])
    got = np.asarray(cut_boxes(on_canvas(picture, 8), boxes, size=4))
    # Twice as many values as pixels: quarters, and halves are rounded up.
    np.testing.assert_array_equal(got[0, 0, 0, :, 0], [0, 25, 75, 100])
    np.testing.assert_array_equal(got[0, 0, 3, :, 2], [0, 2, 5, 7])
    assert (got[0, 1] == [100, 50, 7]).all() and not got[0, 2].any()
    with pytest.raises(ValueError, match=r"boxes \[2, 4\]"):
        crops.cut_boxes(picture[None], boxes[0, :2], size=4)


def test_masks_are_laid_over_as_on_the_host():
    rng = np.random.default_rng(3)
    square = rng.integers(0, 256, (24, 24, 3)).astype(np.uint8)
    masks = rng.integers(0, 256, (3, 28, 28)).astype(np.uint8)
    boxes = np.float32([[0, 0, 40, 20], [3.3, 2.1, 11.7, 19], [39, 0, 40, 1]])
    spans = crops.mask_spans(
        rescale_boxes(boxes, (20, 40), new_sizes=(24, 24)), side=28
    )
    cut = jax.jit(lambda a, b, c: crops.cut_masks(a, b, spans_bk4=c))
    got = np.asarray(cut(square[None].astype(np.float32), masks[None], spans[None]))[0]
    expected = cutting.cut_masks(square, boxes, masks=masks, size=(20, 40))
    assert expected[0].any() and expected[1].any()
    off = np.abs(got - expected)
    assert off.max() <= 1 and (off > 0).mean() < 1e-3
    with pytest.raises(ValueError, match="expected .b, k, m, m. and"):
        crops.cut_masks(square[None], masks[None], spans_bk4=spans)


def test_pictures_on_canvases(tmp_path):
    rng = np.random.default_rng(0)
    shapes, paths = ((5, 9), (20, 10)), []
    for i, shape in enumerate(shapes):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(rng.integers(0, 256, (*shape, 3)).astype(np.uint8)).save(
            paths[-1]
        )
    sizes = canvases.canvas_sizes(np.array(shapes), longest=10)
    np.testing.assert_array_equal(sizes, [[5, 9], [10, 5]])
    column = canvases.Canvases(paths, sizes, side=10)
    got = column[np.array([1, 0])]
    assert got.shape == (2, 10, 10, 3) and len(column) == 2
    np.testing.assert_array_equal(got[1, :5, :9], np.asarray(Image.open(paths[0])))
    assert not got[1, 5:].any() and not got[1, :, 9:].any() and not got[0, :, 5:].any()
    half = Image.open(paths[1]).resize((5, 10), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(got[0, :, :5], np.asarray(half))
    Image.fromarray(np.zeros((9, 5, 3), np.uint8)).save(paths[0])
    with pytest.raises(ValueError, match="the picture has changed"):
        column[np.array([0])]


def test_features_to_nodes_by_hand():
    image, text = np.float32([[[1, 2]], [[3, 4]]]), np.float32([[[5]], [[6]]])
    entities = np.float32([[[7, 8], [9, 10]], [[11, 12], [13, 14]]])
    # The second meme lacks its first entity.
    kind = np.int32([0, 1, 2, 2, -1, 0, 1, 2, -1, -1])
    place = np.int32([0, 0, 0, 1, 0, 0, 0, 1, 0, 0])
    got = jax.jit(lambda *x: node_features(list(x), kind, place=place))(
        image, text, entities
    )
    rows = [[1, 2], [5, 0], [7, 8], [9, 10], [0, 0], [3, 4], [6, 0], [13, 14]]
    np.testing.assert_array_equal(got, [*rows, [0, 0], [0, 0]])
    with pytest.raises(ValueError, match="got 10 nodes of 3 memes"):
        node_features([np.zeros((3, 1, 2))], kind, place=place)


# The stage


@pytest.fixture(scope="module")
def run(finished):
    return finished[0]


@pytest.fixture(scope="module")
def store(run, tmp_path_factory):
    """Of the run's encoders, whose first meme of a split has no entities."""
    where = tmp_path_factory.mktemp("along") / "store"
    extract(tiny(run), where)
    for shard in range(3):
        columns = load_file(shard_path(where, shard))
        for row in (0, 24) if shard < 2 else ():
            for name in ("where", "entities", "boxes", "scores"):
                columns[name][row] = 0
        # Others have the last one only.
        columns["where"][1::2, :3] = False
        for name in ("entities", "boxes", "scores"):
            columns[name][1::2, :3] = 0
        save_file(columns, shard_path(where, shard))
    return reseal(where)


@pytest.fixture(scope="module")
def made(run, store):
    config = tiny(run, store)
    data = end_to_end.load(config)
    stage = end_to_end.make(config, data, seed=0, mesh=parallel.mesh(1))
    return config, data, stage


def batch_of(data, name, rows):
    rows = np.asarray(rows)
    return {k: np.asarray(x[rows]) for k, x in data.splits[name].source.items()}


def close(got, expected, tolerance=1e-4):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


def logits_of(made, batch, variables=None):
    _, _, stage = made
    variables = stage.init().weights() if variables is None else variables
    return np.asarray(stage.predict(variables, batch)["gcn"])


def test_features_begin_as_the_stored_ones(made, store):
    config, data, stage = made
    theirs, _ = encoders_config(config, open_store(store))
    net = end_to_end.end_to_end_network(
        config, theirs, vocabulary=data.vocabulary, widths=tuple(data.facts["widths"])
    )
    views = end_to_end.make_views(theirs)

    @jax.jit
    def encode(variables, batch):
        inputs = views(None, batch, train=False)
        return net.apply(variables, inputs, method="features")

    rows = [0, 1, 2, 5, 6, 9, 11, 3]
    found = encode(stage.init().weights(), batch_of(data, "dev_seen", rows))
    features = open_store(store).splits["dev_seen"].features
    assert 0 < features.where[rows].sum() < 32
    for name in ("image", "text", "entities"):
        values = getattr(features, name)[rows]
        close(found[name], values)
        # Of different memes.
        assert np.ptp(values, axis=0).max() > 0.1 * np.abs(values).max()


def test_logits_begin_as_those_of_stored_features(made, store):
    """The same graph network's, on the graphs that are made of the store."""
    config, data, stage = made
    variables, rows = stage.init().weights(), np.arange(16)
    features = open_store(store).splits["test_unseen"].features
    net = stored.stored_network(config, graphs.widths(features))
    graph = graphs.batch(features, rows, relations=tuple(config.graph.relations))
    params = {k: variables["params"][k] for k in ("encoder", "head")}
    expected = jax.jit(functools.partial(net.apply, train=False))(
        {"params": params}, jax.device_put(graph)
    )[:16]
    feeder = stage.scoring(data.splits["test_unseen"])
    proba = scoring.probabilities(stage.predict, variables, feeder)
    close(proba["gcn"], 1 / (1 + np.exp(-np.asarray(expected, float))))
    assert set(proba) == {"gcn", "average"} and np.ptp(expected) > 1e-3


def test_a_meme_is_read_by_itself_whatever_it_lacks(made):
    _, data, _ = made
    rows = [0, 1, 3, 2, 5, 7, 9, 11]
    batch = batch_of(data, "train", rows)
    # The first has no entities, the second its last one only.
    assert batch["where"][:3].sum(axis=1).tolist() == [0, 1, 1]
    logits = logits_of(made, batch)
    assert np.isfinite(logits).all() and len(set(logits.tolist())) == 8
    # Other neighbours, and other boxes where there is no entity.
    other = batch_of(data, "train", [0, 1, 3, 4, 6, 8, 10, 12])
    other["box"][:, 1:][~other["where"]] = [0, 0, 9, 9]
    close(logits_of(made, other)[:3], logits[:3], 1e-5)
    # Fewer places for entities that nobody has: the last one becomes the only one.
    single = [0, 1, 3, 5, 7, 9, 11, 13]
    batch = batch_of(data, "train", single)
    fewer = batch | {
        "where": batch["where"][:, 3:],
        "box": batch["box"][:, [0, 4]],
        "graph/nodes/place": np.zeros_like(batch["graph/nodes/place"]),
    }
    close(logits_of(made, fewer), logits_of(made, batch), 1e-5)


def test_gradients_reach_encoders_and_graph_network(made):
    _, data, stage = made
    ((_, chunk), *_) = stage.feeder.chunks(0, 1)
    begin = jax.device_get(stage.init())
    state = stage.init()
    for _ in range(10):
        state, values = stage.run_chunk(state, chunk)
    labels = np.asarray(chunk["label"])
    assert 0 < labels.sum() < 8 and np.isfinite(values["loss"])
    before, after = (
        np.mean(np.logaddexp(0, np.where(labels, -x, x)))
        for x in (
            logits_of(made, chunk),
            logits_of(made, chunk, state.weights()),
        )
    )
    assert after < 0.8 * before
    np.testing.assert_allclose(values["lr/encoders"], 3e-3)
    moved = {
        part: max(
            np.abs(a - b).max()
            for a, b in zip(
                *map(jax.tree.leaves, (tree, state.params[part])), strict=True
            )
        )
        for part, tree in begin.params.items()
    }
    assert set(moved) == {"image_encoder", "text_encoder", "encoder", "head"}
    assert min(moved.values()) > 1e-3
    # BatchNorms keep the statistics that they came with.
    assert jax.tree.leaves(begin.batch_stats)
    jax.tree.map(np.testing.assert_array_equal, begin.batch_stats, state.batch_stats)


def test_all_devices_compute_what_one_does(made, run, store):
    config, data, one = made
    mesh = graph_stage.devices(config)
    assert mesh.size == jax.device_count() == 4
    assert graph_stage.devices(tiny(run, store, **{"parallel.devices": 2})).size == 2
    stage = end_to_end.make(config, data, seed=0, mesh=mesh)
    states, losses = [], []
    for made_on in (one, stage):
        state, values = made_on.init(), []
        for _, chunk in made_on.feeder.chunks(0, 3):
            state, metrics = made_on.run_chunk(state, chunk)
            values.append(float(metrics["loss"]))
        states.append(state)
        losses.append(values)
    for leaf in jax.tree.leaves(chunk):
        assert len(leaf.sharding.device_set) == 4
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    for a, b in zip(*(jax.tree.leaves(s.params) for s in states), strict=True):
        # Adam turns rounding of small gradients into a part of an update.
        np.testing.assert_allclose(a, b, atol=2e-3, rtol=1e-3)
    probas = [
        scoring.probabilities(
            made_on.predict,
            state.weights(),
            made_on.scoring(data.splits["dev_seen"]),
        )["gcn"]
        for made_on, state in zip((one, stage), states, strict=True)
    ]
    np.testing.assert_allclose(*probas, atol=1e-2)


def test_networks_on_stored_features_take_one_device(run, store):
    config = load_config(str(ROOT / "configs/graph.py"))
    assert graph_stage.devices(config).size == 1


def test_groups_of_the_optimizer(made, run, store):
    """Frozen encoders stay; without a rate of their own the others must cover them."""
    params = jax.tree.map(np.asarray, made[2].init().params)
    config = tiny(run, store, **{"graph.trained.encoder_lr": 0.0})
    tx, _, _ = end_to_end.end_to_end_optimizer(config, params, total=4)

    @jax.jit
    def update(params):
        ones = jax.tree.map(jnp.ones_like, params)
        return tx.update(ones, tx.init(params), params, value=1.0)[0]

    for part, tree in update(params).items():
        moves = [np.abs(x).max() > 1e-6 for x in jax.tree.leaves(tree)]
        assert not any(moves) if part.endswith("_encoder") else all(moves), part
    with config.unlocked():
        config.graph.trained.encoder_lr = None
    with pytest.raises(ValueError, match="image_encoder/.* is in no group"):
        end_to_end.end_to_end_optimizer(config, params, total=4)


def test_entities_along_masks(run, store, tmp_path):
    """A store of a detector's: what is cut out is what its extraction cuts out."""
    where = tmp_path / "masks"
    shutil.copytree(store, where)
    facts = json.loads((where / "store.json").read_text())
    facts["parts"]["entities"] = {"by": "detector", "crop": "mask"}
    (where / "store.json").write_text(json.dumps(facts))
    reseal(where)
    with pytest.raises(ValueError, match="extract.masks=True"):
        end_to_end.load(tiny(run, where))
    facts["columns"]["masks"] = ["uint8", [4, 28, 28]]
    (where / "store.json").write_text(json.dumps(facts))
    rng = np.random.default_rng(0)
    for shard in range(3):
        columns = load_file(shard_path(where, shard))
        n = len(columns["where"])
        columns["masks"] = rng.integers(0, 256, (n, 4, 28, 28)).astype(np.uint8)
        save_file(columns, shard_path(where, shard))
    reseal(where)
    config = tiny(run, where)
    data = end_to_end.load(config)
    theirs, _ = encoders_config(config, open_store(where))
    batch = batch_of(data, "train", [2, 4])
    views = jax.jit(functools.partial(end_to_end.make_views(theirs), None, train=False))
    images = np.asarray(views(batch)["image"])
    split = open_store(where).splits["train"]
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    for got, picture, row in zip(images, batch["picture"], (2, 4), strict=True):
        cut = cutting.cut_masks(
            picture, split.features.boxes[row], masks=split.masks[row], size=(24, 24)
        )
        close(got, (np.concatenate([picture[None], cut]) / 255 - mean) / std, 0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extract.arm": "vit"}, "they differ in image.encoder"),
        ({"extract.arm": "mlp"}, "extract.arm='mlp': the run .* has the arms cnn, vit"),
        ({"extract.run": "nowhere"}, "no folder .*nowhere, expected a finished run's"),
        ({"features": None}, "needs features=STORE"),
        ({"graph.relations": ("text_token",)}, "memes without tokens"),
    ],
)
def test_bad_input_is_named(run, store, changes, message):
    with pytest.raises(ValueError, match=message):
        end_to_end.load(tiny(run, store, **changes))


def test_encoders_that_cannot_start(made, run, store):
    config, _, stage = made
    theirs, _ = encoders_config(config, open_store(store))
    variables = stage.init().weights()
    params = dict(variables["params"])
    params["text_encoder"] = jax.tree.map(lambda x: x[..., :1], params["text_encoder"])
    with pytest.raises(ValueError, match="text_encoder of the run .* other params"):
        start_encoders(config, theirs, variables | {"params": params})
    config = tiny(run, store, **{"extract.run": None, "weights.text": "a/file"})
    with pytest.raises(ValueError, match="^image_encoder would stay random: .*_cnn"):
        start_encoders(config, theirs, variables)


def test_memes_of_another_data_set(run, store, tmp_path):
    """The same pictures, of which one has another caption; one meme less."""
    shutil.copytree(run / "memes", tmp_path / "memes")
    file = tmp_path / "memes" / "dev_seen.jsonl"
    lines = file.read_text().splitlines()
    record = json.loads(lines[3])
    file.write_text(
        "\n".join([*lines[:3], json.dumps(record | {"text": "x"}), *lines[4:]])
    )
    config = tiny(run, store, **{"data.root": str(tmp_path / "memes")})
    with pytest.raises(
        ValueError, match=f"of dev_seen meme 3 is .*{record['id']}.*'x'"
    ):
        end_to_end.load(config)
    file.write_text("\n".join(lines[:15]))
    with pytest.raises(ValueError, match="of dev_seen 16 memes here and 15 there"):
        end_to_end.load(config)
