import io
import json
import pickle
import struct
import sys
import tempfile
import zipfile
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save, save_file
from weights_support import GOLDEN

from memejax.weights import files, formats, hub, pickles


def rng():
    return np.random.default_rng(7)


def some():
    """Tensors of every dtype, some empty, odd lengths between."""
    random = rng()
    made = {
        "half": random.normal(size=(3,)).astype(np.float16),
        "bool": np.array([True, False, True]),
        "float": random.normal(size=(2, 3, 1)).astype(np.float32),
        "byte": np.arange(5, dtype=np.uint8),
        "double": random.normal(size=(2, 2)),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }
    for dtype in ("i1", "i2", "i4", "i8", "u2", "u4", "u8"):
        made[dtype] = np.array([[1, 2, 3]], dtype)
    return made


def shuffled(tensors):
    """A safetensors file whose tensors follow one another at odd places.

    Written by hand, as the library sorts by size to keep them aligned.
    """
    header, data = {}, b""
    for name, array in tensors.items():
        begin, data = len(data), data + array.tobytes()
        code = {"b": "BOOL", "f": "F", "i": "I", "u": "U"}[array.dtype.kind]
        if code != "BOOL":
            code += str(8 * array.itemsize)
        header[name] = {
            "dtype": code,
            "shape": list(array.shape),
            "data_offsets": [begin, len(data)],
        }
    return pack(header, data)


def pack(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin, end, dtype: object = "F32", shape=None):
    shape = [(end - begin) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def read_file(path):
    return files.read(files.Source((path,), None, path.parent))


def root(array):
    """The object whose memory an array looks at."""
    while isinstance(array.base, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return array


# Safetensors.


def test_safetensors_are_views_on_the_map(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(shuffled(some()))
    got = read_file(path)
    assert list(got) == list(some())
    for name, expected in some().items():
        assert got[name].dtype == expected.dtype
        assert type(got[name]) is np.ndarray
        assert not got[name].flags.writeable
        assert isinstance(root(got[name]), np.memmap)
        np.testing.assert_array_equal(got[name], expected)
    # The case that needs care is there: float32 at an odd address.
    assert not got["float"].flags.aligned
    np.testing.assert_array_equal(got["float"].sum(1), some()["float"].sum(1))


def test_bfloat16_is_the_upper_half_of_float32(tmp_path):
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x0001], "<u2")
    path = tmp_path / "model.safetensors"
    path.write_bytes(pack({"x": entry(0, 8, "BF16", [4])}, bits.tobytes()))
    got = read_file(path)["x"]
    assert got.dtype == ml_dtypes.bfloat16
    expected = (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(got.astype(np.float32), expected)
    assert expected[0] == 1 and expected[1] == -2


def test_what_the_library_writes_is_read(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(some(), path, metadata={"format": "pt"})
    got = read_file(path)
    assert set(got) == set(some())
    for name, expected in some().items():
        np.testing.assert_array_equal(got[name], expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"12345", "got 5 bytes"),
        (struct.pack("<Q", 1 << 60) + b"{}", "header of 1152921504606846976 bytes"),
        (pack(b" {}", b""), "starts with"),
        (pack(b'{"a": ', b""), "Expecting value"),
        (pack(b"{" * 100_000, b""), "not a valid safetensors"),
        (pack(b'{"\xff": 1}', b""), "utf-8"),
        (pack({"__metadata__": {"a": 1}}, b""), "__metadata__"),
        (pack({"a": [1]}, b""), "a is "),
        (pack({"a": {"dtype": "F32"}}, b""), "expected dtype, shape"),
        (pack({"a": entry(0, 4, "F8_E4M3")}, bytes(4)), "dtype 'F8_E4M3'"),
        (pack({"a": entry(0, 4, ["F32"])}, bytes(4)), "dtype"),
        (pack({"a": entry(0, 4, shape=[-1])}, bytes(4)), "shape"),
        (pack({"a": entry(0, 4, shape=[True])}, bytes(4)), "shape"),
        (pack({"a": entry(0, 4, shape=[1.0])}, bytes(4)), "shape"),
        (pack({"a": entry(0, 0, shape=[0, 10**40])}, b""), "shape"),
        (pack({"a": entry(0, 0, shape=[0] * 70)}, b""), "shape"),
        (pack({"a": entry(0, 4, shape=[2])}, bytes(4)), "expected the 8 bytes"),
        (pack({"a": entry(4, 0, shape=[1])}, bytes(4)), "expected the 4 bytes"),
        (
            pack({"a": {**entry(0, 4), "data_offsets": [0]}}, bytes(4)),
            "expected two counts",
        ),
        (pack({"a": entry(4, 8)}, bytes(8)), "a hole"),
        (pack({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)), "a hole"),
        (pack({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), "an overlap"),
        (pack({"a": entry(0, 4), "b": entry(0, 4)}, bytes(8)), "an overlap"),
        (pack({"a": entry(0, 8)}, bytes(5)), "truncated"),
        (pack({"a": entry(0, 8)}, bytes(9)), "too long"),
        (
            pack(b'{"a":%b,"a":%b}' % ((json.dumps(entry(0, 4)).encode(),) * 2), b""),
            "'a' twice",
        ),
    ],
)
def test_bad_safetensors_are_refused(tmp_path, content, message):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_file(path)
    assert "bad.safetensors" in str(caught.value)
    assert "download it again" in str(caught.value)


def test_a_truncated_file_tells_both_sizes(tmp_path):
    whole = save({"a": np.zeros(100, np.float32)})
    path = tmp_path / "bad.safetensors"
    path.write_bytes(whole[:-7])
    with pytest.raises(ValueError, match=f"{len(whole) - 7} bytes.*{len(whole)} bytes"):
        read_file(path)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_as_the_library_reads_it(data):
    content = bytearray(save({"ab": np.arange(3.0), "c": np.arange(4, dtype="i4")}))
    for _ in range(data.draw(st.integers(1, 2))):
        # Half of the damage to the length and the start of the header.
        most = data.draw(st.sampled_from([24, len(content) - 1]))
        content[data.draw(st.integers(0, most))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([0, 0, 0, 1, 9]))
    content = bytes(content[: len(content) - cut])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(content)
        try:
            got = formats.read_safetensors(path)
        except ValueError:
            return
        # Raises if only ours takes it.
        expected = load(content)
        assert set(got) == set(expected)
        for name in got:
            assert got[name].tobytes() == expected[name].tobytes()
            assert got[name].shape == expected[name].shape


# Other things under a weights file's name.


@pytest.mark.parametrize("suffix", files.READERS)
def test_what_is_no_weights_file_is_named(tmp_path, suffix):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9876\n"
    path = tmp_path / f"model{suffix}"
    for content, message in (
        (pointer, "Git LFS pointer.* of 9876 bytes.*git lfs pull"),
        (b"\n <!DOCTYPE html><html>no</html>", "web page"),
        (b"\xef\xbb\xbf<HTML>", "web page"),
        (b"", "is empty"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_file(path)
    with pytest.raises(ValueError, match="does not exist"):
        read_file(tmp_path / f"absent{suffix}")


# npz.


def test_npz(tmp_path):
    path = tmp_path / "vit.npz"
    kernel = rng().normal(size=(2, 3)).astype(np.float32)
    scale = np.array([1, -2], ml_dtypes.bfloat16)
    np.savez(path, **{"head/kernel": kernel, "scale": scale.view("V2")})
    got = read_file(path)
    assert list(got) == ["head/kernel", "scale"]
    assert got["scale"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(got["scale"].astype(np.float32), [1, -2])
    np.testing.assert_array_equal(got["head/kernel"], kernel)
    assert not any(array.flags.writeable for array in got.values())


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_bad_npz_are_refused(tmp_path):
    trace = tmp_path / "trace"
    path = tmp_path / "bad.npz"
    np.savez(path, good=np.zeros(2), bad=np.array([Evil(trace)], object))
    with pytest.raises(ValueError, match=r"bad\.npz has a pickle in bad"):
        read_file(path)
    path.write_bytes(pickle.dumps(Evil(trace)))
    with pytest.raises(ValueError, match=r"bad\.npz.*not \.npz"):
        read_file(path)
    assert not trace.exists()
    np.savez(path, a=np.arange(1000.0))
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="truncated"):
        read_file(path)
    path.write_bytes(whole[:4000] + b"x" + whole[4001:])
    with pytest.raises(ValueError, match="damaged at a .*CRC.*download it again"):
        read_file(path)
    np.savez(path, a=np.array("text"))
    with pytest.raises(ValueError, match=r"bad\.npz: .* a \(ndarray of <U4\)"):
        read_file(path)


# Pickles.


def zipped(pickled):
    """What torch saves since 1.6, around that pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


@pytest.fixture(params=["torch", "no torch"])
def torch_or_not(request, monkeypatch):
    if request.param == "torch":
        pytest.importorskip("torch")
    else:
        monkeypatch.setitem(sys.modules, "torch", None)
    return request.param == "torch"


@pytest.mark.parametrize("wrap", [bytes, zipped], ids=["bare", "zipped"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth"])
def test_a_pickle_is_never_run(tmp_path, torch_or_not, wrap, protocol, suffix):
    trace = tmp_path / "trace"
    content = pickle.dumps({"weight": Evil(trace)}, protocol=protocol)
    path = tmp_path / f"evil{suffix}"
    path.write_bytes(wrap(content))
    message = r"tries to run code \(\w*io.open\)"
    if protocol == 4 or (wrap is bytes and not torch_or_not):
        # torch's reader does not know this protocol at all; a bare one may begin with
        # what is no magic number.
        message = "tries to run code|not a torch checkpoint"
    with pytest.raises(ValueError, match=message) as caught:
        read_file(path)
    assert f"evil{suffix}" in str(caught.value)
    assert ".safetensors" in str(caught.value) or "download" in str(caught.value)
    assert "Warning" not in str(caught.value)
    assert not trace.exists()
    # The pickle does what it is feared for.
    pickle.loads(content)["weight"].close()
    assert trace.exists()


def test_stand_ins_run_nothing(tmp_path, read_saved):
    """The names that are let through lead to no code, whatever they are given."""
    torch = pytest.importorskip("torch")
    trace = tmp_path / "trace"
    path = tmp_path / "evil.pt"
    torch.save({"model": {"a": torch.ones(1)}, "args": Namespace(x=Evil(trace))}, path)
    with pytest.raises(ValueError, match="tries to run code"):
        read_saved(path)
    assert not trace.exists()


def test_an_old_torch_is_refused(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pt"
    torch.save({"a": torch.ones(1)}, path)
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu124")
    with pytest.raises(ValueError, match=r"torch 2\.5\.1.*2\.6"):
        read_file(path)


@pytest.fixture(params=["by torch", "without it"])
def read_saved(request, monkeypatch):
    """Read a file that torch wrote, with its reader or with ours."""

    def read(path):
        with monkeypatch.context() as context:
            if request.param == "without it":
                context.setitem(sys.modules, "torch", None)
            return read_file(path)

    return read


@pytest.mark.parametrize("form", ["zip", "sequence"])
def test_golden_pickles_without_torch(monkeypatch, form):
    """Both forms, with a view, a parameter and an object that becomes a placeholder."""
    monkeypatch.setitem(sys.modules, "torch", None)
    got = read_file(GOLDEN / f"torch_{form}.pth")
    np.testing.assert_array_equal(got["view"], np.arange(12.0).reshape(3, 4).T[1:])
    assert got["view"].dtype == np.float32 and not got["view"].flags.writeable
    np.testing.assert_array_equal(got["half"].astype(float), [1, -2])
    assert got["half"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(got["parameter"], np.ones(2))
    assert got["count"].dtype == np.int64 and got["count"] == 3
    assert got["none"].shape == (0, 5)


@pytest.mark.parametrize("form", ["zip", "sequence"])
@settings(deadline=None, derandomize=True, max_examples=150)
@given(data=st.data())
def test_damaged_pickles_without_torch(form, data):
    """Whatever a byte becomes: an error that names the file, or arrays."""
    whole = bytearray((GOLDEN / f"torch_{form}.pth").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(sys.modules, {"torch": None}),
    ):
        path = Path(folder) / "bad.pth"
        path.write_bytes(bytes(whole[:cut] if cut % 2 else whole))
        try:
            found = pickles.read(path)
        except ValueError as error:
            assert "bad.pth" in str(error)
        else:
            arrays = [v for v in found.values()] if isinstance(found, dict) else []
            assert all(np.asarray(v).nbytes < 10**6 for v in arrays)


@pytest.mark.parametrize("zipfile_format", [True, False], ids=["zip", "legacy"])
def test_pickles_of_tensors(tmp_path, read_saved, zipfile_format):
    torch = pytest.importorskip("torch")
    path = tmp_path / "pytorch_model.bin"
    bits = np.array([0x3F80, 0xC000], np.uint16).view(np.int16)
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    saved = {
        "float": base,
        "transposed": base.T[1:],
        "half": torch.tensor([0.5, 1.5], dtype=torch.float16),
        "bfloat16": torch.from_numpy(bits).view(torch.bfloat16),
        "count": torch.tensor(3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    torch.save(saved, path, _use_new_zipfile_serialization=zipfile_format)
    got = read_saved(path)
    expected = {
        "float": np.arange(12, dtype=np.float32).reshape(3, 4),
        "transposed": np.arange(12, dtype=np.float32).reshape(3, 4).T[1:],
        "half": np.array([0.5, 1.5], np.float16),
        "bfloat16": np.array([1, -2], ml_dtypes.bfloat16),
        "count": np.array(3, np.int64),
        "parameter": np.ones(2, np.float32),
    }
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        assert not got[name].flags.writeable
        np.testing.assert_array_equal(
            got[name].astype(np.float64), array.astype(np.float64)
        )


@pytest.mark.parametrize("zipfile_format", [True, False], ids=["zip", "legacy"])
def test_dinos_full_checkpoint(tmp_path, read_saved, zipfile_format):
    """With the arguments and numpy's numbers that its script keeps beside it."""
    torch = pytest.importorskip("torch")

    def network(value):
        return {
            "module.backbone.cls_token": torch.full((1, 1, 2), value),
            "module.backbone.norm.bias": torch.full((2,), value),
            "module.head.mlp.0.weight": torch.zeros(3, 2),
            "module.head.last_layer.weight_g": torch.zeros(3, 1),
        }

    path = tmp_path / "full.pth"
    torch.save(
        {
            "student": network(1.0),
            "teacher": network(2.0),
            "optimizer": {"param_groups": [{"lr": np.float64(0.1)}], "state": {}},
            "epoch": 300,
            "args": Namespace(arch="vit_small", lr=0.0005),
            "dino_loss": {"center": torch.zeros(1, 3)},
        },
        path,
        _use_new_zipfile_serialization=zipfile_format,
    )
    got = read_saved(path)
    assert list(got) == ["cls_token", "norm.bias"]
    np.testing.assert_array_equal(got["norm.bias"], [2, 2])


def test_bad_pickles_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "bad.pth"
    torch.save({"a": torch.arange(1000.0)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    with pytest.raises(ValueError, match=rf"{len(whole) - 200} bytes.*download it"):
        read_file(path)
    path.write_bytes(rng().bytes(300))
    with pytest.raises(ValueError, match="not a torch checkpoint"):
        read_file(path)
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match=r"tries to run code \(torch\.nn.*Linear\)"):
        read_file(path)
    torch.save([torch.ones(1)], path)
    with pytest.raises(ValueError, match="holds a list, expected tensors by name"):
        read_file(path)
    torch.save({"a": torch.ones(1), "epoch": 3}, path)
    with pytest.raises(ValueError, match=r"bad\.pth.*epoch \(int\)"):
        read_file(path)
    torch.save({"a": torch.eye(2).to_sparse()}, path)
    with pytest.raises(ValueError, match=r"a \(Tensor of torch\.float32\)"):
        read_file(path)
    endless: dict = {"a": torch.ones(1)}
    endless["model"] = endless
    torch.save(endless, path)
    with pytest.raises(ValueError, match=r"model \(dict\)"):
        read_file(path)


def test_nothing_takes_any_argument():
    stand_in = pickles.Placeholder(1, 2, 3)
    stand_in.__setstate__({"lr": 1})
    assert vars(stand_in) == {}


# Unwrapping.


def array(value):
    return np.full(2, value, np.float32)


@pytest.mark.parametrize(
    ("wrapped", "names"),
    [
        ({"a": 1, "b.c": 2}, {"a": 1, "b.c": 2}),
        ({"state_dict": {"a": 1}, "epoch": None}, {"a": 1}),
        ({"model": {"a": 1}, "optimizer": {"state": None}}, {"a": 1}),
        ({"model": {"state_dict": {"module.a": 1}}}, {"a": 1}),
        ({"student": {"a": 1}, "teacher": {"a": 2}}, {"a": 2}),
        ({"student": {"module.a": 1}, "epoch": None}, {"a": 1}),
        ({"module.a": 1, "module.b": 2}, {"a": 1, "b": 2}),
        ({"module.a": 1, "b": 2}, {"module.a": 1, "b": 2}),
        ({"backbone.a": 1, "head.mlp.0.weight": 2}, {"a": 1}),
        ({"module.backbone.a": 1, "module.head.last_layer.x": 2}, {"a": 1}),
        # A detector's, and a classifier's of another library.
        ({"backbone.a": 1, "rpn.b": 2}, {"backbone.a": 1, "rpn.b": 2}),
        (
            {"backbone.a": 1, "head.weight": 2},
            {"backbone.a": 1, "head.weight": 2},
        ),
        ({"a": 1, "head.mlp.fc1": 2}, {"a": 1, "head.mlp.fc1": 2}),
        ({"head.mlp.fc1": 2}, {"head.mlp.fc1": 2}),
        ({"model": 1, "teacher": 2}, {"model": 1, "teacher": 2}),
    ],
)
def test_unwrap(wrapped, names):
    def fill(tree):
        return {
            k: fill(v) if isinstance(v, dict) else array(v) if v else "text"
            for k, v in tree.items()
        }

    got = files.unwrap(fill(wrapped))
    assert {name: int(value[0]) for name, value in got.items()} == names
    assert list(got) == list(names)
    # What is unwrapped stays as it is, and nothing is copied.
    again = files.unwrap(got)
    assert list(again) == list(names)
    assert all(again[name] is got[name] for name in got)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "no tensors"),
        ({"model": {}}, "no tensors"),
        ({"a": array(1), "epoch": 3}, r"epoch \(int\)"),
        ({"a": array(1), 3: array(1)}, r"3 \(ndarray"),
        ({"weights": {"a": array(1)}}, r"weights \(dict\)"),
        ({"a": np.array(["x"])}, r"a \(ndarray of <U1\)"),
        ({"a": np.array([1j])}, "complex"),
        ({str(i): None for i in range(25)}, "and 5 more"),
    ],
)
def test_unwrap_refuses(tensors, message):
    with pytest.raises(ValueError, match=message):
        files.unwrap(tensors)


# Values.


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.sampled_from([np.float16, np.float32, np.float64, ml_dtypes.bfloat16]),
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.integers(0, 99),
)
def test_check_finite_finds_one_bad_value(dtype, bad, place):
    good = rng().normal(size=100).astype(dtype)
    worse = good.copy()
    worse[place] = bad
    counts = np.array([np.iinfo(np.int64).max])
    empty = np.zeros((0, 2), dtype)
    files.check_finite({"good": good, "counts": counts, "empty": empty})
    with pytest.raises(ValueError, match="2 of 3 tensors.*: bad, worse$"):
        files.check_finite({"bad": worse.reshape(4, 25).T, "g": good, "worse": worse})


def test_check_finite_of_a_map(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = some() | {"last": np.array([0, np.nan], np.float32)}
    path.write_bytes(shuffled(tensors))
    with pytest.raises(ValueError, match="1 of 15 tensors.*: last$"):
        files.check_finite(read_file(path))


# Finding.


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"{}")


ALL = ("model.safetensors", "pytorch_model.bin", "other.pth", "vit.npz", "x.txt")


@pytest.mark.parametrize("first", range(4))
def test_find_in_a_folder(tmp_path, first):
    put(tmp_path, *ALL[first:])
    found = files.find(tmp_path)
    assert found == files.Source((tmp_path / ALL[first],), None, tmp_path)
    put(tmp_path, "config.json")
    assert files.find(str(tmp_path)).config == tmp_path / "config.json"


def test_find_a_file(tmp_path, monkeypatch):
    put(tmp_path / "owner", "a.pth", "b.pth", "config.json", "tf_model.h5")
    monkeypatch.chdir(tmp_path)
    folder = Path("owner")
    expected = files.Source((folder / "b.pth",), folder / "config.json", folder)
    assert files.find("owner/b.pth") == expected
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.find("~/owner/a.pth").weights == (tmp_path / "owner/a.pth",)
    with pytest.raises(ValueError, match=r"several weights, a\.pth, b\.pth"):
        files.find("owner")
    with pytest.raises(ValueError, match=r"tf_model\.h5, expected one that ends in"):
        files.find("owner/tf_model.h5")


def test_find_tells_what_is_there(tmp_path):
    with pytest.raises(ValueError, match="holds nothing: expected model.safe"):
        files.find(tmp_path)
    put(tmp_path, *(f"{i:02}.txt" for i in range(25)))
    with pytest.raises(ValueError, match=r"holds 00\.txt, .*, 19\.txt and 5 more"):
        files.find(tmp_path)
    for name in ("./absent", "/absent/x", "a/b/c", "absent.npz", "owner/absent.bin"):
        with pytest.raises(ValueError, match="no such folder or file"):
            files.find(name)
    with pytest.raises(ValueError, match="empty name"):
        files.find("")


@pytest.mark.parametrize("stem", ["model.safetensors", "pytorch_model.bin"])
def test_shards(tmp_path, stem):
    index = tmp_path / f"{stem}.index.json"
    suffix = Path(stem).suffix
    names = [f"part-{i}{suffix}" for i in (1, 2)]

    def write(weight_map):
        index.write_text(json.dumps({"weight_map": weight_map}))

    write({"a": names[1], "b": names[0], "c": names[1]})
    put(tmp_path, names[0])
    with pytest.raises(ValueError, match=rf"1 are missing: part-2\{suffix};"):
        files.find(tmp_path)
    put(tmp_path, names[1])
    assert files.find(tmp_path).weights == tuple(tmp_path / name for name in names)
    for bad in ({"a": "../secret"}, {"a": "/etc/passwd"}, {"a": 3}, {}, [1]):
        write(bad)
        with pytest.raises(ValueError, match="not an index of shards"):
            files.find(tmp_path)
    index.write_text("{")
    with pytest.raises(ValueError, match="not an index of shards"):
        files.find(tmp_path)


def test_shards_are_one_checkpoint(tmp_path):
    paths = (tmp_path / "1.safetensors", tmp_path / "2.safetensors")
    save_file({"a": array(1)}, paths[0])
    save_file({"b": array(2)}, paths[1])
    got = files.read(files.Source(paths, None, tmp_path))
    np.testing.assert_array_equal(got["a"] + got["b"], [3, 3])
    save_file({"a": array(2)}, paths[1])
    with pytest.raises(ValueError, match=r"2\.safetensors has .* another .*: a$"):
        files.read(files.Source(paths, None, tmp_path))


# The hub.


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def cached(cache, name, revision, *names):
    """A snapshot in the cache, as a download leaves it."""
    folder = cache / f"models--{name.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    put(folder / "refs")
    (folder / "refs" / revision).write_text(commit)
    put(folder / "snapshots" / commit, *names)
    return folder / "snapshots" / commit


@pytest.mark.parametrize("name", ["gpt2", "owner/model"])
@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("revision", ["main", "v1.0"])
def test_find_in_the_cache(cache, name, weights, revision):
    folder = cached(cache, name, revision, weights, "config.json")
    text = name if revision == "main" else f"{name}@{revision}"
    found = files.find(text)
    assert found == files.Source((folder / weights,), folder / "config.json", folder)


def test_find_offline_says_what_to_do(cache):
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set") as caught:
        files.find("owner/model@v2")
    message = str(caught.value)
    assert str(cache) in message
    assert "`hf download owner/model --revision v2 --local-dir FOLDER`" in message
    assert "folder or file 'owner/model@v2'" in message
    folder = cached(cache, "owner/model", "main", "tf_model.h5")
    with pytest.raises(ValueError, match=rf"no weights in {folder}, .*tf_model\.h5"):
        files.find("owner/model")
    with pytest.raises(ValueError, match="expected a name such as owner/name"):
        files.find("a b")


def test_only_what_is_needed_is_downloaded(tmp_path, monkeypatch):
    """Against a stand-in for the network that filters as the hub's client does."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    repository = [
        "README.md",
        "config.json",
        "model.safetensors",
        "onnx/model.safetensors",
        "pytorch_model.bin",
        "tf_model.h5",
        "tokenizer.json",
        "training_args.bin",
        "vocab.txt",
    ]
    calls = []

    def snapshot_download(name, *, revision, allow_patterns, ignore_patterns):
        calls.append((name, revision))
        folder = tmp_path / "commit"
        put(folder)
        put(
            folder,
            *filter_repo_objects(
                repository,
                allow_patterns=allow_patterns,
                ignore_patterns=ignore_patterns,
            ),
        )
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    folder = hub.download("owner/model", revision="v1")
    small = {"config.json", "tokenizer.json", "vocab.txt"}
    assert {p.name for p in folder.iterdir()} == small | {"model.safetensors"}
    assert calls == [("owner/model", "v1")]
    (folder / "model.safetensors").unlink()
    repository.remove("model.safetensors")
    folder = hub.download("owner/model")
    assert {p.name for p in folder.iterdir()} == small | {"pytorch_model.bin"}
    # The same snapshot, even if the branch moved in between.
    assert calls[1:] == [("owner/model", None), ("owner/model", "commit")]


def test_errors_of_the_hub_are_one(monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants, errors

    # The class of responses changes with the client's HTTP library.
    response: Any = SimpleNamespace(headers={}, request=None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for error, message in (
        (errors.GatedRepoError("a", response=response), "accept its owner"),
        (errors.RepositoryNotFoundError("a", response=response), "no such repository"),
        (errors.RevisionNotFoundError("a", response=response), "no such revision"),
        (
            errors.LocalEntryNotFoundError("a"),
            r"cannot be reached \(Local\w*: a\), and",
        ),
        (OSError("disk full\nmore"), r"download failed \(OSError: disk full\)"),
    ):

        def fail(*args, error=error, **kwargs):
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        with pytest.raises(ValueError, match=message) as caught:
            hub.download("owner/model")
        assert "`hf download owner/model --local-dir FOLDER`" in str(caught.value)
