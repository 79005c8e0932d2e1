import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from memejax.data import images, pipeline, plans


@pytest.fixture
def files(tmp_path):
    """Six one-coloured pictures: picture i has the red value 40 i."""
    paths = []
    for i in range(6):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (9 + i, 7), (40 * i, 0, 200)).save(path)
        paths.append(str(path))
    return paths


def columns(files, tmp_path, cache):
    return pipeline.image_columns(
        files,
        size=8,
        resize="square",
        max_pixels=10_000,
        cache=cache,
        folder=tmp_path / "cache",
        threads=2,
    )


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_a_stream_follows_its_plan(files, tmp_path, cache):
    source = columns(files, tmp_path, cache) | {"label": np.arange(6, dtype=np.int32)}
    plan = plans.shuffled(6, batch=4, steps=5, seed=0)
    batches = list(pipeline.stream(source, plan))
    assert len(batches) == 5
    for step, batch in enumerate(batches):
        assert batch["image"].shape == (4, 8, 8, 3)
        assert batch["image"].dtype == np.uint8
        np.testing.assert_array_equal(batch["index"], plan.index[step])
        np.testing.assert_array_equal(batch["label"], plan.index[step])
        np.testing.assert_array_equal(batch["image"][:, 3, 3, 0], 40 * plan.index[step])


@pytest.mark.parametrize("start", [0, 2, 5])
def test_a_stream_starts_anywhere(files, tmp_path, start):
    source = {"label": np.arange(6, dtype=np.int32)}
    plan = plans.shuffled(6, batch=4, steps=5, seed=0)
    labels = [b["label"] for b in pipeline.stream(source, plan, start=start)]
    np.testing.assert_array_equal(
        np.reshape(labels, (-1, 4)), plan.index[start:].reshape(-1, 4)
    )


@pytest.mark.filterwarnings(
    # grain 0.2.18: shared memory of the workers is reported at their end.
    "ignore:resource_tracker"
)
def test_worker_processes_give_the_same_stream(files, tmp_path):
    source = columns(files, tmp_path, "none")
    plan = plans.shuffled(6, batch=2, steps=7, seed=1)
    here = list(pipeline.stream(source, plan, start=2))
    there = list(pipeline.stream(source, plan, start=2, workers=2))
    assert len(there) == 5
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["index"], b["index"])


def test_loading_a_batch_starts_no_backend():
    """Worker processes unpickle `LoadBatch`: that must not touch a device."""
    program = """
import pickle, sys
import numpy as np
from memejax.data import pipeline, plans, hateful_memes, text, images, synthetic_memes
load = pipeline.LoadBatch({"label": np.arange(3)}, plans.sequential(3, batch=2))
assert list(pickle.loads(pickle.dumps(load))(1)["label"]) == [2, 2]
# grain imports jax; no module of ours does, and nobody may start a backend.
from jax._src import xla_bridge
assert not xla_bridge._backends, xla_bridge._backends
ours = [m for m in sys.modules if m.startswith("memejax.")]
base = (
    "memejax.data",
    "memejax.errors",
    "memejax.strict_json",
    "memejax.atomic",
    "memejax.lazy",
)
assert all(m.startswith(base) for m in ours), ours
print("clean")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "clean", done.stderr


def test_a_file_used_twice_is_decoded_once(files, tmp_path):
    source = columns([files[2], files[1], files[2]], tmp_path, "memory")
    image = source["image"]
    assert len(image) == 3 and len(image.values) == 2
    np.testing.assert_array_equal(image[np.array([0, 1, 2])][:, 0, 0, 0], [80, 40, 80])


def test_a_disk_cache_is_found_again_and_follows_its_files(files, tmp_path):
    first = columns(files, tmp_path, "disk")
    kept = sorted((tmp_path / "cache").iterdir())
    assert len(kept) == 1 and isinstance(first["image"].values, np.memmap)
    before = kept[0].stat().st_mtime_ns
    columns(files, tmp_path, "disk")
    assert kept[0].stat().st_mtime_ns == before
    Image.new("RGB", (5, 5), (7, 7, 7)).save(files[0])
    changed = columns(files, tmp_path, "disk")
    assert changed["image"][np.array([0])][0, 0, 0, 0] == 7
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_broken_picture_stops_the_caching(files, tmp_path):
    with open(files[3], "wb") as file:
        file.write(b"no picture")
    with pytest.raises(images.ImageError, match=r"3\.png"):
        columns(files, tmp_path, "memory")


def test_unknown_cache_start_and_short_column(files, tmp_path):
    with pytest.raises(ValueError, match="cache 'ram', expected one of memory, disk"):
        columns(files, tmp_path, "ram")
    plan = plans.sequential(6, batch=2)
    with pytest.raises(ValueError, match="stop <= 3, got 4"):
        pipeline.stream({"label": np.arange(6)}, plan, start=4)
    with pytest.raises(ValueError, match="6 examples, got columns of .*'label': 5"):
        pipeline.stream({"label": np.arange(5)}, plan)
