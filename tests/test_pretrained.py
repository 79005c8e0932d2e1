"""Runs that start from checkpoints: what comes with them, and where it goes."""

import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from support import ROOT, shrunk, tiny
from tokenizers import Tokenizer
from weights_support import golden, save

from memejax import datasets, train
from memejax.config import load_config
from memejax.data import text
from memejax.stages import pretrain
from memejax.stages.parts import models, variables
from memejax.stages.parts.pretrained import CheckpointError, adopt
from memejax.stages.parts.training import devices

CLASSES = 7
# The classifiers' names in the two architectures, and their widths in golden files.
HEADS = {"vit": ("classifier", "vit", 24), "cnn": ("classifier.1", "resnet", 32)}


def save_with_tokenizer(folder, name):
    """A folder with a vocabulary of as many entries as the word table has rows."""
    tensors, sizes = save(folder, name)
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz",
    ]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrs"]
    (folder / "vocab.txt").write_text("\n".join(words[: sizes["vocab_size"]]))
    return tensors, sizes


def test_encoders_start_from_checkpoints(tmp_path):
    """A BERT in both arms and a ViT for another picture size: the paths are enough."""
    written, image = tmp_path / "text", tmp_path / "image"
    for folder in (written, image):
        folder.mkdir()
    tensors, _ = save_with_tokenizer(written, "bert")
    save(image, "vit", layer_norm_eps=1e-6)
    preprocessing = {
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.6, 0.7],
        "size": {"height": 12, "width": 12},
    }
    (image / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    given = tiny(
        **{
            "weights.text": str(written),
            "weights.image_vit": str(image),
            "data.text_length": 12,
        }
    )
    said = []
    config = adopt(given, said.append)
    assert [line.split(",")[0] for line in said] == [
        "weights.image_vit: huggingface vit",
        "weights.text: huggingface bert",
    ]
    assert said[0].endswith(f"from {image}; trained at 12 pixels")
    assert given.data.tokenizer is None and given.model.text.hidden == 16
    assert config.data.tokenizer == str(written)
    assert (config.model.text.hidden, config.model.text.max_length) == (24, 12)
    assert config.model.text.dropout == given.model.text.dropout
    assert config.model.image.cnn.to_dict() == given.model.image.cnn.to_dict()
    assert models.image_encoder(config, "vit").eps == 1e-6
    assert models.normalization(config, "vit") == dict(
        mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)
    )
    assert models.normalization(config, "cnn")["mean"] == (0.485, 0.456, 0.406)

    data = datasets.load(config, tmp_path)
    assert data.vocabulary == 50
    params = pretrain.make(config, data, seed=0, mesh=devices(config)).init().params
    name = "embeddings.word_embeddings.weight"
    words = next(v for k, v in tensors.items() if k.endswith(name))
    for arm in ("arms_cnn", "arms_vit"):
        np.testing.assert_array_equal(params[arm]["text_encoder"]["words"], words)
    # 24 pixels in patches of 4, and the CLS token.
    assert params["arms_vit"]["image_encoder"]["positions"].shape == (37, 24)


def test_what_a_run_says_goes_before_what_a_checkpoint_says(tmp_path):
    written, image = tmp_path / "text", tmp_path / "image"
    for folder in (written, image):
        folder.mkdir()
    save_with_tokenizer(written, "distilbert")
    save(image, "vit")
    tokenizer = text.train_wordpiece(["a word or two"] * 3, vocab_size=40)
    text.save_tokenizer(tokenizer, str(tmp_path / "own"))
    config = tiny(
        **{
            "weights.text": str(written),
            "weights.image_vit": str(image),
            "data.tokenizer": str(tmp_path / "own"),
            "model.image.vit.normalization": "imagenet",
        }
    )
    adopted = adopt(config)
    assert adopted.data.tokenizer == str(tmp_path / "own")
    assert models.normalization(adopted, "vit")["mean"] == (0.485, 0.456, 0.406)
    # A vocabulary that the word table has no rows for.
    with pytest.raises(ValueError, match="the tokenizer has 60 entries, .* 50"):
        models.fusion_arms(adopted, 60)


def test_a_checkpoint_of_another_kind_is_told(tmp_path):
    save(tmp_path, "vit")
    for leaf, expected in (
        ("weights.text", "expected distilbert or bert"),
        ("weights.image_cnn", "expected resnet"),
    ):
        with pytest.raises(ValueError, match=f"^{leaf}=.* is a vit .*{expected}"):
            adopt(tiny(**{leaf: str(tmp_path)}))
    config = tiny()
    assert adopt(config) is config


def test_pictures_may_have_the_size_of_the_checkpoint(tmp_path):
    save(tmp_path, "vit")
    zero = {"data.image_size": 0, "arms": ("vit",)}
    config = tiny(**zero, **{"weights.image_vit": str(tmp_path)})
    assert adopt(config).data.image_size == 12
    with pytest.raises(ValueError, match="and none is named"):
        adopt(tiny(**zero))
    preprocessing = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": None}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    with pytest.raises(ValueError, match="which have .*None.*: set it"):
        adopt(config)


def save_classifier(folder, arm, *, classes=CLASSES):
    """An encoder with a classifier on top."""
    prefix, name, width = HEADS[arm]
    folder.mkdir()
    save(folder, name)
    tensors, _ = golden(name)
    rng = np.random.default_rng(width)
    weight = rng.normal(size=(classes, width)).astype(np.float32)
    bias = rng.normal(size=classes).astype(np.float32)
    tensors |= {f"{prefix}.weight": weight, f"{prefix}.bias": bias}
    save_file(tensors, folder / "model.safetensors")
    return weight, bias


def cass_config(**changes):
    changes = {"pretrain.head.out": CLASSES, "weights.heads": True} | changes
    return adopt(shrunk(load_config(str(ROOT / "configs/cass.py")), **changes))


def zeros_of(config):
    """The arms' variables, all of them zero."""
    arms = models.image_arms(config)
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
    expected = {arm: save_classifier(tmp_path / arm, arm) for arm in HEADS}
    config = cass_config(
        **{f"weights.image_{arm}": str(tmp_path / arm) for arm in HEADS}
    )
    old = zeros_of(config)
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

    config.weights.image_vit = None
    one = variables.load_classifiers(config, old)["params"]
    assert np.any(one["arms_cnn"]["head"]["kernel"])
    assert not np.any(one["arms_vit"]["head"]["kernel"])


def test_a_classifier_of_other_classes_is_left_out_only_when_asked(tmp_path):
    save_classifier(tmp_path / "cnn", "cnn", classes=CLASSES + 1)
    changes = {"weights.image_cnn": str(tmp_path / "cnn")}
    config = cass_config(**changes)
    old = zeros_of(config)
    with pytest.raises(ValueError, match="does not fit arms_cnn/head") as error:
        variables.load_classifiers(config, old)
    message = str(error.value)
    there = f"kernel: the model has (32, {CLASSES}), the checkpoint (32, {CLASSES + 1})"
    assert str(tmp_path) in message and there in message
    assert "weights.allow_new_head=True" in message
    config = cass_config(**changes, **{"weights.allow_new_head": True})
    new = variables.load_classifiers(config, old)
    assert not np.any(new["params"]["arms_cnn"]["head"]["kernel"])


def test_heads_are_wanted_from_a_checkpoint_without_a_classifier(tmp_path):
    save(tmp_path, "resnet")
    config = cass_config(**{"weights.image_cnn": str(tmp_path)})
    with pytest.raises(ValueError, match=r"no classifier.*weights\.heads=False"):
        variables.load_classifiers(config, zeros_of(config))


def test_the_reference_cuts_captions_up_the_same_way(tmp_path):
    """A vocabulary beside a checkpoint is read as BERT reads it."""
    save_with_tokenizer(tmp_path, "bert")
    tokenizer = text.load_tokenizer(str(tmp_path))
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.encode("Bad Égo").tokens == [
        "[CLS]", "b", "##a", "##d", "e", "##g", "##o", "[SEP]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("cut", "expected .* bytes"),
        ("nan", "embeddings.word_embeddings.weight"),
        ("pickle", "run code|without torch|torch"),
        ("hub", "hf download"),
    ],
)
def test_a_run_from_a_bad_checkpoint_ends_at_once(damage, said, tmp_path, monkeypatch):
    """Before any data is made, and with nothing of the file run."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    name = tmp_path / "text"
    name.mkdir()
    tensors, _ = save_with_tokenizer(name, "bert")
    file = name / "model.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "nan":
        key = next(k for k in tensors if k.endswith("word_embeddings.weight"))
        tensors[key] = np.full_like(tensors[key], np.nan)
        save_file(tensors, file)
    elif damage == "pickle":
        file.unlink()
        (name / "pytorch_model.bin").write_bytes(pickle.dumps(Malicious(tmp_path)))
    else:
        name = "nobody/has-this"
    config = tiny(**{"weights.text": str(name), "data.text_length": 12})
    with pytest.raises(CheckpointError, match=f"^weights.text={name}: .*{said}"):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "executed").exists()


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, folder):
        self.file = str(folder / "executed")

    def __reduce__(self):
        return open, (self.file, "w")
