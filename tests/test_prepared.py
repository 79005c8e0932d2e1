"""Data that TFDS prepared: true files of its format, made without TensorFlow."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image

from memejax.data import prepared
from memejax.data.hateful_memes import MissingDataError


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(stream, "PNG")
    return stream.getvalue()


def prepare(folder, images, labels, *, splits=("train", "test"), written=None):
    """Writes what TFDS writes: records, features.json, dataset_info.json."""
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=images.shape[1:]),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
    )
    folder.mkdir(parents=True)
    infos = []
    for split in splits:
        name = tfds.core.ShardedFileTemplate(
            dataset_name="mnist",
            data_dir=folder,
            split=split,
            filetype_suffix="array_record",
        )
        path = name.sharded_filepath(shard_index=0, num_shards=1)
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for image, label in list(zip(images, labels, strict=True))[:written]:
            record = {"image": png(image), "label": int(label)}
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
        prepared.prepared("mnist", tmp_path)
    where = prepare(tmp_path / "one", *digits, splits=("train",))
    with pytest.raises(MissingDataError, match=r"\['train'\], not test"):
        prepared.prepared("mnist", where)
    short = prepare(tmp_path / "short", *digits, written=5)
    with pytest.raises(ValueError, match="train is damaged or incomplete.* 7 records"):
        prepared.prepared("mnist", short)
    cut = prepare(tmp_path / "cut", *digits)
    file = next(cut.glob("*test*.array_record*"))
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(ValueError, match="test"):
        prepared.prepared("mnist", cut)
