"""Beside the models of transformers: outputs and gradients, and what is saved."""

import runpy
import warnings
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    # transformers and torch warn of what they themselves import.
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")
    MAKE = runpy.run_path(
        str(Path(__file__).parents[1] / "golden" / "make_encoders.py")
    )

from weights_support import assert_trees_equal, case  # noqa: E402

from memejax.models.distilbert import DistilBert  # noqa: E402
from memejax.models.resnet import ResNet  # noqa: E402
from memejax.models.vit import ViT  # noqa: E402
from memejax.weights import checkpoint  # noqa: E402
from memejax.weights.configs import Architecture  # noqa: E402
from memejax.weights.convert import to_variables  # noqa: E402
from memejax.weights.preprocessing import Preprocessing  # noqa: E402

RNG = np.random.default_rng(11)
IMAGES = RNG.normal(size=(3, 29, 26, 3)).astype(np.float32)
PICTURES = RNG.normal(size=(2, 16, 28, 3)).astype(np.float32)
IDS = RNG.integers(1, 50, size=(3, 10))
MASK = (np.arange(10) < np.array([[10], [6], [1]])).astype(int)

CLASSES = dict(
    resnet="ResNetModel",
    vit="ViTModel",
    distilbert="DistilBertModel",
    bert="BertModel",
)
NAMES = tuple(CLASSES)


def state_dict(model):
    return {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}


def converted(tensors, name, sizes):
    return to_variables(tensors, form=f"huggingface {name}", sizes=sizes)[0]


def gradients(model):
    """Gradients under the names of the state dict, zero where there is none."""
    return {
        name: np.zeros(tuple(p.shape), np.float32) if p.grad is None else p.grad.numpy()
        for name, p in model.named_parameters()
    }


def assert_close(got, expected):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def assert_gradients_close(got, expected, *, tolerance=4e-5):
    """Every leaf within 4e-5 of the largest entry of it, or of all / 1000.

    Twice the tolerance of outputs: a gradient sums over positions what an output has
    once. Some leaves (the bias of keys) have gradient zero in exact arithmetic, hence
    the floor.
    """
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    for one, two in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        scale = max(np.abs(two).max(), largest / 1000)
        assert np.abs(np.asarray(one) - two).max() <= tolerance * scale


def value_and_grad(apply, params):
    """Outputs, and gradients of the sum of their sines."""

    def loss(params):
        out, updates = apply(params)
        return jnp.sum(jnp.sin(out)), (out, updates)

    return jax.jit(jax.grad(loss, has_aux=True))(params)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_resnet(bottleneck, train):
    theirs, sizes = MAKE["resnet_model"](bottleneck=bottleneck)
    variables = converted(state_dict(theirs), "resnet", sizes)
    model = ResNet(**sizes)

    def apply(params):
        return model.apply(
            {**variables, "params": params},
            IMAGES,
            train=train,
            mutable=["batch_stats"],
        )

    grads, (out, updates) = value_and_grad(apply, variables["params"])
    theirs.train(train)
    expected = theirs(MAKE["channels_first"](IMAGES)).pooler_output[:, :, 0, 0]
    torch.sin(expected).sum().backward()
    assert_close(out, expected.detach())

    after = converted(state_dict(theirs), "resnet", sizes)
    for one, two in zip(
        *map(jax.tree.leaves, (updates["batch_stats"], after["batch_stats"])),
        strict=True,
    ):
        assert_close(one, two)
    tensors = state_dict(theirs) | gradients(theirs)
    expected = converted(tensors, "resnet", sizes)["params"]
    # Through the statistics of a batch of three, the reference in float32 is itself
    # up to 8e-5 from the reference in float64, over four draws of the images.
    tolerance = 1e-4 if train else 4e-5
    assert_gradients_close(grads, expected, tolerance=tolerance)


def test_vit_at_another_size():
    theirs, sizes = MAKE["vit_model"]()
    params = converted(state_dict(theirs), "vit", sizes)["params"]
    tokens = partial(ViT(**sizes).apply, train=False, mutable=[], method="tokens")
    grads, (out, _) = value_and_grad(lambda p: tokens({"params": p}, PICTURES), params)

    expected = theirs(
        MAKE["channels_first"](PICTURES), interpolate_pos_encoding=True
    ).last_hidden_state
    torch.sin(expected).sum().backward()
    assert_close(out, expected.detach())
    expected = converted(gradients(theirs), "vit", sizes)["params"]
    assert_gradients_close(grads, expected)


@pytest.mark.parametrize("name", ["distilbert", "bert"])
def test_text(name):
    theirs, sizes = MAKE[f"{name}_model"]()
    params = converted(state_dict(theirs), name, sizes)["params"]
    apply = partial(DistilBert(**sizes).apply, train=False, mutable=[])
    grads, (out, _) = value_and_grad(lambda p: apply({"params": p}, IDS, MASK), params)

    expected = theirs(
        input_ids=torch.from_numpy(IDS), attention_mask=torch.from_numpy(MASK)
    ).last_hidden_state
    torch.sin(expected).sum().backward()
    assert_close(out, expected.detach())
    tensors = gradients(theirs)
    # Theirs lies in two tables whose sum is ours: either has the whole gradient.
    tensors["embeddings.token_type_embeddings.weight"] = np.zeros((2, 24), np.float32)
    if name == "distilbert":
        del tensors["embeddings.token_type_embeddings.weight"]
    expected = converted(tensors, name, sizes)["params"]
    assert_gradients_close(grads, expected)


def made(name):
    """A random model of transformers, and our attributes of it."""
    options = dict(bottleneck=True) if name == "resnet" else {}
    return MAKE[f"{name}_model"](**options)


@pytest.mark.parametrize("name", NAMES)
def test_load_reads_what_transformers_saves(name, tmp_path):
    theirs, sizes = made(name)
    theirs.save_pretrained(tmp_path)
    loaded = checkpoint.load(tmp_path)
    assert loaded.architecture.name == name
    assert loaded.architecture.sizes.items() >= sizes.items()
    expected = converted(state_dict(theirs), name, sizes)
    assert_trees_equal(loaded.variables, expected)


def random_variables(name, sizes):
    """Variables of our module, drawn by the module's own rules and made less tame."""
    text = "bert" in name
    model = {"resnet": ResNet, "vit": ViT}.get(name, DistilBert)(**sizes)
    inputs = (IDS, MASK) if text else (IMAGES[:, :12, :12],)
    shapes = jax.eval_shape(
        partial(model.init, train=False), jax.random.key(0), *inputs
    )
    rng = np.random.default_rng(4)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = max(leaf.size // leaf.shape[-1], 4)
        return (rng.normal(size=leaf.shape) * fan_in**-0.5).astype(np.float32)

    return model, jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.mark.parametrize("name", NAMES)
def test_transformers_reads_what_save_writes(name, tmp_path):
    """No weight is new to it, none is left over, and the outputs are ours."""
    _, sizes = made(name)
    sizes = dict(sizes) | ({} if name in ("resnet", "distilbert") else {"eps": 1e-3})
    model, variables = random_variables(name, sizes)
    checkpoint.save(tmp_path / name, Architecture(name, sizes), variables)
    options = dict(add_pooling_layer=False) if name in ("vit", "bert") else {}
    theirs, info = getattr(transformers, CLASSES[name]).from_pretrained(
        tmp_path / name, output_loading_info=True, **options
    )
    # A buffer of counters or of places is no weight.
    assert not [k for k in info["missing_keys"] if "num_batches" not in k]
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    apply = partial(model.apply, train=False)
    with torch.no_grad():
        if "bert" in name:
            ours = jax.jit(apply)(variables, IDS, MASK)
            ids, mask = torch.from_numpy(IDS), torch.from_numpy(MASK)
            expected = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
            # Those of padding carry no meaning.
            ours, expected = ours * MASK[..., None], expected * mask[..., None]
        elif name == "vit":
            pictures = IMAGES[:, :12, :12]
            ours = jax.jit(partial(apply, method="tokens"))(variables, pictures)
            expected = theirs(MAKE["channels_first"](pictures)).last_hidden_state
        else:
            ours = jax.jit(apply)(variables, IMAGES)
            expected = theirs(MAKE["channels_first"](IMAGES)).pooler_output[:, :, 0, 0]
    assert_close(ours, expected)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_classifiers_go_both_ways(name, tmp_path):
    _, sizes = made(name)
    model, variables = random_variables(name, sizes)
    width = 24 if name == "vit" else 32
    classifier = {
        "kernel": RNG.normal(size=(width, 3)).astype(np.float32),
        "bias": RNG.normal(size=3).astype(np.float32),
    }
    checkpoint.save(
        tmp_path / name,
        Architecture(name, sizes),
        variables,
        classifier=classifier,
        preprocessing=Preprocessing((0.5,) * 3, (0.5,) * 3, 12),
    )
    kind = CLASSES[name].replace("Model", "ForImageClassification")
    theirs = getattr(transformers, kind).from_pretrained(tmp_path / name)
    pictures = IMAGES[:, :12, :12]
    features = jax.jit(partial(model.apply, train=False))(variables, pictures)
    ours = features @ classifier["kernel"] + classifier["bias"][None]
    with torch.no_grad():
        assert_close(ours, theirs(MAKE["channels_first"](pictures)).logits)
    prepare = transformers.AutoImageProcessor.from_pretrained(tmp_path / name)
    grey = np.full((20, 30, 3), 51, np.uint8)
    prepared = prepare(grey, return_tensors="np")["pixel_values"]
    assert prepared.shape == (1, 3, 12, 12)
    # (51 / 255 - 0.5) / 0.5
    np.testing.assert_allclose(prepared, -0.6, rtol=1e-6)

    theirs.save_pretrained(tmp_path / "again")
    loaded = checkpoint.load(tmp_path / "again")
    assert_trees_equal((loaded.variables, loaded.classifier), (variables, classifier))


def test_load_reads_what_torch_saves(tmp_path):
    """DINO's ResNet: torchvision's names and counters, without a classifier."""
    _, tensors, sizes = case("torch_resnet")
    tensors = {k: v for k, v in tensors.items() if not k.startswith("fc.")}
    saved = {k: torch.from_numpy(v) for k, v in tensors.items()}
    saved |= {"bn1.num_batches_tracked": torch.tensor(7)}
    torch.save(saved, tmp_path / "dino_resnet50_pretrain.pth")
    loaded = checkpoint.load(tmp_path / "dino_resnet50_pretrain.pth")
    assert loaded.form == "torch resnet"
    assert loaded.architecture == Architecture("resnet", sizes)
    assert loaded.classifier is None
    expected, _ = to_variables(tensors, form="torch resnet", sizes=sizes)
    assert_trees_equal(loaded.variables, expected)
