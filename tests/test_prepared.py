"""Data that TFDS prepared: true files of its format, made without TensorFlow."""

import io
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image
from support import shrunk

from memejax import datasets, train
from memejax.config import load_config
from memejax.data import prepared
from memejax.data.hateful_memes import MissingDataError
from memejax.datasets import labelled


def png(pixels):
    stream = io.BytesIO()
    grey = pixels.shape[-1] == 1
    Image.fromarray(pixels[..., 0] if grey else pixels).save(stream, "PNG")
    return stream.getvalue()


def prepare(
    folder,
    images,
    labels,
    *,
    splits=("train", "test"),
    written=None,
    names=("image", "label"),
    more=None,
    labelled=("train", "validation", "test"),
):
    """Writes what TFDS writes: records, features.json, dataset_info.json."""
    shape = {image.shape for image in images}
    image_name, label_name = names
    features = tfds.features.FeaturesDict(
        {
            image_name: tfds.features.Image(
                shape=shape.pop() if len(shape) == 1 else (None, None, 3)
            ),
            label_name: tfds.features.ClassLabel(num_classes=10),
            **(more or {}),
        }
    )
    folder.mkdir(parents=True)
    infos = []
    for split in splits:
        # As ImageNet's test labels.
        known = labels if split in labelled else np.full(len(labels), -1)
        name = tfds.core.ShardedFileTemplate(
            dataset_name="mnist",
            data_dir=folder,
            split=split,
            filetype_suffix="array_record",
        )
        path = name.sharded_filepath(shard_index=0, num_shards=1)
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for image, label in list(zip(images, known, strict=True))[:written]:
            record = {image_name: png(image), label_name: int(label)}
            record |= {name: 0 for name in more or {}}
            writer.write(features.serialize_example(record))
        writer.close()
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(images)],
                num_bytes=1000,
                filename_template=name,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=infos,
        filename_template=name,
        # That check is the one thing here that takes TensorFlow.
        check_data=False,
    )
    return folder


@pytest.fixture(scope="module")
def digits():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (7, 28, 28, 1), np.uint8), np.arange(7) % 10


def test_pictures_and_labels_come_back(tmp_path, digits):
    where = prepare(tmp_path / "mnist/3.0.1", *digits)
    for folder in (tmp_path, where):
        splits = prepared.read("mnist", folder)
        assert set(splits) == {"train", "test"}
        np.testing.assert_array_equal(splits["test"].images, digits[0])
        np.testing.assert_array_equal(splits["train"].labels, digits[1])


def test_the_newest_version_is_found(tmp_path):
    for version in ("3.0.1", "3.0.10", "3.0.9"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "features.json").touch()
    found = prepared.find("mnist", tmp_path)
    assert found is not None and found.name == "3.0.10"
    assert prepared.find("cifar10", tmp_path) is None


def test_what_is_missing_is_named(tmp_path, digits):
    with pytest.raises(MissingDataError, match="holds no mnist prepared"):
        prepared.open_pictures("mnist", tmp_path)
    where = prepare(tmp_path / "one", *digits, splits=("train",))
    with pytest.raises(MissingDataError, match=r"\['train'\], not test"):
        prepared.read("mnist", where)
    short = prepare(tmp_path / "short", *digits, written=5)
    with pytest.raises(ValueError, match="train is damaged or incomplete.* 7 records"):
        prepared.read("mnist", short)
    cut = prepare(tmp_path / "cut", *digits)
    file = next(cut.glob("*test*.array_record*"))
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(ValueError, match="test"):
        prepared.read("mnist", cut)


def colourful(count=10, sizes=((6, 9), (8, 8))):
    """Pictures in colour, of several sizes, and the class of each."""
    rng = np.random.default_rng(1)
    shapes = [sizes[i % len(sizes)] for i in range(count)]
    return (
        [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes],
        np.arange(count) % 4,
    )


def test_pictures_of_any_data_set(tmp_path):
    """Sizes and names of features are the data set's own; nothing takes TensorFlow."""
    pictures, labels = colourful()
    prepare(
        tmp_path / "flowers/big/1.0.0",
        *(pictures, labels),
        names=("photo", "kind"),
        more={"id": tfds.features.Scalar(np.int64)},
    )
    config = load_config("configs/cass.py:then=probe")
    config.data.update(name="tfds:flowers/big", root=str(tmp_path), image_size=8)
    for cache in ("memory", "none"):
        config.pipeline.cache = cache
        data = datasets.load(config, tmp_path)
        assert data.classes == 10 and set(data.splits) == {"train", "test"}
        split = data.splits["test"]
        np.testing.assert_array_equal(split.labels, labels)
        column = split.source["image"]
        assert isinstance(column, np.ndarray) == (cache == "memory")
        got = column[np.array([3, 0])]
        assert got.dtype == np.uint8 and got.shape == (2, 8, 8, 3)
        np.testing.assert_array_equal(got[0], pictures[3])
        resized = Image.fromarray(pictures[0]).resize((8, 8), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(got[1], np.asarray(resized))
    assert "tensorflow" not in sys.modules


def test_what_is_tested_on(tmp_path):
    """A labelled test split, else validation, else a fifth of train."""
    pictures, labels = colourful()

    def chosen(name, **options):
        where = prepare(tmp_path / name / "1.0.0", pictures, labels, **options)
        return prepared.train_and_test(prepared.open_pictures(name, where))

    parts = chosen("whole", splits=("train", "validation", "test"))
    assert parts["test"][0] == "test" and len(parts["train"][1]) == 10
    options = dict(splits=("train", "validation", "test"))
    parts = chosen("imagenet", labelled=("train", "validation"), **options)
    assert parts["test"][0] == "validation"
    parts = chosen("alone", splits=("train",))
    assert [parts[part][0] for part in parts] == ["train", "train"]
    train, test = (parts[part][1] for part in ("train", "test"))
    assert len(test) == 2 and sorted([*train, *test]) == list(range(10))
    with pytest.raises(ValueError, match="train has unknown labels"):
        chosen("unlabelled", labelled=("test",))
    with pytest.raises(MissingDataError, match=r"the splits \['test'\], not train"):
        chosen("untrained", splits=("test",))
    two = {"other": tfds.features.ClassLabel(num_classes=2)}
    with pytest.raises(ValueError, match=r"one feature of type ClassLabel .*'other'"):
        chosen("two", more=two)


def test_curricula_on_any_data_set(tmp_path, monkeypatch):
    """From TFDS's own folder; small networks take pictures of one size."""
    pictures, labels = colourful(40, sizes=((8, 8),))
    prepare(tmp_path / "one/1.0.0", pictures, labels)
    mixed = colourful(40)
    prepare(tmp_path / "many/1.0.0", *mixed)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    config = load_config("configs/curriculum.py")
    config.data.update(name="tfds:one", train=20, validation=10)
    data = labelled.load(config, range(2))
    assert len(data.classes) == 10 and data.images.shape == (80, 8, 8, 3)
    np.testing.assert_array_equal(data.images[data.test], pictures)
    np.testing.assert_array_equal(data.truth[data.test], labels)
    assert data.train.shape == (2, 20) and data.train.max() < 40
    config.data.name = "tfds:many"
    with pytest.raises(ValueError, match=r"pictures of 2 sizes.*\(6, 9, 3\)"):
        labelled.load(config, range(2))
    config.data.name = "tfds:none"
    with pytest.raises(MissingDataError, match="holds no none prepared by TFDS"):
        labelled.load(config, range(2))


def test_a_run_on_pictures_decoded_as_they_are_needed(tmp_path):
    pictures, labels = colourful(48)
    prepare(tmp_path / "data/tiny/1.0.0", pictures, labels % 2)
    config = shrunk(
        load_config("configs/cass.py:then=probe"),
        **{
            "data.name": "tfds:tiny",
            "data.root": str(tmp_path / "data"),
            "pipeline.cache": "none",
            "pretrain.steps": 2,
        },
    )
    results = train.run(config, tmp_path / "run")
    assert results["data"]["name"] == "tfds:tiny"
    assert results["data"]["sizes"] == {"train": 48, "test": 48}
    assert results["seeds"]["0"]["probe-pretrain"]
