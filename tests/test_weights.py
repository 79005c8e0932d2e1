import json
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from memejax.models.distilbert import DistilBert
from memejax.models.resnet import ResNet
from memejax.models.vit import ViT, interpolate_positions
from memejax.weights import huggingface

GOLDEN = Path(__file__).parent / "golden"
CONVERT = {
    "resnet": huggingface.resnet_variables,
    "vit": huggingface.vit_variables,
    "distilbert": huggingface.distilbert_variables,
    "bert": huggingface.bert_variables,
}
FILES = {
    "resnet": "resnet_bottleneck",
    "vit": "vit",
    "distilbert": "distilbert",
    "bert": "bert",
}
TEXT = dict(vocab_size=50, max_position_embeddings=12)
CONFIGS = {
    "resnet": dict(depths=[2, 1], embedding_size=4, hidden_sizes=[16, 32]),
    "vit": dict(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        patch_size=4,
        image_size=12,
    ),
    "distilbert": dict(dim=24, n_layers=2, n_heads=3, hidden_dim=40, **TEXT),
    "bert": dict(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        **TEXT,
    ),
}
# A tensor of each that its model ignores, under the name of a published file.
EXTRAS = {
    "resnet": [
        "classifier.1.weight",
        "resnet.encoder.stages.0.layers.0.layer.0.normalization.num_batches_tracked",
    ],
    "vit": ["classifier.bias", "vit.pooler.dense.weight"],
    "distilbert": ["vocab_layer_norm.bias", "pre_classifier.weight"],
    "bert": [
        "bert.pooler.dense.bias",
        "cls.predictions.bias",
        "bert.embeddings.position_ids",
    ],
}


def golden(name):
    with np.load(GOLDEN / f"{FILES[name]}.npz") as file:
        case = dict(file)
    sizes = json.loads(str(case["sizes"]))
    if "stage_sizes" in sizes:
        sizes["stage_sizes"] = tuple(sizes["stage_sizes"])
    return {k[7:]: v for k, v in case.items() if k.startswith("tensor/")}, sizes


def assert_trees_equal(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CONVERT)
def test_trees_are_those_of_the_modules(name):
    tensors, sizes = golden(name)
    if name in ("resnet", "vit"):
        model = ResNet(**sizes) if name == "resnet" else ViT(**sizes)
        inputs = [np.zeros((1, 12, 12, 3), np.float32)]
    else:
        model, inputs = DistilBert(**sizes), [np.zeros((1, 3), int)] * 2
    init = partial(model.init, train=False)
    expected = jax.eval_shape(init, jax.random.key(0), *inputs)
    got = CONVERT[name](tensors, sizes=sizes)
    assert jax.tree.map(np.shape, got) == jax.tree.map(np.shape, expected)


def test_values_are_those_of_the_file():
    tensors, sizes = golden("resnet")
    variables = huggingface.resnet_variables(tensors, sizes=sizes)
    name = "encoder.stages.1.layers.0.layer.1"
    there = tensors[f"{name}.convolution.weight"]
    here = variables["params"]["stage1_block0"]["layer1"]["conv"]["kernel"]
    for i, j, k, m in np.ndindex(here.shape):
        assert here[i, j, k, m] == there[m, k, i, j]
    np.testing.assert_array_equal(
        variables["batch_stats"]["stage1_block0"]["layer1"]["norm"]["var"],
        tensors[f"{name}.normalization.running_var"],
    )

    tensors, sizes = golden("bert")
    params = huggingface.bert_variables(tensors, sizes=sizes)["params"]
    positions = tensors["embeddings.position_embeddings.weight"]
    types = tensors["embeddings.token_type_embeddings.weight"]
    np.testing.assert_array_equal(params["positions"], positions + types[0])
    np.testing.assert_array_equal(
        params["block1"]["mlp"]["up"]["kernel"],
        tensors["encoder.layer.1.intermediate.dense.weight"].T,
    )


@pytest.mark.parametrize("name", CONVERT)
def test_prefixes_and_extras_change_nothing(name):
    tensors, sizes = golden(name)
    plain = CONVERT[name](tensors, sizes=sizes)
    extras = {extra: np.zeros((3,), np.int64) for extra in EXTRAS[name]}
    prefixed = {f"{name}.{k}": v for k, v in tensors.items()} | extras
    assert_trees_equal(CONVERT[name](prefixed, sizes=sizes), plain)


def test_other_spellings_are_read():
    tensors, sizes = golden("bert")
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): v
        for k, v in tensors.items()
    }
    assert old.keys() != tensors.keys()
    assert_trees_equal(
        huggingface.bert_variables(old, sizes=sizes),
        huggingface.bert_variables(tensors, sizes=sizes),
    )

    tensors, sizes = golden("vit")
    new = {}
    for key, value in tensors.items():
        for old, spelling in {
            "encoder.layer.": "layers.",
            "attention.attention.query": "attention.q_proj",
            "attention.attention.key": "attention.k_proj",
            "attention.attention.value": "attention.v_proj",
            "attention.output.dense": "attention.o_proj",
            "intermediate.dense": "mlp.fc1",
            "output.dense": "mlp.fc2",
        }.items():
            key = key.replace(old, spelling)
        new[key] = value
    assert len(new.keys() - tensors.keys()) == 2 * 16
    assert_trees_equal(
        huggingface.vit_variables(new, sizes=sizes),
        huggingface.vit_variables(tensors, sizes=sizes),
    )


@pytest.mark.parametrize("name", CONVERT)
def test_every_fault_is_named_in_one_error(name):
    tensors, sizes = golden(name)
    tensors = {k: v for k, v in tensors.items() if "pooler" not in k}
    first, second, third, *_, last = tensors
    del tensors[first], tensors[second]
    got = list(tensors[third].shape)
    tensors[third] = tensors[third][None]
    tensors[last] = tensors[last][..., :1]
    tensors |= {"gate.weight": np.zeros(2), f"{name}.adapter": np.zeros(2)}
    with pytest.raises(ValueError, match=f"do not fit the {name}: ") as error:
        CONVERT[name](tensors, sizes=sizes)
    missing, unexpected, misshapen = str(error.value).split(": ", 1)[1].split("; ")
    assert set(missing.removeprefix("missing: ").split(", ")) == {first, second}
    assert unexpected == f"unexpected: gate.weight, {name}.adapter"
    assert f"{third} (got {[1, *got]}, expected {got})" in misshapen
    assert f"{last} (got " in misshapen


@pytest.mark.parametrize("name", CONVERT)
def test_each_missing_tensor_is_named(name):
    tensors, sizes = golden(name)
    wanted = {k for k in tensors if not k.startswith("pooler")}
    with pytest.raises(ValueError) as error:
        CONVERT[name]({}, sizes=sizes)
    missing = str(error.value).split("missing: ")[1].split(", ")
    assert sorted(missing) == sorted(wanted)


def test_a_tensor_given_twice_is_unexpected():
    tensors, sizes = golden("distilbert")
    again = f"distilbert.{next(iter(tensors))}"
    with pytest.raises(ValueError, match=f"unexpected: {again}$"):
        huggingface.distilbert_variables(
            tensors | {again: np.zeros(24, np.float32)}, sizes=sizes
        )


def save(folder, name, **config):
    tensors, sizes = golden(name)
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": name, **CONFIGS[name], **config}
    (folder / "config.json").write_text(json.dumps(config))
    return tensors, sizes


@pytest.mark.parametrize("name", CONVERT)
def test_load_reads_a_folder_and_its_file(name, tmp_path):
    tensors, sizes = save(tmp_path, name)
    architecture, variables = huggingface.load(tmp_path)
    assert architecture.name == name
    assert architecture.sizes.items() >= sizes.items()
    assert_trees_equal(variables, CONVERT[name](tensors, sizes=sizes))
    again, _ = huggingface.load(tmp_path / "model.safetensors")
    assert again == architecture


def test_load_resizes_positions(tmp_path):
    tensors, _ = save(tmp_path, "vit")
    architecture, variables = huggingface.load(tmp_path, grid=5)
    assert architecture.sizes["grid"] == 5
    table = tensors["embeddings.position_embeddings"][0]
    np.testing.assert_array_equal(
        variables["params"]["positions"], interpolate_positions(table, grid=5)
    )


def test_load_refuses_what_our_modules_lack(tmp_path):
    with pytest.raises(ValueError, match=r"where config.json is not, expected"):
        huggingface.load(tmp_path)
    save(tmp_path, "resnet")
    with pytest.raises(ValueError, match="got a grid for a 'resnet'"):
        huggingface.load(tmp_path, grid=5)
    save(tmp_path, "resnet", model_type="roberta")
    with pytest.raises(ValueError, match="got model_type 'roberta', expected one of"):
        huggingface.load(tmp_path)
    for name, key, value in [
        ("resnet", "downsample_in_bottleneck", True),
        ("resnet", "hidden_sizes", [16, 48]),
        ("vit", "hidden_act", "gelu_new"),
        ("vit", "image_size", [12, 24]),
        ("distilbert", "activation", "relu"),
        ("bert", "position_embedding_type", "relative_key"),
    ]:
        with pytest.raises(ValueError, match=f"got {key} ") as error:
            huggingface.read_config(
                {"model_type": name, **CONFIGS[name], **{key: value}}
            )
        assert str(value) in str(error.value)


def test_an_empty_config_means_the_published_sizes():
    resnet = huggingface.read_config({"model_type": "resnet"})
    assert ResNet(**resnet.sizes) == ResNet(stage_sizes=(3, 4, 6, 3))
    assert ViT(**huggingface.read_config({"model_type": "vit"}).sizes) == ViT()
    text = huggingface.read_config({"model_type": "distilbert"})
    assert DistilBert(**text.sizes) == DistilBert()
    bert = huggingface.read_config({"model_type": "bert"})
    assert DistilBert(**bert.sizes) == DistilBert(layers=12)
