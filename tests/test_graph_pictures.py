"""Pictures of memes' graphs: entities, edges as thick as attention."""

import dataclasses
import io

import jax
import numpy as np
import pytest
from graph_support import tiny, write_store
from PIL import Image

from memejax import graphs
from memejax.explain.graph_pictures import DPI, GRAPH, PICTURE, ROW, Drawing, graph_grid
from memejax.stages.parts.graphs import pictures
from memejax.stages.parts.graphs.networks import stored_network
from memejax.stages.parts.graphs.pictures import graph_attention
from memejax.store.read import open_store


def drawing(**changes):
    """An image, a text and two of three entities, joined both ways."""
    made = Drawing(
        title="a meme with $ and _",
        picture_hwc=np.full((8, 8, 3), 200, np.uint8),
        size=(40, 60),
        boxes=np.array([[5.0, 5, 25, 30], [30, 10, 55, 35], [0, 0, 0, 0]]),
        where=np.array([True, True, False]),
        masks=None,
        kinds=np.array([0, 1, 2, 2]),
        places=np.array([0, 0, 0, 1]),
        senders=np.array([0, 2, 1, 3]),
        receivers=np.array([2, 0, 3, 1]),
        weights=np.array([0.1, 0.2, 0.3, 0.4]),
    )
    return dataclasses.replace(made, **changes)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_what_is_drawn():
    one = pixels(graph_grid([drawing()]))
    assert one.shape == (round(ROW * DPI), round((PICTURE + GRAPH) * DPI), 3)
    assert len(pixels(graph_grid([drawing(), drawing()]))) == 2 * len(one)
    middle = one.shape[1] * PICTURE / (PICTURE + GRAPH)

    def differs(**changes):
        other = pixels(graph_grid([drawing(**changes)]))
        columns = np.flatnonzero((one != other).any(axis=(0, 2)))
        return (columns < middle).any(), (columns > middle).any()

    # Thicker lines: in the graph alone. A mask, a box: on the picture alone.
    assert differs(weights=np.array([0.9, 0.2, 0.3, 0.4])) == (False, True)
    masks = np.zeros((3, 28, 28), np.uint8)
    assert differs(masks=masks) == (False, False)
    masks[1, 5:20, 5:20] = 255
    assert differs(masks=masks) == (True, False)
    assert differs(where=np.array([True, False, False])) == (True, False)
    assert differs(weights=None) == (False, True)
    assert differs() == (False, False)


def test_a_graph_without_entities():
    none = np.zeros(0, int)
    png = graph_grid(
        [
            drawing(
                where=np.zeros(3, bool),
                kinds=np.array([0, 1]),
                places=np.array([0, 0]),
                senders=none,
                receivers=none,
                weights=None,
            )
        ]
    )
    assert png.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": np.zeros(3)}, "got 3 weights, expected 4"),
        ({"boxes": np.zeros((2, 4))}, "got 2 boxes, expected 3"),
        ({"masks": np.zeros((1, 28, 28), np.uint8)}, "got 1 masks"),
        ({"receivers": np.zeros(5, int)}, "got 5 receivers"),
    ],
)
def test_bad_drawings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        graph_grid([drawing(**changes)])
    with pytest.raises(ValueError, match="got no memes"):
        graph_grid([])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    where = tmp_path_factory.mktemp("pictures")
    root = where / "memes"
    (root / "img").mkdir(parents=True)
    for i in range(80):
        Image.new("RGB", (40, 32), (3 * i, 90, 90)).save(root / f"img/{i:05}.png")
    return write_store(where / "features", root=str(root))


def variables_of(config, graph):
    net = stored_network(config, (6, 4, 6))
    return net, jax.jit(lambda key, g: net.init(key, g, train=False))(
        jax.random.key(0), jax.device_put(graph)
    )


def test_attention_by_hand(store):
    """Scores of 0: each neighbour and the node itself have the same weight."""
    config = tiny(store)
    memes = open_store(store).splits["dev_seen"].features
    graph = graphs.batch(memes, [0, 1, 2], relations=tuple(config.graph.relations))
    _, variables = variables_of(config, graph)
    even = jax.tree_util.tree_map_with_path(
        lambda path, x: 0 * x if "att_" in jax.tree_util.keystr(path) else x, variables
    )
    got = graph_attention(config, even, graph, widths=(6, 4, 6))
    assert got is not None
    degree = np.bincount(graph.receivers, minlength=len(graph.nodes["kind"]))
    count = graph.n_edge[:3].sum()
    into = graph.receivers[:count]
    np.testing.assert_allclose(got[:count], 1 / (1 + degree[into]), rtol=1e-5)
    other = tiny(store, **{"graph.network": "gcn"})
    _, variables = variables_of(other, graph)
    assert graph_attention(other, variables, graph, widths=(6, 4, 6)) is None


def test_pictures_of_a_run(store, tmp_path):
    config = tiny(store)
    split = open_store(store).splits["dev_seen"]
    graph = graphs.batch(split.features, [0, 1], relations=("image_entity",))
    _, variables = variables_of(config, graph)
    proba = np.linspace(0, 1, 16)
    rows = pictures._chosen(split, proba)
    there = np.flatnonzero(split.features.where.any(axis=1))
    assert rows.tolist() == [there[-1], there[-2], there[1], there[0]]
    png = pictures.draw(config, variables, proba=proba)
    assert png is not None
    assert len(pixels(png)) == round(4 * ROW * DPI)
    # A control reads no edges; pictures may have gone.
    control = tiny(store, **{"graph.network": "mlp"})
    assert pictures.draw(control, {}, proba=proba) is None
    gone = tiny(store, **{"data.root": str(tmp_path)})
    assert pictures.draw(gone, variables, proba=proba) is None
