import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st
from test_meme_graph import some

from memejax import graphs
from memejax.graphs import hetero
from memejax.graphs.links import Links, join_groups
from memejax.models import gnn


def test_difference_hash_by_hand():
    rows = np.arange(9.0)
    # Brighter to the right everywhere; nowhere; in the upper half.
    pictures = np.stack([np.tile(rows, (8, 1)), np.tile(-rows, (8, 1))] * 2)
    pictures[2, 4:] = 5.0
    pictures[3] = 7.3
    got = graphs.difference_hash(pictures)
    assert [f"{h:016x}" for h in got] == [
        "f" * 16,
        "0" * 16,
        "f" * 8 + "0" * 8,
        "0" * 16,
    ]
    assert got.dtype == np.uint64
    one = np.zeros((1, 8, 9))
    one[0, 0, 1] = 1.0
    assert graphs.difference_hash(one)[0] == 1 << 63
    # Larger pictures are averaged: each pixel as 3 x 2 of the same value.
    large = pictures.repeat(3, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(graphs.difference_hash(large), got)


def test_cosine_hash_agrees_with_scipy():
    pictures = np.random.default_rng(0).uniform(0, 255, size=(5, 64, 96))
    small = pictures.reshape(5, 32, 2, 32, 3).mean(axis=(2, 4))
    low = scipy.fft.dctn(small, axes=(1, 2))[:, :8, :8].reshape(5, 64)
    # scipy's first basis function is as long as the others: the ranks are the same.
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    expected = [int("".join("01"[b] for b in row), 2) for row in bits.astype(int)]
    assert graphs.cosine_hash(pictures).tolist() == expected


def test_hashes_change_little_where_a_picture_does():
    rng = np.random.default_rng(1)
    smooth = scipy.ndimage.gaussian_filter(rng.normal(size=(2, 32, 32)), (0, 4, 4))
    noisy = smooth + 0.01 * smooth.std() * rng.normal(size=smooth.shape)
    for function in (graphs.difference_hash, graphs.cosine_hash):
        one, two = function(smooth), function(noisy)
        assert np.bitwise_count(one ^ two).max() <= 4
        assert np.bitwise_count(one[0] ^ one[1]) >= 15


@settings(deadline=None, derandomize=True, max_examples=30)
@given(seed=st.integers(0, 1000), distance=st.integers(1, 6))
def test_near_pairs_are_all_the_near_pairs(seed, distance):
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**63, size=6).astype(np.uint64)
    flips = np.left_shift(np.uint64(1), rng.integers(0, 64, size=(6, 8, 7), dtype="u8"))
    kept = np.where(rng.integers(0, 2, size=flips.shape) == 1, flips, np.uint64(0))
    moved = centres[:, None] ^ np.bitwise_xor.reduce(kept, axis=-1)
    hashes = np.unique([*moved.reshape(-1), *centres, *(centres ^ np.uint64(4))])
    differ = np.bitwise_count(hashes[:, None] ^ hashes[None])
    i, j = np.nonzero(np.triu(differ <= distance, 1))
    got = graphs.near_pairs(hashes, distance=distance)
    assert len(i)
    np.testing.assert_array_equal(got, np.stack([i, j], axis=1))


def test_draws_are_without_replacement_and_uniform():
    links = Links(np.array([5, 6, 7, 8, 1]), np.array([1, 1, 1, 1, 0]), count=3)
    rng = np.random.default_rng(0)
    got = links.draw(np.array([0, 1, 2, -1] * 3000), fanout=2, rng=rng)
    got = got.reshape(3000, 4, 2)
    assert (got[:, 0] == [1, -1]).all() and (got[:, 2:] == -1).all()
    pairs, counts = np.unique(np.sort(got[:, 1], axis=1), axis=0, return_counts=True)
    assert pairs.tolist() == [[5, 6], [5, 7], [5, 8], [6, 7], [6, 8], [7, 8]]
    # 500 each, with a deviation of 20.
    assert np.abs(counts - 500).max() < 90
    every = links.draw(np.array([1]), fanout=6, rng=rng)
    assert every.tolist() == [[5, 6, 7, 8, -1, -1]]


def test_alike_by_hand():
    links = join_groups(np.array([0, 1, 0, -1, 2, 0]), [(1, 2)], most=4, seed=0)
    assert [links.of(i).tolist() for i in range(6)] == [
        [2, 5],
        [4],
        [0, 5],
        [],
        [1],
        [0, 2],
    ]
    # A hundred of a group: four others each, never the element itself.
    links = join_groups(np.zeros(100, int), [], most=4, seed=0)
    assert (np.diff(links.starts) == 4).all()
    for i in range(100):
        assert i not in links.of(i) and len(set(links.of(i).tolist())) == 4


CAPTIONS = ["look  at THIS", "Look at this", "alone", "", "", "look at this"]
HASHES = np.array([0, 1, 2**40 - 1, 2**40 - 1, 2**63 - 2**48, 0], np.uint64)
TRAINING = np.array([True, True, True, False, False, True])


def whole(labels=(0, 1, 0, 1, 0, 1), n=6) -> Any:
    memes = some(n=n, k=2)
    where = np.array([[1, 1], [1, 0], [1, 1], [0, 0], [0, 1], [1, 0]], bool)
    classes = np.array([[3, 3], [3, 9], [0, 1], [9, 9], [9, 1], [2, 9]])
    return graphs.hetero_graph(
        dataclasses.replace(memes, where=where, classes=classes),
        captions=CAPTIONS,
        hashes=HASHES,
        labels=np.array(labels),
        training=TRAINING,
        classes=4,
        distance=1,
    )


def test_links_between_memes_by_hand():
    graph = whole()

    def of(name, count):
        return [graph.links[name].of(i).tolist() for i in range(count)]

    own = [[i] for i in range(6)]
    for name in ("image_to_meme", "meme_to_image", "text_to_meme", "meme_to_text"):
        assert of(name, 6) == own
    # Meme 0 has class 3 twice; what is not there has no class, not even a wrong one.
    assert of("class_to_meme", 6) == [[3], [3], [0, 1], [], [1], [2]]
    assert of("meme_to_class", 4) == [[2], [2, 4], [5], [0, 1]]
    # 0 and 5 are equal, 1 is a bit away from both; 2 and 3 are equal.
    assert of("near_image", 6) == [[1, 5], [0, 5], [3], [2], [], [0, 1]]
    # Case and spaces do not matter; to say nothing is not to say the same.
    assert of("same_text", 6) == [[1, 5], [0, 5], [], [], [], [0, 1]]
    assert graph.labels.tolist() == [0, 1, 0, -1, -1, 1]


def test_a_tree_by_hand():
    graph = whole()
    tree = graphs.sample(graph, [2, 0], fanouts=(2, 2), seed=0, step=0)
    # Slots: the root, its image, text and 2 classes; the image's 2, the text's 2 and
    # the classes' 2 memes each.
    assert len(tree.nodes["kind"]) == 2 * 13 + 1 and len(tree.senders) == 2 * 12
    n = int(tree.n_node[0])
    found = list(zip(tree.nodes["kind"][:n], tree.nodes["place"][:n], strict=True))
    # Meme 2 with classes 0 and 1, the near image of 3, and memes 2, and 2 and 4.
    assert found == [
        (0, 2),
        (1, 2),
        (2, 2),
        (3, 0),
        (3, 1),
        (0, 2),
        (0, 2),
        (0, 4),
        (1, 3),
    ]
    names = [hetero.EDGE_TYPES[i] for i in tree.edges["type"][: n - 1]]
    assert names == [
        "image_to_meme",
        "text_to_meme",
        *["class_to_meme"] * 2,
        *["meme_to_class"] * 3,
        "near_image",
    ]
    assert tree.senders[: n - 1].tolist() == list(range(1, n))
    assert tree.receivers[: n - 1].tolist() == [0, 0, 0, 0, 3, 4, 4, 1]
    features = tree.nodes["features"]
    np.testing.assert_array_equal(features[1], graph.features[1][2])
    np.testing.assert_array_equal(features[2, :4], graph.features[2][2])
    assert features[0].tolist() == [1, 0, 0, 0, 0, 0]
    assert features[4].tolist() == [0, 1, 0, 0, 0, 0]
    assert tree.globals["index"].tolist() == [2, 0, -1]
    assert tree.globals["label"].tolist() == [0, 0, -1]


def test_sampling_is_a_function_of_seed_and_step():
    graph = whole()
    draw = partial(
        graphs.sample, graph, [0, 1, 5], fanouts=(1, 1, 1), label_features=True
    )
    one, same = draw(seed=3, step=7), draw(seed=3, step=7)
    jax.tree.map(np.testing.assert_array_equal, one, same)
    places = {draw(seed=3, step=s).nodes["place"].tobytes() for s in range(8)}
    assert len(places) > 1
    assert len({len(draw(seed=s, step=0).senders) for s in range(8)}) == 1


def test_no_label_that_is_held_out_reaches_a_training_graph():
    labels = np.array([0, 1, 0, 1, 0, 1])
    flipped = np.where(TRAINING, labels, 1 - labels)
    for step in range(5):
        trees = [
            graphs.sample(
                whole(these),
                [0, 1, 2, 5],
                fanouts=(4, 4, 4),
                seed=0,
                step=step,
                label_features=True,
            )
            for these in (labels, flipped)
        ]
        jax.tree.map(np.testing.assert_array_equal, *trees)
    # Held-out memes are there, so that this says something; they are all unknown.
    tree = trees[0]
    memes = tree.nodes["kind"] == 0
    held_out = memes & ~TRAINING[tree.nodes["place"]]
    assert held_out.any() and (tree.nodes["label"][held_out] == -1).all()
    # A training meme's is known where it is a neighbour, and never in its own tree.
    assert (tree.nodes["label"][memes] >= 0).any()
    root = np.repeat(tree.globals["index"], tree.n_node)
    own = memes & (tree.nodes["place"] == root)
    assert own.sum() > len(root[:4]) and (tree.nodes["label"][own] == -1).all()
    assert (tree.nodes["label"][~memes] == -1).all()
    known = memes & ~own & TRAINING[tree.nodes["place"]]
    np.testing.assert_array_equal(
        tree.nodes["label"][known], labels[tree.nodes["place"][known]]
    )


def test_a_root_that_is_held_out_is_no_target():
    tree = graphs.sample(whole(), [3, 1], fanouts=(1,), seed=0, step=0)
    assert tree.globals["label"].tolist() == [-1, 1, -1]


def test_a_model_reads_it():
    graph = whole()
    tree = graphs.sample(graph, [2, 4], fanouts=(2, 2), seed=0, step=0)
    module = gnn.MemeGraphNet(
        gnn.NodeEncoder(graph.widths, names=hetero.KINDS, features=4),
        gnn.GraphClassifier(
            layer="rgcn",
            widths=(4, 3),
            dropouts=(0.0, 0.0, 0.0),
            activation="relu",
            edge_fields=("type",),
            relations=len(hetero.EDGE_TYPES),
            readout="node",
        ),
    )
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(partial(module.init, train=False), jax.random.key(0), tree)
    variables = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
    )
    apply = jax.jit(partial(module.apply, train=False))
    logits = apply(variables, tree)
    # Through two layers a root sees the picture of the meme that is two hops away.
    first = int(
        np.flatnonzero((tree.nodes["kind"] == 1) & (tree.nodes["place"] == 3))[0]
    )
    # A copy: jax may still read the first one's memory.
    features = tree.nodes["features"].copy()
    features[first] += 1.0
    changed = apply(
        variables, tree._replace(nodes={**tree.nodes, "features": features})
    )
    assert abs(float(changed[0] - logits[0])) > 1e-3
    np.testing.assert_allclose(changed[1], logits[1], rtol=1e-6)


def test_what_is_wrong_is_said():
    graph = whole()
    with pytest.raises(ValueError, match="places 0 to 6"):
        graphs.sample(graph, [0, 6], fanouts=(1,), seed=0, step=0)
    with pytest.raises(ValueError, match="got fan-outs"):
        graphs.sample(graph, [0], fanouts=(2, 0), seed=0, step=0)
    with pytest.raises(ValueError, match="expected one of each"):
        whole(labels=(0, 1))
    with pytest.raises(ValueError, match="expected 1 to 15"):
        graphs.near_pairs(HASHES[:2], distance=0)
    with pytest.raises(ValueError, match="a hash occurs twice"):
        graphs.near_pairs(HASHES, distance=2)
    with pytest.raises(ValueError, match="expected grey ones"):
        graphs.cosine_hash(np.zeros((3, 3)))
