from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weights_support import (
    CLASSES,
    CLASSIFIERS,
    FORMS,
    assert_trees_equal,
    bits,
    case,
    golden,
    relative,
)

from memejax.models.distilbert import DistilBert
from memejax.models.efficientnet import EfficientNetLite
from memejax.models.resnet import ResNet
from memejax.models.vit import ViT
from memejax.weights.convert import classes_of, to_tensors, to_variables

TYPES = "embeddings.token_type_embeddings.weight"
# Names that each form ignores, as published files have them.
EXTRAS = {
    "huggingface resnet": [
        "resnet.encoder.stages.0.layers.0.layer.0.normalization.num_batches_tracked"
    ],
    "huggingface vit": ["vit.pooler.dense.weight", "decoder.0.bias"],
    "huggingface distilbert": ["vocab_layer_norm.bias", "pre_classifier.weight"],
    "huggingface bert": [
        "bert.pooler.dense.bias",
        "cls.predictions.bias",
        "bert.embeddings.position_ids",
    ],
    "torch resnet": ["bn1.num_batches_tracked", "layer1.0.bn1.num_batches_tracked"],
    "torch efficientnet_lite": ["_blocks.0._bn1.num_batches_tracked"],
    "torch vit": ["mask_token"],
    "vit npz": [],
}
# Where a form has a classifier.
HEADS = {
    "huggingface resnet": ("classifier.1.weight", "classifier.1.bias"),
    "huggingface vit": ("classifier.weight", "classifier.bias"),
    "torch resnet": ("fc.weight", "fc.bias"),
    "torch efficientnet_lite": ("_fc.weight", "_fc.bias"),
    "torch vit": ("head.weight", "head.bias"),
    "vit npz": ("head/kernel", "head/bias"),
}


def module(form, sizes):
    """Our module and inputs for it."""
    if form.endswith("bert"):
        return DistilBert(**sizes), [np.zeros((1, 3), int)] * 2
    kinds = {"resnet": ResNet, "efficientnet_lite": EfficientNetLite}
    model = kinds.get(form.split()[1], ViT)(**sizes)
    return model, [np.zeros((1, 12, 12, 3), np.float32)]


def wanted(tensors):
    return {k: v for k, v in tensors.items() if not k.startswith("pooler")}


def with_classifier(form):
    """Golden tensors, with a classifier where the form has one."""
    tensors, sizes = golden(form)
    if form in HEADS and form not in CLASSIFIERS:
        rng = np.random.default_rng(5)
        width = {"huggingface resnet": 32, "huggingface vit": 24}[form]
        for name, shape in zip(HEADS[form], [(7, width), (7,)], strict=True):
            tensors[name] = rng.normal(size=shape).astype(np.float32)
    return wanted(tensors), sizes


@pytest.mark.parametrize("form", FORMS)
def test_trees_are_those_of_the_modules(form):
    tensors, sizes = golden(form)
    model, inputs = module(form, sizes)
    init = partial(model.init, train=False)
    expected = jax.eval_shape(init, jax.random.key(0), *inputs)
    got, classifier = to_variables(tensors, form=form, sizes=sizes)
    assert jax.tree.map(np.shape, got) == jax.tree.map(np.shape, expected)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(got))
    assert (classifier is not None) == (form in CLASSIFIERS)


@pytest.mark.parametrize("form", CLASSIFIERS)
def test_features_and_logits_agree_with_the_reference(form):
    content, tensors, sizes = case(FORMS[form])
    variables, classifier = to_variables(tensors, form=form, sizes=sizes)
    model, _ = module(form, sizes)
    method = "tokens" if "vit" in form else None
    apply = partial(model.apply, train=False, method=method)
    features = jax.jit(apply)(variables, content["images"])
    assert relative(features, content["features"]) < 1e-5
    pooled = features if method is None else features[:, 0]
    logits = pooled @ classifier["kernel"] + classifier["bias"][None]
    assert relative(logits, content["logits"]) < 1e-5


def test_values_are_those_of_the_file():
    tensors, sizes = golden("huggingface resnet")
    tree, _ = to_variables(tensors, form="huggingface resnet", sizes=sizes)
    name = "encoder.stages.1.layers.0.layer.1"
    there = tensors[f"{name}.convolution.weight"]
    here = tree["params"]["stage1_block0"]["layer1"]["conv"]["kernel"]
    for i, j, k, m in np.ndindex(here.shape):
        assert here[i, j, k, m] == there[m, k, i, j]
    np.testing.assert_array_equal(
        tree["batch_stats"]["stage1_block0"]["layer1"]["norm"]["var"],
        tensors[f"{name}.normalization.running_var"],
    )

    tensors, sizes = golden("huggingface bert")
    tree, _ = to_variables(tensors, form="huggingface bert", sizes=sizes)
    positions = tensors["embeddings.position_embeddings.weight"]
    np.testing.assert_array_equal(
        tree["params"]["positions"], positions + tensors[TYPES][0]
    )
    np.testing.assert_array_equal(
        tree["params"]["block1"]["mlp"]["up"]["kernel"],
        tensors["encoder.layer.1.intermediate.dense.weight"].T,
    )


def test_values_of_fused_and_split_tensors():
    tensors, sizes = golden("torch vit")
    tree, _ = to_variables(tensors, form="torch vit", sizes=sizes)
    attention = tree["params"]["block1"]["attention"]
    for i, name in enumerate(["query", "key", "value"]):
        for one, two in np.ndindex(24, 24):
            there = tensors["blocks.1.attn.qkv.weight"][24 * i + two, one]
            assert attention[name]["kernel"][one, two] == there
        bias = tensors["blocks.1.attn.qkv.bias"][24 * i : 24 * i + 24]
        np.testing.assert_array_equal(attention[name]["bias"], bias)

    tensors, sizes = golden("vit npz")
    tree, _ = to_variables(tensors, form="vit npz", sizes=sizes)
    attention = tree["params"]["block1"]["attention"]
    there = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1"
    for head, feature in np.ndindex(3, 8):
        column = 8 * head + feature
        for name in ("query", "key", "value"):
            np.testing.assert_array_equal(
                attention[name]["kernel"][:, column],
                tensors[f"{there}/{name}/kernel"][:, head, feature],
            )
            bias = tensors[f"{there}/{name}/bias"][head, feature]
            assert attention[name]["bias"][column] == bias
        np.testing.assert_array_equal(
            attention["out"]["kernel"][column],
            tensors[f"{there}/out/kernel"][head, feature],
        )


def test_names_of_the_blocks():
    tensors, sizes = golden("torch resnet")
    tree, _ = to_variables(tensors, form="torch resnet", sizes=sizes)
    block = tree["params"]["stage1_block0"]
    for here, there in {
        ("layer2", "conv", "kernel"): "layer2.0.conv3.weight",
        ("shortcut", "conv", "kernel"): "layer2.0.downsample.0.weight",
    }.items():
        leaf = block[here[0]][here[1]][here[2]]
        np.testing.assert_array_equal(leaf[0, 0], tensors[there][:, :, 0, 0].T)
    stats = tree["batch_stats"]["stage0_block1"]["layer0"]["norm"]
    np.testing.assert_array_equal(stats["mean"], tensors["layer1.1.bn1.running_mean"])
    shortcut = block["shortcut"]["norm"]["scale"]
    np.testing.assert_array_equal(shortcut, tensors["layer2.0.downsample.1.weight"])

    # Numbered through the stages: the second block of stage 3 is the fifth.
    tensors, sizes = golden("torch efficientnet_lite")
    tree, _ = to_variables(tensors, form="torch efficientnet_lite", sizes=sizes)
    for part, conv, norm in (
        ("expand", "_expand_conv", "_bn0"),
        ("depthwise", "_depthwise_conv", "_bn1"),
        ("project", "_project_conv", "_bn2"),
    ):
        unit = tree["params"]["stage3_block1"][part]
        there = tensors[f"_blocks.4.{conv}.weight"]
        np.testing.assert_array_equal(
            unit["conv"]["kernel"], there.transpose(2, 3, 1, 0)
        )
        there = tensors[f"_blocks.4.{norm}.weight"]
        np.testing.assert_array_equal(unit["norm"]["scale"], there)


@pytest.mark.parametrize("form", FORMS)
def test_there_and_back_every_bit_is_the_same(form):
    tensors, sizes = with_classifier(form)
    if TYPES in tensors:
        tensors[TYPES] = np.zeros_like(tensors[TYPES])
    # A zero below zero, and the smallest number.
    next(iter(tensors.values())).flat[:2] = -0.0, 1e-45
    variables, classifier = to_variables(tensors, form=form, sizes=sizes)
    back = to_tensors(variables, form=form, sizes=sizes, classifier=classifier)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].shape == tensor.shape
        assert back[name].flags.c_contiguous
        np.testing.assert_array_equal(bits(back[name]), bits(tensor))


def test_token_types_end_in_the_positions():
    tensors, sizes = golden("huggingface bert")
    form = "huggingface bert"
    variables, _ = to_variables(tensors, form=form, sizes=sizes)
    back = to_tensors(variables, form=form, sizes=sizes)
    assert back[TYPES].shape == (2, 24) and not back[TYPES].any()
    again, _ = to_variables(back, form=form, sizes=sizes)
    assert_trees_equal(again, variables)
    # Three types are read as well as two, and the first one counts.
    tensors[TYPES] = np.concatenate([tensors[TYPES][:1], np.ones((2, 24), np.float32)])
    assert_trees_equal(to_variables(tensors, form=form, sizes=sizes)[0], variables)


@pytest.mark.parametrize("form", FORMS)
def test_leaves_are_views_on_what_cannot_be_written(form):
    tensors, sizes = with_classifier(form)
    for tensor in tensors.values():
        tensor.flags.writeable = False
    variables, classifier = to_variables(tensors, form=form, sizes=sizes)
    if form == "huggingface bert":
        # The one sum.
        del variables["params"]["positions"]
    for leaf in jax.tree.leaves((variables, classifier)):
        assert any(np.shares_memory(leaf, tensor) for tensor in tensors.values())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64])
def test_other_floats_are_converted_exactly(form, dtype):
    tensors, sizes = golden(form)
    narrow = {k: v.astype(dtype) for k, v in tensors.items()}
    expected = {k: v.astype(np.float32) for k, v in narrow.items()}
    got, _ = to_variables(narrow, form=form, sizes=sizes)
    assert_trees_equal(got, to_variables(expected, form=form, sizes=sizes)[0])
    leaf = jax.tree.leaves(got)[0]
    assert np.any(leaf != np.round(leaf))


@pytest.mark.parametrize("form", FORMS)
def test_prefixes_and_extras_change_nothing(form):
    tensors, sizes = with_classifier(form)
    plain = to_variables(tensors, form=form, sizes=sizes)
    extras = {extra: np.zeros((3,), np.int64) for extra in EXTRAS[form]}
    prefix = form.split()[1] + "." if form.startswith("huggingface") else ""
    prefixed = {
        k if k in HEADS.get(form, ()) else prefix + k: v for k, v in tensors.items()
    }
    got = to_variables(prefixed | extras, form=form, sizes=sizes)
    assert_trees_equal(got, plain)


def test_other_spellings_are_read():
    form = "huggingface bert"
    tensors, sizes = golden(form)
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): v
        for k, v in tensors.items()
    }
    assert old.keys() != tensors.keys()
    assert_trees_equal(
        to_variables(old, form=form, sizes=sizes),
        to_variables(tensors, form=form, sizes=sizes),
    )

    form = "huggingface vit"
    tensors, sizes = golden(form)
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
        to_variables(new, form=form, sizes=sizes),
        to_variables(tensors, form=form, sizes=sizes),
    )


@pytest.mark.parametrize("form", HEADS)
def test_the_classifier_is_read(form):
    tensors, sizes = with_classifier(form)
    weight, bias = (tensors[name] for name in HEADS[form])
    _, classifier = to_variables(tensors, form=form, sizes=sizes)
    assert classifier.keys() == {"kernel", "bias"}
    kernel = weight if form == "vit npz" else weight.T
    np.testing.assert_array_equal(classifier["kernel"], kernel)
    np.testing.assert_array_equal(classifier["bias"], bias)
    shapes = {k: v.shape for k, v in tensors.items()}
    assert classes_of(shapes, form=form) == len(bias)
    assert len(bias) == (CLASSES if form in CLASSIFIERS else 7)

    # Half of it is a fault, as is one for other features.
    for name in HEADS[form]:
        half = {k: v for k, v in tensors.items() if k != name}
        with pytest.raises(ValueError, match=f": 1 missing: {name}$"):
            to_variables(half, form=form, sizes=sizes)
    tensors[HEADS[form][0]] = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match=r"1 misshapen: .* \(got \[3, 3\], expected"):
        to_variables(tensors, form=form, sizes=sizes)

    tensors = {k: v for k, v in tensors.items() if k not in HEADS[form]}
    assert to_variables(tensors, form=form, sizes=sizes)[1] is None
    shapes = {k: v.shape for k, v in tensors.items()}
    assert classes_of(shapes, form=form) is None


@pytest.mark.parametrize(
    ("form", "between"),
    [("vit npz", "pre_logits/kernel"), ("torch vit", "pre_logits.fc.weight")],
)
def test_a_classifier_behind_a_layer_is_none_of_the_features(form, between):
    tensors, sizes = golden(form)
    expected, classifier = to_variables(tensors, form=form, sizes=sizes)
    assert classifier is not None
    tensors[between] = np.zeros((24, 24), np.float32)
    got, classifier = to_variables(tensors, form=form, sizes=sizes)
    assert classifier is None
    assert_trees_equal(got, expected)
    shapes = {k: v.shape for k, v in tensors.items()}
    assert classes_of(shapes, form=form) is None


@pytest.mark.parametrize("form", FORMS)
def test_every_fault_is_named_in_one_error(form):
    tensors, sizes = golden(form)
    heads = HEADS.get(form, ())
    tensors = {k: v for k, v in wanted(tensors).items() if k not in heads}
    first, second, third, fourth, *_, last = tensors
    del tensors[first], tensors[second]
    got = list(tensors[third].shape)
    tensors[third] = tensors[third][None]
    tensors[fourth] = tensors[fourth].astype(int)
    tensors[last] = tensors[last][..., :1]
    tensors |= {"gate.weight": np.zeros(2), "adapter": np.zeros(2)}
    with pytest.raises(ValueError, match=f"do not fit the form '{form}': ") as error:
        to_variables(tensors, form=form, sizes=sizes)
    faults = str(error.value).split("': ", 1)[1].split("; ")
    missing, unexpected, misshapen = (fault.split(": ", 1) for fault in faults)
    assert missing[0] == "2 missing"
    assert set(missing[1].split(", ")) == {first, second}
    assert unexpected == ["2 unexpected", "gate.weight, adapter"]
    assert misshapen[0] == "3 misshapen"
    assert f"{third} (got {[1, *got]}, expected {got})" in misshapen[1]
    assert f"{fourth} (got int64" in misshapen[1]
    assert f"{last} (got " in misshapen[1]


@given(dropped=st.sets(st.sampled_from(sorted(golden("torch vit")[0])), min_size=1))
@settings(deadline=None, derandomize=True, max_examples=30)
def test_whatever_is_missing_is_named(dropped):
    tensors, sizes = golden("torch vit")
    classifier = set(HEADS["torch vit"])
    if classifier <= dropped:
        dropped = dropped - classifier
    left = {k: v for k, v in tensors.items() if k not in dropped}
    if not dropped:
        assert to_variables(left, form="torch vit", sizes=sizes)[1] is None
        return
    with pytest.raises(ValueError, match=f": {len(dropped)} missing: ") as error:
        to_variables(left, form="torch vit", sizes=sizes)
    listed, _, more = str(error.value).split("missing: ")[1].partition(" and ")
    names = set(listed.split(", "))
    assert len(names) == min(20, len(dropped)) and names <= dropped
    assert more == ("" if len(dropped) <= 20 else f"{len(dropped) - 20} more")


def test_a_tensor_given_twice_is_unexpected():
    tensors, sizes = golden("huggingface distilbert")
    again = f"distilbert.{next(iter(tensors))}"
    tensors[again] = np.zeros(24, np.float32)
    with pytest.raises(ValueError, match=f": 1 unexpected: {again}$"):
        to_variables(tensors, form="huggingface distilbert", sizes=sizes)


def test_variables_that_do_not_fit_are_named():
    tensors, sizes = golden("torch vit")
    variables, classifier = to_variables(tensors, form="torch vit", sizes=sizes)
    params = dict(variables["params"])
    del params["cls"]
    params |= {"gate": np.zeros(2, np.float32), "positions": params["positions"][1:]}
    with pytest.raises(ValueError, match="do not fit the vit of the form") as error:
        to_tensors({"params": params}, form="torch vit", sizes=sizes)
    assert str(error.value).endswith(
        "1 missing: params/cls; 1 unexpected: params/gate; 1 misshapen: "
        "params/positions (got [9, 24], expected [10, 24])"
    )
    classifier["kernel"] = classifier["kernel"].T
    with pytest.raises(ValueError, match=r"classifier/kernel \(got \[5, 24\], exp"):
        to_tensors(variables, form="torch vit", sizes=sizes, classifier=classifier)

    tensors, sizes = golden("huggingface bert")
    variables, _ = to_variables(tensors, form="huggingface bert", sizes=sizes)
    with pytest.raises(ValueError, match="got a classifier, which the form"):
        to_tensors(
            variables, form="huggingface bert", sizes=sizes, classifier=classifier
        )
    with pytest.raises(ValueError, match="got form 'bert', expected one of"):
        to_variables(tensors, form="bert", sizes=sizes)
