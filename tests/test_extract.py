"""The offline pass: entities, what is cut out of pictures, and a whole store."""

import dataclasses
import functools
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import maskrcnn_cases as cases
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from safetensors.numpy import load_file, save_file
from support import ROOT, TINY, shrunk
from test_pretrained import save_with_tokenizer
from weights_support import save

from memejax import metrics, parallel, predict
from memejax.config import load_config
from memejax.data.hateful_memes import Meme
from memejax.data.images import ImageError
from memejax.extract import cutting, detector, extract, extraction
from memejax.extract.encoders import make_encoders, tree_digest
from memejax.extract.entities import (
    Entities,
    Finder,
    clean_entities,
    grid_entities,
    known_entities,
    no_entities,
)
from memejax.extract.features import Options, columns_of, expected_columns
from memejax.extract.memes import memes_digest
from memejax.extract.sources import find_source
from memejax.models.maskrcnn import Detections
from memejax.models.resnet import RESNETS, ResNet
from memejax.store.read import open_store, shard_path
from memejax.store.write import OtherStoreError
from memejax.weights.maskrcnn import maskrcnn_variables

SIDE = 24


def tiny(**changes):
    """The demo's config, but for its sizes."""
    config = load_config(str(ROOT / "configs/graph.py"))
    parts = ("data", "model")
    sizes = {k: v for k, v in TINY.items() if k.split(".")[0] in parts}
    sizes |= {"extract.chunk": 40, "extract.batch": 16, "extract.grid": 2}
    return shrunk(config, sizes, **changes)


def entities(boxes, where=None, **more):
    """Entities of one picture."""
    boxes = np.asarray(boxes, np.float32)[None]
    k = boxes.shape[1]
    where = np.ones((1, k), bool) if where is None else np.array([where])
    scores = np.full((1, k), 0.5, np.float32)
    return Entities(boxes, scores, np.full((1, k), 3, np.int32), where, **more)


def sizes(*pairs):
    return np.array(pairs, np.int32)


# Entities


def test_tiles():
    finder = grid_entities(2)
    found = finder.find(
        [np.zeros((10, 20, 3), np.uint8), np.zeros((1, 1, 3), np.uint8)]
    )
    assert finder.most == 4 and finder.width == 0
    np.testing.assert_array_equal(
        found.boxes,
        [
            [[0, 0, 10, 5], [10, 0, 20, 5], [0, 5, 10, 10], [10, 5, 20, 10]],
            [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]],
        ],
    )
    assert found.where.all() and (found.scores == 1).all() and not found.classes.any()
    with pytest.raises(ValueError, match="grid of 0 tiles"):
        grid_entities(0)


def test_known_entities_are_found_in_every_picture():
    one = grid_entities(2).find([np.zeros((4, 6, 3), np.uint8)])
    finder = known_entities(one._replace(features=np.ones((1, 4, 5), np.float32)))
    assert (finder.most, finder.width) == (4, 5)
    found = finder.find([np.zeros((9, 9, 3), np.uint8)] * 3)
    np.testing.assert_array_equal(found.boxes, np.repeat(one.boxes, 3, axis=0))
    assert found.features.shape == (3, 4, 5) and found.masks is None


def test_boxes_are_covered_one_by_one():
    picture = np.zeros((2, 4, 3), np.uint8)
    picture[:, 2:] = 100
    boxes = np.array([[0, 0, 1, 1], [2.5, 1.2, 4, 2]])
    one, other = cutting.cover_boxes(picture, boxes)
    np.testing.assert_array_equal(one[..., 0], [[50, 0, 100, 100], [0, 0, 100, 100]])
    np.testing.assert_array_equal(other[..., 0], [[0, 0, 100, 100], [0, 0, 50, 50]])
    assert picture.max() == 100 and picture[0, 0, 0] == 0


def test_nothing():
    found = no_entities().find([np.zeros((2, 3, 3), np.uint8)] * 5)
    assert found.boxes.shape == (5, 0, 4) and found.where.shape == (5, 0)


def test_boxes_that_cannot_be_cut_out():
    found = entities(
        [
            [2, 3, 8, 9],  # As it is.
            [-5, -1, 4, 99],  # Beyond the edges.
            [4, 4, 4, 4],  # No area: one pixel about it.
            [10, 8, 10.5, 8],  # In the last corner.
            [7, 2, 3, 6],  # Its right edge left of its left one.
            [-9, -9, -5, -5],  # Outside of the picture.
            [np.nan] * 4,  # None at all.
        ],
        where=[True] * 6 + [False],
        features=np.ones((1, 7, 2), np.float32),
        masks=np.full((1, 7, 28, 28), 9, np.uint8),
    )
    got = clean_entities(found, sizes((8, 10)))
    expected = [
        [2, 3, 8, 8],
        [0, 0, 4, 8],
        [3.5, 3.5, 4.5, 4.5],
        [9, 7, 10, 8],
        [6.5, 2, 7.5, 6],
        [0, 0, 1, 1],
        [0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(got.boxes[0], expected)
    np.testing.assert_array_equal(got.scores[0], [0.5] * 6 + [0])
    np.testing.assert_array_equal(got.classes[0], [3] * 6 + [0])
    np.testing.assert_array_equal(got.features[0, :, 0], [1] * 6 + [0])
    np.testing.assert_array_equal(got.masks[0, :, 5, 7], [9] * 6 + [0])


def test_boxes_that_are_no_numbers():
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="box or score is not finite"):
            clean_entities(entities([[0, 0, value, 1]]), sizes((8, 8)))
    found = entities([[0, 0, 1, 1]])
    with pytest.raises(ValueError, match="box or score is not finite"):
        clean_entities(found._replace(scores=np.float32([[np.nan]])), sizes((8, 8)))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    boxes=arrays.arrays(np.float32, (5, 4), elements=st.floats(-1e4, 1e4, width=32)),
    size=st.tuples(st.integers(1, 4096), st.integers(1, 4096)),
)
def test_every_box_can_be_cut_out(boxes, size):
    found = clean_entities(entities(boxes), sizes(size)).boxes[0]
    assert (found >= 0).all() and (found[:, 2:] <= size[::-1]).all()
    # Up to what float32 tells apart at 4096 pixels.
    assert (found[:, 2:] - found[:, :2] > 0.99).all()
    picture = np.zeros((*size, 3), np.uint8)
    assert cutting.cut_boxes(picture, found, size=2).shape == (5, 2, 2, 3)


# Cutting


def test_cut_along_boxes():
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[:2, :3], picture[:2, 3:], picture[2:, 3:] = 10, 20, (1, 2, 3)
    boxes = np.float32([[0, 0, 3, 2], [3, 0, 6, 2], [3, 2, 6, 4], [5, 3, 6, 4]])
    cut = cutting.cut_boxes(picture, boxes, size=5)
    assert cut.shape == (4, 5, 5, 3) and cut.dtype == np.uint8
    for got, colour in zip(cut, (10, 20, [1, 2, 3], [1, 2, 3]), strict=True):
        assert (got == colour).all()
    # Half of each.
    both = cutting.cut_boxes(picture, np.float32([[2, 0, 4, 2]]), size=2)[0, :, :, 0]
    np.testing.assert_array_equal(both, [[10, 20], [10, 20]])
    assert cutting.cut_boxes(picture, boxes[:0], size=5).shape == (0, 5, 5, 3)


def test_cut_along_masks():
    square = np.full((8, 8, 3), 200, np.uint8)
    boxes = np.float32([[0, 0, 40, 20], [0, 0, 10, 20]])
    masks = np.full((2, 28, 28), 255, np.uint8)
    masks[1] = 51
    cut = cutting.cut_masks(square, boxes, masks=masks, size=(20, 40))
    # Deep inside of the box a fifth of 200, and nothing far outside of it.
    assert (cut[0, 1:-1, 1:-1] == 200).all()
    assert (cut[1, 2:-2, :1] == 40).all() and not cut[1, :, 4:].any()


def test_pictures_in_their_own_size(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (7, 11, 3)).astype(np.uint8)
    path = str(tmp_path / "a.png")
    Image.fromarray(pixels).save(path)
    read, size = cutting.read_picture(path, max_pixels=100)
    np.testing.assert_array_equal(read, pixels)
    assert size == (7, 11)
    # Turned by EXIF: the file is wide, the picture is high.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, exif=exif)
    read, size = cutting.read_picture(path, max_pixels=100)
    np.testing.assert_array_equal(read, np.rot90(pixels, -1))
    assert size == (11, 7)
    # A strip is shrunk, and its boxes grow back.
    monkeypatch.setattr(cutting, "LONGEST", 5)
    for shape in ((1, 50), (50, 1)):
        Image.fromarray(np.zeros((*shape, 3), np.uint8)).save(path)
        read, size = cutting.read_picture(path, max_pixels=100)
        assert max(read.shape[:2]) == 5 and min(read.shape[:2]) == 1
        assert size == shape
    moved = cutting.to_original(
        np.float32([[[1, 0, 2, 5.001]]]), sizes((5, 2)), originals=sizes((50, 3))
    )
    np.testing.assert_allclose(moved, [[[1.5, 0, 3, 50]]], rtol=1e-6)
    assert moved[0, 0, 3] == 50
    with pytest.raises(ImageError, match="too large"):
        cutting.read_picture(path, max_pixels=49)


# Detector


@pytest.fixture(scope="module")
def state():
    with np.load(pathlib.Path(__file__).parent / "golden" / "maskrcnn.npz") as file:
        shapes = json.loads(str(file["small/shapes"]))
    return cases.state_dict(shapes, model="small")


def noise(*shapes):
    return [
        np.floor(256 * cases.uniform(f"extract/{h}x{w}", h, w, 3)).astype(np.uint8)
        for h, w in shapes
    ]


class Seen:
    """In the place of MaskRCNN: one box around the picture, its canvas as features."""

    hidden = 64 * 96 * 3

    def __init__(self, **attributes):
        assert attributes == {
            "classes": 7,
            "detections": 1,
            "score_threshold": 0.3,
            "masks": False,
        }

    def apply(self, variables, images, sizes):
        b, h, w, _ = images.shape
        corner = jnp.stack([sizes[:, 1], sizes[:, 0]], axis=-1).astype(jnp.float32)
        return Detections(
            boxes=jnp.concatenate([jnp.zeros((b, 2)), corner], axis=-1)[:, None],
            scores=jnp.full((b, 1), variables["score"]),
            labels=jnp.full((b, 1), 2 if h > w else 1, jnp.int32),
            masks=None,
            features=images.reshape(b, 1, -1),
            where=jnp.ones((b, 1), bool),
        )


def bilinear(picture, height, width):
    """By the definition, in float64."""
    values = picture.astype(float)
    for axis, new in enumerate((height, width)):
        old = picture.shape[axis]
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, old - 1)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        values = (1 - share) * values.take(low, axis) + share * values.take(high, axis)
    return values


def test_what_a_detector_sees(monkeypatch):
    monkeypatch.setattr(detector, "MaskRCNN", Seen)
    weights = detector.Detector({"score": jnp.float32(0.5)}, {"classes": 7})
    make = functools.partial(
        detector.mask_rcnn, weights, score=0.3, masks=False, mesh=parallel.mesh(2)
    )
    sides = dict(min_side=60, max_side=90)
    find = make(most=1, batch=2, **sides).find
    # Oblong, upright, too large, its strip of no height, one pixel.
    shapes = ((40, 60), (48, 32), (240, 300), (1, 300), (1, 1))
    resized = ((60, 90), (90, 60), (60, 75), (1, 90), (60, 60))
    pictures = noise(*shapes)
    found = find(pictures)
    assert found.masks is None and found.where.all() and (found.scores == 0.5).all()
    np.testing.assert_array_equal(found.classes[:, 0], [1, 2, 1, 1, 1])
    np.testing.assert_allclose(
        found.boxes[:, 0], [[0, 0, w, h] for h, w in shapes], rtol=1e-6
    )
    for i, (height, width) in enumerate(resized):
        canvas = (96, 64, 3) if i == 1 else (64, 96, 3)
        expected = np.zeros(canvas)
        values = bilinear(pictures[i], height, width) / 255
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        expected[:height, :width] = (values - mean) / std
        # What is shrunk comes in steps of 1 / 255.
        tolerance = 0.51 / 255 / 0.224 if min(shapes[i]) > 90 or i == 3 else 1e-4
        got = found.features[i, 0].reshape(canvas)
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)
    for options in (dict(most=0), dict(min_side=0), dict(min_side=91)):
        with pytest.raises(ValueError, match="expected at least 1 entity"):
            make(**{"most": 1, "batch": 2, **sides, **options})
    with pytest.raises(ValueError, match="batch of 3 cannot be split evenly over 2"):
        make(most=1, batch=3, **sides)


def test_detections(state):
    """Of a picture, whatever lies beside it; the canvas is square: one program."""
    weights = maskrcnn_variables(state, sizes=cases.SMALL)
    attributes = {k: v for k, v in cases.SMALL.items() if k != "detections"}
    finder = detector.mask_rcnn(
        detector.Detector(weights, attributes),
        most=3,
        score=0.3,
        min_side=64,
        max_side=64,
        masks=True,
        mesh=parallel.mesh(2),
        batch=2,
    )
    assert (finder.most, finder.width) == (3, 32)
    shapes = ((40, 60), (50, 30), (1, 1))
    pictures = noise(*shapes)
    found = finder.find(pictures)
    assert found.boxes.shape == (3, 3, 4) and found.features.shape == (3, 3, 32)
    assert found.masks.shape == (3, 3, 28, 28) and found.masks.dtype == np.uint8
    assert found.where[:2].any(axis=1).all() and found.masks.max() > 100
    assert (found.scores[found.where] > 0.3).all()
    assert (found.classes[found.where] >= 1).all() and found.classes.max() < 7
    for boxes, (height, width) in zip(found.boxes, shapes, strict=True):
        edges = np.float32([width, height] * 2)
        assert (boxes >= 0).all() and (boxes <= edges * 1.000001).all()
    order = [2, 0, 1]
    other = finder.find([pictures[i] for i in order])
    np.testing.assert_array_equal(other.classes, found.classes[order])
    np.testing.assert_allclose(other.boxes, found.boxes[order], rtol=0, atol=1e-3)
    np.testing.assert_allclose(other.scores, found.scores[order], rtol=0, atol=1e-5)


def test_detector_files(state, tmp_path):
    path = tmp_path / "detector.safetensors"
    save_file({"conv.weight": np.zeros((2, 2), np.float32)}, path)
    with pytest.raises(ValueError, match="is not a Mask R-CNN of torchvision"):
        detector.load_detector(path)
    save_file(state, path)
    # Not of the published sizes: all that is read of the file is told.
    with pytest.raises(ValueError, match=r"detector\.safetensors: tensors do not fit"):
        detector.load_detector(path)
    bad = state["rpn.head.cls_logits.weight"] * np.float32(np.nan)
    save_file(state | {"rpn.head.cls_logits.weight": bad}, path)
    with pytest.raises(ValueError, match="have NaN or infinity.*rpn.head.cls_logits"):
        detector.load_detector(path)


# The pass


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of random encoders, and its key."""
    where = tmp_path_factory.mktemp("extract") / "store"
    return where, extract(tiny(**{"extract.tokens": True}), where)


@pytest.fixture(scope="module")
def source(made):
    config = tiny()
    config.data.tokenizer = str(made[0] / "tokenizer")
    return find_source(config, captions=[], folder=made[0])


@pytest.fixture(scope="module")
def encoders(source):
    return make_encoders(source, mesh=parallel.mesh(), batch=16)


def normalised(images):
    """By ImageNet's mean and standard deviation, in float64."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return jnp.float32((images / 255 - mean) / std)


def close(got, expected, tolerance=1e-5):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


def test_a_store(made, source):
    store = open_store(made[0], key=made[1])
    assert {name: len(split) for name, split in store.splits.items()} == {
        "train": 64,
        "dev_seen": 16,
        "test_unseen": 16,
    }
    split = store.splits["dev_seen"]
    lines = (made[0] / "memes" / "dev_seen.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert split.ids == tuple(str(r["id"]) for r in records)
    assert split.captions == tuple(r["text"] for r in records)
    assert split.images == tuple(r["img"] for r in records)
    np.testing.assert_array_equal(split.labels, [r["label"] for r in records])
    # Of the pictures as they are, by the encoder's own variables.
    pictures = np.stack(
        [np.asarray(Image.open(made[0] / "memes" / r["img"])) for r in records]
    )
    assert pictures.shape == (16, SIDE, SIDE, 3)
    config = tiny().model.image.cnn.to_dict()
    config |= RESNETS[config.pop("name")] | config
    del config["normalization"]
    encode = jax.jit(lambda x: ResNet(**config).apply(source.image, x, train=False))
    found = split.features
    close(found.image, encode(normalised(pictures)))
    tile = np.stack(
        [
            np.asarray(
                Image.fromarray(p[12:, :12]).resize(
                    (SIDE, SIDE), Image.Resampling.BILINEAR
                )
            )
            for p in pictures
        ]
    )
    close(found.entities[:, 2], encode(normalised(tile)))
    np.testing.assert_array_equal(found.boxes[3, 2], [0, 12, 12, 24])
    np.testing.assert_array_equal(found.sizes, [[SIDE, SIDE]] * 16)
    # [CLS] is the caption; padding is zero.
    np.testing.assert_array_equal(found.tokens[:, 0], found.text)
    assert not found.tokens[~found.token_where].any()
    words = [len(c.split()) for c in split.captions]
    assert (found.token_where.sum(axis=1) >= np.minimum(np.add(words, 2), 16)).all()
    # The same picture has the same hash, and hardly another has.
    hashes = {
        name: h for name, h in zip(split.images, split.hashes.tolist(), strict=True)
    }
    assert len(set(hashes.values())) > len(hashes) / 2
    assert len({*zip(split.images, split.hashes.tolist(), strict=True)}) == len(hashes)


def test_goes_on_with_what_is_missing(made, tmp_path, monkeypatch, capsys):
    where = tmp_path / "store"
    shutil.copytree(made[0], where)
    before = load_file(shard_path(where, 1))
    shard_path(where, 1).unlink()
    shard_path(where, 2).write_bytes(shard_path(where, 2).read_bytes()[:-1])
    asked = []
    monkeypatch.setattr(
        extraction,
        "columns_of",
        lambda memes, *a, **k: (
            asked.extend(m.id for m in memes) or columns_of(memes, *a, **k)
        ),
    )
    config = tiny(**{"extract.tokens": True, "extract.batch": 8})
    assert extract(config, where) == made[1]
    lines = [json.loads(x) for x in (where / "memes.jsonl").read_text().splitlines()]
    assert asked == [line["id"] for line in lines[40:]]
    said = capsys.readouterr().out
    assert "1 of 3 shards exist already" in said and "56/56  100%" in said
    assert (
        "image_encoder, RANDOM" in said
        and "a random encoder has learnt nothing" in said
    )
    after = load_file(shard_path(where, 1))
    assert after.keys() == before.keys()
    # The digest is of the last bits too, in which two runs may differ.
    for name in before.keys() - {"digest"}:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-5, atol=1e-5)
    # Finished: nothing is computed.
    asked.clear()
    assert extract(config, where) == made[1]
    assert asked == []


def test_other_settings_and_other_data(made, tmp_path):
    where = tmp_path / "store"
    shutil.copytree(made[0], where)
    for change, said in (
        ({"seed": 1, "data.root": str(where / "memes")}, "image.parameters"),
        ({"model.arm.text_pooling": "mean"}, "text.pooling: cls there, mean requested"),
        (
            {"extract.chunk": 41, "extract.grid": 3},
            r"entities.grid: 2 there, 3 requested\n  layout.chunk: 40 there, 41",
        ),
    ):
        with pytest.raises(OtherStoreError, match=said):
            extract(tiny(**{"extract.tokens": True} | change), where)
    picture = sorted((where / "memes" / "img").iterdir())[0]
    pixels = np.asarray(Image.open(picture)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(picture)
    config = tiny(**{"extract.tokens": True, "data.root": str(where / "memes")})
    with pytest.raises(OtherStoreError, match=r"else:\n  data\.memes: \w+ there"):
        extract(config, where)


def test_shards_of_processes(tmp_path):
    """Each shard is written by one process, and all by all of them."""

    class Writer:
        count, folder = 5, tmp_path

        def __init__(self):
            self.done = {3: "before"}

        def missing(self):
            return [shard for shard in range(self.count) if shard not in self.done]

        def rows(self, shard):
            return range(10 * shard, 10 * shard + 10)

        def write(self, shard, values):
            assert shard not in self.done
            self.done[shard] = values

    writer = Writer()
    extraction.fill(writer, lambda rows: rows.start, process=1, of=2)
    assert writer.done == {3: "before", 1: 10}
    extraction.fill(writer, lambda rows: rows.start, process=0, of=2)
    assert writer.done == {3: "before", 0: 0, 1: 10, 2: 20, 4: 40}


def test_what_cannot_be_extracted(tmp_path):
    for change, said in (
        ({"extract.allow_random": False}, "image_encoder and text_encoder would stay"),
        ({"extract.entities": "detector"}, "needs weights.detector"),
        ({"extract.entities": "boxes"}, "unknown extract.entities 'boxes': choose one"),
        ({"extract.masks": True}, "'grid' has no masks and no features"),
        ({"extract.crop": "mask"}, "'grid' has no masks and no features"),
        ({"extract.crop": "circle"}, "unknown extract.crop 'circle'"),
        ({"extract.arm": "rnn"}, "unknown arm 'rnn'"),
        ({"extract.batch": 6}, "cannot be split evenly over 4 devices"),
        ({"extract.dtype": "int8"}, "unknown extract.dtype 'int8'"),
        ({"extract.run": str(tmp_path)}, "no run in"),
        ({"data.name": "pictures"}, "only 'memes' have features"),
    ):
        with pytest.raises(ValueError, match=said):
            extract(tiny(**change), tmp_path / "store")
    assert not (tmp_path / "store" / "store.json").exists()


def test_memes_of_all_kinds(encoders, tmp_path):
    """No detections, no text, one pixel, a box of no area; a detector as a stub."""
    shapes = ((30, 40), (1, 1), (60, 20))
    memes = []
    for i, pixels in enumerate(noise(*shapes)):
        path = tmp_path / f"{i}.png"
        Image.fromarray(pixels).save(path)
        text = "" if i == 1 else "my brother read a soup"
        memes.append(Meme(str(i), str(path), text, -1, "test", "x", i))
    boxes = np.zeros((3, 2, 4), np.float32)
    boxes[1], boxes[2, 0] = [[0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5]], [5, 5, 25, 70]
    there = np.array([[False, False], [True, True], [True, False]])

    def find(pictures):
        assert [p.shape[:2] for p in pictures] == list(shapes)
        return Entities(
            boxes,
            np.full((3, 2), 0.75, np.float32),
            np.full((3, 2), 4, np.int32),
            there,
            features=np.ones((3, 2, 7), np.float32),
            masks=np.full((3, 2, 28, 28), 255, np.uint8),
        )

    finder = Finder(find, most=2, width=7)
    options = Options(box_features=True, masks=True, tokens=True)
    got = columns_of(memes, encoders, finder=finder, options=options)
    for name, column in expected_columns(encoders, finder, options=options).items():
        assert (got[name].dtype, got[name].shape) == (column.dtype, (3, *column.shape))
        assert np.isfinite(got[name].astype(float)).all()
    np.testing.assert_array_equal(got["where"], there)
    np.testing.assert_array_equal(got["sizes"], shapes)
    for name in ("entities", "boxes", "scores", "classes", "box_features", "masks"):
        assert not got[name][~there].any()
    assert (np.abs(got["entities"][there]).max(axis=-1) > 0).all()
    np.testing.assert_array_equal(got["boxes"][2, 0], [5, 5, 20, 60])
    # One pixel is all of its picture, however small the box.
    for i in range(2):
        close(got["entities"][1, i], got["image"][1])
        np.testing.assert_array_equal(got["boxes"][1, i], [0, 0, 1, 1])
    # [CLS] and [SEP] are all that an empty caption has.
    np.testing.assert_array_equal(got["token_where"].sum(axis=1)[1], 2)
    # An entity is what is in its box.
    crop = Image.open(memes[2].image).crop((5, 5, 20, 60))
    crop = crop.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    close(got["entities"][2, 0], encoders.image(np.asarray(crop)[None]).pooled[0])

    boxes[2, 1] = np.nan
    columns_of(memes, encoders, finder=finder, options=options)
    boxes[2, 0, 3] = np.nan
    with pytest.raises(ValueError, match="box or score is not finite"):
        columns_of(memes, encoders, finder=finder, options=options)
    boxes[2] = 1
    masked = columns_of(memes, encoders, finder=finder, options=Options(crop="mask"))
    assert set(masked) == set(
        expected_columns(encoders, finder, options=Options(crop="mask"))
    )
    # A mask all over its picture darkens nothing in the middle; a crop is other.
    assert np.abs(masked["entities"][2, 0] - got["entities"][2, 0]).max() > 1e-3
    plain = grid_entities(1)
    with pytest.raises(ValueError, match="got entities without masks"):
        columns_of(memes, encoders, finder=plain, options=Options(crop="mask"))
    (tmp_path / "2.png").unlink()
    with pytest.raises(ImageError, match="is missing"):
        columns_of(memes, encoders, finder=plain, options=Options())


def test_of_a_run(finished, tmp_path):
    """The rest of the arm, worked out in float64, gives the run's own scores."""
    run, _ = finished
    config = tiny(
        **{
            "extract.run": str(run),
            "extract.arm": "vit",
            "extract.entities": "none",
            "extract.allow_random": False,
            "data.root": str(run / "memes"),
            # Its own sizes count.
            "data.image_size": 48,
        }
    )
    key = extract(config, tmp_path)
    split = open_store(tmp_path, key=key).splits["dev_seen"]
    assert split.features.entities.shape[:2] == (16, 0)
    arm = predict.restore(run, arm="vit").variables["params"]["arms_vit"]
    assert "classifier" in arm and "image_head" not in arm

    def dense(x, layer):
        return x @ layer["kernel"].astype(float) + layer["bias"]

    def norm(x, layer):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * layer["scale"] + layer["bias"]

    v = norm(dense(split.features.image, arm["vision_adder"]), arm["vision_norm"])
    u = norm(dense(split.features.text, arm["language_adder"]), arm["language_norm"])
    fused = np.maximum(dense(u * v, arm["fusion_layer"]), 0)
    (layer,) = arm["classifier"].values()
    proba = 1 / (1 + np.exp(-dense(fused, layer)[:, 0]))
    path = run / "0" / "evaluate" / "predictions" / "dev_seen.vit.csv"
    ids, expected, _ = metrics.read_predictions(path)
    assert list(split.ids) == ids
    np.testing.assert_allclose(proba, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="has the arms cnn, vit"):
        extract(tiny(**{"extract.run": str(run), "extract.arm": "rnn"}), tmp_path / "b")


def test_of_checkpoints(tmp_path):
    """Their parameters, normalisation and tokenizer, and nothing random."""
    written, image = tmp_path / "text", tmp_path / "image"
    for folder in (written, image):
        folder.mkdir()
    tensors, _ = save_with_tokenizer(written, "bert")
    pixels, _ = save(image, "vit")
    preprocessing = {"image_mean": [0.1] * 3, "image_std": [0.6] * 3}
    (image / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    config = tiny(
        **{
            "weights.text": str(written),
            "weights.image_vit": str(image),
            "extract.arm": "vit",
            "extract.allow_random": False,
            "data.text_length": 12,
            "data.image_size": 12,
        }
    )
    source = find_source(config, captions=[], folder=tmp_path)
    words = tensors["embeddings.word_embeddings.weight"]
    assert any(np.array_equal(x, words) for x in jax.tree.leaves(source.text))
    (kernel,) = (
        v for k, v in pixels.items() if "patch_embeddings" in k and v.ndim == 4
    )
    leaves = [np.asarray(x) for x in jax.tree.leaves(source.image)]
    flat = kernel.transpose(2, 3, 1, 0).ravel()
    assert any(np.array_equal(x.ravel(), flat) for x in leaves)
    assert str(written) in source.names["text_encoder"]
    encoders = make_encoders(source, mesh=parallel.mesh(1), batch=2)
    assert encoders.parts["image"]["normalization"] == {
        "mean": [0.1] * 3,
        "std": [0.6] * 3,
    }
    assert (encoders.size, encoders.tokens) == (12, (12, words.shape[1]))
    config.weights.text = None
    with pytest.raises(ValueError, match=r"^text_encoder would stay random"):
        find_source(config, captions=[], folder=tmp_path)


def test_digests(tmp_path):
    a = {"b": np.zeros(2, np.float32), "a": {"c": np.ones((2, 1), np.int32)}}
    same = {"a": {"c": jnp.ones((2, 1), jnp.int32)}, "b": jnp.zeros(2)}
    assert tree_digest(a) == tree_digest(same)
    others = (
        a | {"b": np.zeros(2, np.float64)},
        a | {"b": np.float32([0, 1])},
        a | {"b": np.zeros((2, 1), np.float32)},
        {"a": a["a"], "d": a["b"]},
    )
    assert len({tree_digest(tree) for tree in (a, *others)}) == 5

    (tmp_path / "x").write_bytes(b"one")
    (tmp_path / "y").write_bytes(b"one")
    meme = Meme("1", str(tmp_path / "x"), "text", 1, "train", "train.jsonl", 1)
    digest = memes_digest([meme])
    # A copy elsewhere, read from another line, is the same.
    moved = dataclasses.replace(meme, image=str(tmp_path / "y"), line=2)
    assert memes_digest([moved]) == digest
    for change in ({"id": "2"}, {"text": "x"}, {"label": 0}, {"split": "dev"}):
        assert memes_digest([dataclasses.replace(meme, **change)]) != digest
    assert memes_digest([meme, moved]) != digest
    (tmp_path / "x").write_bytes(b"two")
    assert memes_digest([meme]) != digest
