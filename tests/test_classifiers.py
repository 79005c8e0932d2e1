"""Classifiers of checkpoints, and the heads that start from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from support import ROOT, TINY

from memejax.build import modules, variables
from memejax.config import load_config
from memejax.weights import classifiers

CLASSES = 7
# Names of ViTForImageClassification and of ResNetForImageClassification, each beside
# a tensor of the encoder.
CASES = {
    "vit": ("classifier", "vit.layernorm.weight"),
    "cnn": ("classifier.1", "resnet.embedder.embedder.convolution.weight"),
}


def save(folder, arm, width, *, classes=CLASSES, dtype=np.float32):
    name, other = CASES[arm]
    rng = np.random.default_rng(width)
    tensors = {
        f"{name}.weight": rng.normal(size=(classes, width)).astype(dtype),
        f"{name}.bias": rng.normal(size=classes).astype(dtype),
        other: np.ones(3, dtype),
    }
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return tensors[f"{name}.weight"], tensors[f"{name}.bias"]


@pytest.mark.parametrize("arm", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_classifier_is_read(arm, dtype, tmp_path):
    weight, bias = save(tmp_path, arm, 5, dtype=dtype)
    for path in (tmp_path, str(tmp_path), tmp_path / "model.safetensors"):
        got = classifiers.load_classifier(path)
        assert got.keys() == {"kernel", "bias"}
        assert got["kernel"].shape == (5, CLASSES)
        for i, j in np.ndindex(5, CLASSES):
            assert got["kernel"][i, j] == weight[j, i]
        np.testing.assert_array_equal(got["bias"], bias)
        assert got["kernel"].dtype == got["bias"].dtype == np.float32


def test_what_is_no_classifier(tmp_path):
    with pytest.raises(ValueError, match="expected a folder with model.safetensors"):
        classifiers.load_classifier(tmp_path)
    with pytest.raises(ValueError, match=f"got {tmp_path / 'none'}, expected"):
        classifiers.load_classifier(tmp_path / "none")
    # An encoder alone, and a weight without its bias.
    for tensors in (
        {"embedder.embedder.convolution.weight": np.ones(3, np.float32)},
        {"classifier.weight": np.ones((2, 3), np.float32)},
    ):
        save_file(tensors, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match="has no linear classifier .*heads=False"):
            classifiers.load_classifier(tmp_path)


def cass_config(**changes):
    config = load_config(str(ROOT / "configs/cass.py"))
    config.update_from_flattened_dict(
        TINY | {"pretrain.head.out": CLASSES, "weights.heads": True} | changes
    )
    return config


def shapes_of(config):
    """The arms' variables, all of them zero."""
    arms = modules.image_arms(config)
    image = jnp.zeros((1, config.data.image_size, config.data.image_size, 3))
    made = jax.eval_shape(
        lambda: arms.init(
            jax.random.key(0),
            dict.fromkeys(config.arms, {"image": image}),
            train=False,
            method="project",
        )
    )
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), made)


def test_classifiers_become_the_heads(tmp_path):
    """And nothing else changes; an arm without a checkpoint keeps its head."""
    widths = {"cnn": 8, "vit": 16}
    expected = {arm: save(tmp_path / arm, arm, width) for arm, width in widths.items()}
    config = cass_config(
        **{f"weights.image.{arm}": str(tmp_path / arm) for arm in CASES}
    )
    old = shapes_of(config)
    new = variables.load_classifiers(config, old)
    for arm, (weight, bias) in expected.items():
        head = new["params"][f"arms_{arm}"]["head"]
        np.testing.assert_array_equal(head["kernel"], weight.T)
        np.testing.assert_array_equal(head["bias"], bias)
        # What was given is as it was.
        assert not np.any(old["params"][f"arms_{arm}"]["head"]["kernel"])
        rest = new["params"][f"arms_{arm}"]["image_encoder"]
        assert not any(np.any(x) for x in jax.tree.leaves(rest))
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, old)

    config.weights.image.vit = None
    one = variables.load_classifiers(config, old)["params"]
    assert np.any(one["arms_cnn"]["head"]["kernel"])
    assert not np.any(one["arms_vit"]["head"]["kernel"])


@pytest.mark.parametrize(("width", "classes"), [(9, CLASSES), (8, CLASSES + 1)])
def test_a_classifier_that_does_not_fit_is_named(width, classes, tmp_path):
    save(tmp_path, "cnn", width, classes=classes)
    config = cass_config(**{"weights.image.cnn": str(tmp_path)})
    with pytest.raises(ValueError, match="does not fit arms_cnn/head") as error:
        variables.load_classifiers(config, shapes_of(config))
    message = str(error.value)
    assert str(tmp_path) in message
    there = f"kernel: the model has (8, {CLASSES}), the checkpoint ({width}, {classes})"
    assert there in message
    assert ("bias: the model has" in message) == (classes != CLASSES)
