"""MNIST's and CIFAR-10's files, written here byte by byte."""

import gzip
import pickle
import struct

import numpy as np
import pytest

from memejax.data import arrays
from memejax.data.hateful_memes import MissingDataError

# Of the format's table: code, how struct packs one number, what comes out.
IDX = [
    (0x08, ">B", np.uint8, [0, 7, 255]),
    (0x09, ">b", np.int8, [-128, 0, 127]),
    (0x0B, ">h", np.int16, [-2, 258, 32767]),
    (0x0C, ">i", np.int32, [-3, 65536, 2**31 - 1]),
    (0x0D, ">f", np.float32, [-0.5, 0.0, 1.25]),
    (0x0E, ">d", np.float64, [-0.1, 0.0, 1e300]),
]


def idx(code, shape, body):
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape) + body


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("code", "form", "dtype", "numbers"), IDX)
def test_idx_of_every_type(tmp_path, code, form, dtype, numbers, zipped):
    body = b"".join(struct.pack(form, number) for number in numbers)
    content = idx(code, [3], body)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)
    read = arrays.read_idx(path)
    assert read.dtype == dtype and read.dtype.isnative
    np.testing.assert_array_equal(read, np.array(numbers, dtype))


def test_idx_axes(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(idx(8, [2, 2, 3], bytes(range(12))))
    expected = [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
    assert arrays.read_idx(path).tolist() == expected
    path.write_bytes(idx(8, [0, 28, 28], b""))
    assert arrays.read_idx(path).shape == (0, 28, 28)
    path.write_bytes(idx(12, [], b"\0\0\1\0"))
    assert arrays.read_idx(path) == 256


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an idx file: got nothing"),
        (b"PK\3\4 and so on", "not an idx file: got 50 4b 03 04"),
        (idx(0x0A, [1], b"\0"), "not an idx file: got 00 00 0a 01"),
        (idx(8, [2, 3], b"")[:9], "truncated: 9 bytes, but the lengths of 2 axes"),
        (idx(8, [2, 3], b"12345"), r"truncated: 17 bytes, expected 18 for uint8 \[2, "),
        (idx(8, [2, 3], b"1234567"), "too long: 19 bytes, expected 18"),
        # A product that does not fit in 64 bits.
        (idx(8, [2**31] * 3, b"1"), "truncated: 17 bytes"),
        (gzip.compress(idx(8, [3], b"123"), mtime=0)[:-9], "damaged gzip"),
        (
            gzip.compress(idx(8, [3], b"123"), mtime=0)[:12] + b"????????",
            "damaged gzip",
        ),
    ],
)
def test_idx_errors_name_the_file(tmp_path, content, message):
    path = tmp_path / "some-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        arrays.read_idx(path)
    assert str(path) in str(caught.value)


# --- MNIST

DIGITS = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
CLASSES = [3, 0, 9, 1, 3]


def write_mnist(folder, *, change=lambda name: name, **contents):
    folder.mkdir(exist_ok=True)
    files = {
        "train-images-idx3-ubyte": idx(8, [3, 28, 28], DIGITS[:3].tobytes()),
        "train-labels-idx1-ubyte": idx(8, [3], bytes(CLASSES[:3])),
        "t10k-images-idx3-ubyte": idx(8, [2, 28, 28], DIGITS[3:].tobytes()),
        "t10k-labels-idx1-ubyte": idx(8, [2], bytes(CLASSES[3:])),
    }
    for name, content in files.items():
        content = contents.get(name.split("-idx")[0].replace("-", "_"), content)
        named = change(name)
        packed = gzip.compress(content, mtime=0) if named.endswith(".gz") else content
        (folder / named).write_bytes(packed)


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name,
        lambda name: f"{name}.gz",
        lambda name: name.replace("-idx", ".idx"),
        lambda name: name.replace("-idx", ".idx") + ".gz",
    ],
)
def test_mnist(tmp_path, change):
    write_mnist(tmp_path, change=change)
    read = arrays.mnist(tmp_path)
    assert list(read) == ["train", "test"]
    np.testing.assert_array_equal(read["train"].images, DIGITS[:3, :, :, None])
    np.testing.assert_array_equal(read["test"].images, DIGITS[3:, :, :, None])
    assert read["train"].labels.tolist() == [3, 0, 9]
    assert read["test"].labels.tolist() == [1, 3]
    assert read["test"].labels.dtype == np.int32 and len(read["test"]) == 2


def test_mnist_says_what_it_looked_for(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(MissingDataError) as caught:
        arrays.mnist(tmp_path)
    for part in ("t10k-labels-idx1-ubyte,", "t10k-labels.idx1-ubyte.gz", str(tmp_path)):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"t10k_labels": idx(8, [3], b"\1\2\3")}, r"t10k-labels.*\[3\].*\[2\]"),
        ({"t10k_labels": idx(8, [2], b"\1\x0a")}, "t10k-labels.* 1 to 10, expected"),
        ({"t10k_labels": idx(9, [2], b"\1\xff")}, "t10k-labels.* -1 to 1, expected"),
        ({"t10k_labels": idx(13, [2], bytes(8))}, "t10k-labels.*float32"),
        ({"train_images": idx(8, [3, 2, 2], bytes(12))}, r"train-images.*\[3, 2, 2\]"),
        ({"train_images": idx(8, [0, 28, 28], b"")}, r"train-images.*\[0, 28, 28\]"),
        ({"train_images": idx(9, [3, 28, 28], bytes(2352))}, "train-images.*int8"),
    ],
)
def test_mnist_is_checked(tmp_path, contents, message):
    write_mnist(tmp_path, **contents)
    with pytest.raises(ValueError, match=message):
        arrays.mnist(tmp_path)


# --- CIFAR-10

BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def colours(batch):
    """Two pictures of a batch as [2, 32, 32, 3], and their labels."""
    rng = np.random.default_rng(batch)
    return rng.integers(0, 256, (2, 32, 32, 3), np.uint8), [batch, 9 - batch]


def planes(image):
    """A picture as CIFAR-10 has it: all reds row by row, all greens, all blues."""
    return b"".join(image[:, :, channel].tobytes() for channel in range(3))


def binary(batch):
    images, labels = colours(batch)
    return b"".join(
        bytes([label]) + planes(image)
        for image, label in zip(images, labels, strict=True)
    )


def python_2(batch, *, labels=None, ask=b"cnumpy.core.multiarray\n_reconstruct\n"):
    """The pickle that Python 2 wrote, opcode by opcode."""
    images, known = colours(batch)
    labels = known if labels is None else labels
    data = b"".join(planes(image) for image in images)
    return b"".join(
        [
            b"\x80\x02}(U\x04data",
            ask,
            b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R",
            b"(K\x01K\x02M\x00\x0c\x86",
            b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R",
            b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89T" + struct.pack("<I", len(data)) + data + b"tb",
            b"U\x06labels](" + b"".join(b"K" + bytes([x]) for x in labels) + b"e",
            b"U\x0bbatch_labelU\x04testu.",
        ]
    )


def python_3(batch):
    images, labels = colours(batch)
    data = np.stack([np.frombuffer(planes(image), np.uint8) for image in images])
    return pickle.dumps({"data": data, "labels": labels}, protocol=4)


WRITERS = {".bin": binary, "2": python_2, "3": python_3}


def write_cifar(folder, kind):
    folder.mkdir(exist_ok=True, parents=True)
    for i, name in enumerate(BATCHES):
        suffix = kind if kind == ".bin" else ""
        (folder / f"{name}{suffix}").write_bytes(WRITERS[kind](i))


def check_cifar(read):
    train, test = read["train"], read["test"]
    images = np.concatenate([colours(i)[0] for i in range(6)])
    np.testing.assert_array_equal(train.images, images[:10])
    np.testing.assert_array_equal(test.images, images[10:])
    assert train.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert test.labels.tolist() == [5, 4] and test.labels.dtype == np.int32
    assert train.images.flags.c_contiguous


@pytest.mark.parametrize("below", [".", "cifar-10-batches-bin", "cifar-10-batches-py"])
@pytest.mark.parametrize("kind", WRITERS)
def test_cifar10(tmp_path, kind, below):
    write_cifar(tmp_path / below, kind)
    check_cifar(arrays.cifar10(tmp_path))


def test_no_pickle_is_opened_where_there_are_binary_batches(tmp_path):
    write_cifar(tmp_path / "cifar-10-batches-bin", ".bin")
    for name in BATCHES:
        (tmp_path / name).write_bytes(b"not opened")
    check_cifar(arrays.cifar10(tmp_path))


def test_cifar10_says_what_it_looked_for(tmp_path):
    with pytest.raises(MissingDataError, match="data_batch_1.bin to"):
        arrays.cifar10(tmp_path)
    write_cifar(tmp_path, ".bin")
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(MissingDataError, match="data_batch_4.bin$"):
        arrays.cifar10(tmp_path)


class Harmful:
    def __reduce__(self):
        return (print, ("harm",))


PICTURE = np.zeros((1, 3072), np.uint8)
REFUSED = {
    "os.system": python_2(5, ask=b"cos\nsystem\n"),
    "builtins.print": pickle.dumps({"data": Harmful(), "labels": [1]}),
    "numpy.core.multiarray.scalar": python_2(
        5, ask=b"cnumpy.core.multiarray\nscalar\n"
    ),
    "uint8": pickle.dumps({"data": np.array([{}], object), "labels": [1]}, protocol=4),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_pickle_gets_nothing_but_arrays(tmp_path, capsys, what):
    write_cifar(tmp_path, "2")
    (tmp_path / "test_batch").write_bytes(REFUSED[what])
    with pytest.raises(ValueError, match=what) as caught:
        arrays.cifar10(tmp_path)
    assert "test_batch" in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        (".bin", b"", "0 bytes, expected a positive multiple of 3073"),
        (".bin", binary(5)[:-1], "6145 bytes"),
        (".bin", b"\x0a" + binary(5)[1:], "labels from 4 to 10, expected 0 to 9"),
        ("2", b"", "not a CIFAR-10 batch: EOFError"),
        ("2", python_2(5)[:3000], "not a CIFAR-10 batch: UnpicklingError"),
        ("2", b"nonsense", "not a CIFAR-10 batch"),
        ("2", python_2(5, labels=[1]), r"\[1\], expected integers \[2\]"),
        ("2", python_2(5, labels=[1, 10]), "labels from 1 to 10"),
        ("2", pickle.dumps([1]), r"got one of \[\]"),
        ("2", pickle.dumps({b"data": 1, b"fine_labels": [1]}), "b'fine_labels'"),
        ("2", pickle.dumps({"data": np.ones((1, 3072)), "labels": [1]}, 4), "uint8"),
        ("2", pickle.dumps({"data": PICTURE.T, "labels": [1]}, 4), "uint8"),
        ("2", pickle.dumps({"data": PICTURE, "labels": ["1"]}, 4), "list of n int"),
        ("2", pickle.dumps({"data": PICTURE[:0], "labels": []}, 4), "uint8"),
        # The array says [3, 3072] of two pictures' pixels.
        ("2", python_2(5).replace(b"K\x02M", b"K\x03M"), "uint8"),
    ],
)
def test_cifar10_is_checked(tmp_path, kind, content, message):
    write_cifar(tmp_path, kind)
    path = tmp_path / ("test_batch.bin" if kind == ".bin" else "test_batch")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        arrays.cifar10(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4)), np.zeros(2, np.int32), "float64"),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int32), r"uint8 \[2, 4, 4\]"),
        (np.zeros((2, 4, 4, 2), np.uint8), np.zeros(2, np.int32), "1 or 3"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.zeros(3, np.int32), r"int32 \[2\], got"),
        (np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int64), "int64"),
    ],
)
def test_labelled_pictures_are_what_they_say(images, labels, message):
    with pytest.raises(ValueError, match=message):
        arrays.Labelled(images, labels)
