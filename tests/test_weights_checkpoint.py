import json
import os
import stat

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from weights_support import (
    CLASSES,
    FORMS,
    assert_trees_equal,
    case,
    golden,
    relative,
    save,
)

from memejax.models.vit import interpolate_positions
from memejax.weights import checkpoint
from memejax.weights.configs import Architecture
from memejax.weights.convert import to_variables
from memejax.weights.preprocessing import Preprocessing

HUGGINGFACE = ("resnet", "vit", "distilbert", "bert")
HALF = (0.5, 0.5, 0.5)
# How timm's folders say it.
TIMM = {
    "architecture": "vit_small_patch4_12",
    "model_args": {"num_heads": 3},
    "pretrained_cfg": {
        "mean": [0.1, 0.2, 0.3],
        "std": [1, 1, 1],
        "input_size": [3, 12, 12],
    },
}


@pytest.mark.parametrize("name", HUGGINGFACE)
def test_load_reads_a_folder_and_its_file(name, tmp_path):
    tensors, sizes = save(tmp_path, name)
    form = f"huggingface {name}"
    loaded = checkpoint.load(tmp_path)
    assert loaded.form == form
    assert loaded.architecture.name == name
    assert loaded.architecture.sizes.items() >= sizes.items()
    expected = to_variables(tensors, form=form, sizes=sizes)
    assert_trees_equal((loaded.variables, loaded.classifier), expected)
    assert loaded.tokenizer is None
    again = checkpoint.load(str(tmp_path / "model.safetensors"))
    assert again.architecture == loaded.architecture
    assert_trees_equal(again.variables, loaded.variables)


def test_load_reads_a_file_alone(tmp_path):
    for form, path in [
        ("torch resnet", tmp_path / "resnet50-0676ba61.safetensors"),
        ("vit npz", tmp_path / "B_16.npz"),
    ]:
        _, tensors, sizes = case(FORMS[form])
        if path.suffix == ".npz":
            np.savez(path, **tensors)
        else:
            save_file(tensors, path)
        opened = checkpoint.open_checkpoint(path)
        assert opened.source.weights == (path,)
        assert (opened.form, opened.classes) == (form, CLASSES)
        assert opened.architecture.sizes.items() >= sizes.items()
        assert opened.tensors.keys() == tensors.keys()
        assert opened.tokenizer is None
        loaded = checkpoint.load(path)
        expected = to_variables(tensors, form=form, sizes=sizes)
        assert_trees_equal((loaded.variables, loaded.classifier), expected)
        assert loaded.preprocessing == opened.preprocessing
    assert loaded.preprocessing == Preprocessing(HALF, HALF, 12)


def test_load_reads_a_folder_of_timm(tmp_path):
    tensors, sizes = golden("torch vit")
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TIMM))
    loaded = checkpoint.load(tmp_path)
    assert loaded.form == "torch vit"
    assert loaded.architecture == Architecture("vit", sizes | dict(qkv_bias=True))
    assert loaded.preprocessing[:3] == ((0.1, 0.2, 0.3), (1, 1, 1), 12)
    larger = checkpoint.load(tmp_path, grid=5)
    assert larger.preprocessing[:3] == ((0.1, 0.2, 0.3), (1, 1, 1), 20)
    assert larger.architecture.sizes["grid"] == 5
    table = interpolate_positions(tensors["pos_embed"][0], grid=5)
    np.testing.assert_array_equal(larger.variables["params"]["positions"], table)
    same = checkpoint.load(tmp_path, grid=3)
    assert_trees_equal(same.variables, loaded.variables)


def test_what_lies_beside_the_weights_is_found(tmp_path):
    save(tmp_path, "vit")
    assert checkpoint.open_checkpoint(tmp_path).preprocessing[:3] == (HALF, HALF, 12)
    content = dict(image_mean=[0, 0, 0], image_std=[1, 1, 1], size=12)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    opened = checkpoint.open_checkpoint(tmp_path)
    assert opened.preprocessing[:3] == ((0, 0, 0), (1, 1, 1), 12)
    assert opened.classes is None

    text = tmp_path / "text"
    text.mkdir()
    save(text, "bert")
    (text / "vocab.txt").write_text("[UNK]\n")
    opened = checkpoint.open_checkpoint(text)
    assert opened.tokenizer == text
    assert opened.preprocessing is None


def test_opening_reads_no_values(tmp_path):
    tensors, _ = save(tmp_path, "resnet")
    tensors["embedder.embedder.convolution.weight"][0, 0, 0, 0] = np.nan
    save_file(tensors, tmp_path / "model.safetensors")
    opened = checkpoint.open_checkpoint(tmp_path)
    assert all(isinstance(t.base, np.ndarray) for t in opened.tensors.values())
    assert not any(t.flags.writeable for t in opened.tensors.values())
    with pytest.raises(ValueError, match=r"1 of \d+ tensors have NaN or infinity"):
        checkpoint.load(tmp_path)


def test_errors_begin_with_the_file(tmp_path):
    tensors, _ = save(tmp_path, "resnet")
    file = str(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="got a grid for a 'resnet'") as error:
        checkpoint.load(tmp_path, grid=5)
    assert str(error.value).startswith(f"{file}: ")
    save(tmp_path, "resnet", model_type="roberta")
    with pytest.raises(ValueError, match="got model_type 'roberta', exp") as error:
        checkpoint.open_checkpoint(tmp_path)
    assert str(error.value).startswith(f"{file}: ")
    save(tmp_path, "resnet", depths=[1, 1])
    with pytest.raises(ValueError, match="unexpected: encoder.stages.0") as error:
        checkpoint.load(tmp_path)
    assert str(error.value).startswith(f"{file}: tensors do not fit the form")
    with pytest.raises(ValueError, match="none"):
        checkpoint.load(tmp_path / "none")


@pytest.mark.parametrize("form", FORMS)
def test_what_is_saved_is_loaded_with_every_bit(form, tmp_path):
    tensors, sizes = golden(form)
    name = form.split()[-1] if "npz" not in form else "vit"
    variables, classifier = to_variables(tensors, form=form, sizes=sizes)
    image = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 12)
    preprocessing = None if "bert" in name else image
    folder = tmp_path / "new" / name
    checkpoint.save(
        folder,
        Architecture(name, sizes),
        # As a run has them.
        jax.tree.map(jax.numpy.asarray, variables),
        classifier=classifier,
        preprocessing=preprocessing,
    )
    loaded = checkpoint.load(folder)
    # Hugging Face has no class of it.
    library = "torch" if name == "efficientnet_lite" else "huggingface"
    assert loaded.form == f"{library} {name}"
    assert loaded.architecture.sizes.items() >= sizes.items()
    assert_trees_equal((loaded.variables, loaded.classifier), (variables, classifier))
    assert loaded.preprocessing == preprocessing
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
    assert os.listdir(tmp_path / "new") == [name]
    # For all whom the user's mask lets, not for the owner alone.
    (tmp_path / "plain").mkdir()
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (folder, tmp_path / "plain")]
    assert modes[0] == modes[1]


def test_a_classifier_of_timm_classifies_the_same_once_saved(tmp_path):
    """The one that ours gives, from the tensors that `save` wrote."""
    content, tensors, sizes = case("torch_vit")
    variables, classifier = to_variables(tensors, form="torch vit", sizes=sizes)
    checkpoint.save(
        tmp_path / "vit", Architecture("vit", sizes), variables, classifier=classifier
    )
    with safe_open(tmp_path / "vit/model.safetensors", framework="numpy") as file:
        weight = file.get_tensor("classifier.weight")
        bias = file.get_tensor("classifier.bias")
    logits = content["features"][:, 0] @ weight.T + bias[None]
    assert relative(logits, content["logits"]) < 1e-5


def test_save_writes_whole_folders_or_none(tmp_path, monkeypatch):
    tensors, sizes = golden("vit")
    variables, _ = to_variables(tensors, form="huggingface vit", sizes=sizes)
    architecture = Architecture("vit", sizes)
    (tmp_path / "empty").mkdir()
    checkpoint.save(tmp_path / "empty", architecture, variables)
    before = sorted(os.listdir(tmp_path / "empty"))
    assert before == ["config.json", "model.safetensors"]
    for name in ("empty", "empty/config.json"):
        with pytest.raises(ValueError, match="which exists, expected a new or emp"):
            checkpoint.save(tmp_path / name, architecture, variables)

    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        checkpoint.save(tmp_path / "new", architecture, variables)
    assert os.listdir(tmp_path) == ["empty"]
    with pytest.raises(ValueError, match="got stem 'patch4'"):
        checkpoint.save(
            tmp_path / "new", Architecture("resnet", dict(stem="patch4")), variables
        )
