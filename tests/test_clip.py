"""CLIP's towers against golden outputs of transformers, and their checkpoints."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file, save_file
from support import tiny
from tokenizers import Tokenizer
from weights_support import GOLDEN, assert_trees_equal, relative

from memejax import export, predict, train
from memejax.data import text
from memejax.models.clip import CLIPS, ClipText, ClipVision
from memejax.stages.parts.pretrained import CheckpointError, adopt
from memejax.weights import checkpoint, inspect
from memejax.weights.configs import (
    Architecture,
    TwoTowersError,
    read_config,
)
from memejax.weights.convert import to_tensors, to_variables
from memejax.weights.forms import recognise
from memejax.weights.preprocessing import (
    Preprocessing,
    read_preprocessing,
    write_preprocessing,
)
from memejax.weights.written import write_config

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
VISION = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "patch_size": 4,
    "image_size": 12,
    "projection_dim": 512,
}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 28,
    "vocab_size": 50,
    "max_position_embeddings": 12,
}
CONFIG = {
    "model_type": "clip",
    "projection_dim": 10,
    "vision_config": VISION,
    "text_config": TEXT,
}


@functools.cache
def golden(name="clip"):
    with np.load(GOLDEN / f"{name}.npz") as file:
        case = dict(file)
    with np.load(GOLDEN / "clip.npz") as file:
        tensors = {k[7:]: file[k] for k in file.files if k.startswith("tensor/")}
    return case, tensors, json.loads(str(case["sizes"]))


def towers(name="clip"):
    """Golden case; module and variables of both towers."""
    case, tensors, sizes = golden(name)
    made = []
    for kind, form in ((ClipVision, "clip_vision"), (ClipText, "clip_text")):
        of = sizes["image" if kind is ClipVision else "text"]
        module = kind(**of, activation=str(case["activation"]))
        made.append(
            (module, to_variables(tensors, form=f"huggingface {form}", sizes=of)[0])
        )
    return case, *made


@functools.partial(jax.jit, static_argnames=("module", "method"))
def run(variables, *inputs, module, method=None):
    options = {} if method == "project" else {"train": False}
    return module.apply(variables, *inputs, method=method, **options)


@pytest.mark.parametrize("name", ["clip", "clip_gelu"])
@pytest.mark.parametrize("side", ["same", "larger"])
def test_pictures_agree_with_transformers(name, side):
    """Tokens before the last norm, pooled and projected; at another size too."""
    case, (module, variables), _ = towers(name)
    images = case[f"images/{side}"]
    tokens = run(variables, images, module=module, method="tokens")
    assert relative(tokens, case[f"tokens/{side}"]) < 1e-5
    pooled = run(variables, images, module=module)
    assert relative(pooled, case[f"pooled/{side}"]) < 1e-5
    projected = run(variables, pooled, module=module, method="project")
    assert relative(projected, case[f"projected/{side}"]) < 1e-5


@pytest.mark.parametrize("name", ["clip", "clip_gelu"])
def test_captions_agree_with_transformers(name):
    case, _, (module, variables) = towers(name)
    ids, mask = case["ids"], case["mask"]
    tokens = run(variables, ids, mask, module=module)
    where = mask.astype(bool)
    assert relative(tokens[where], case["tokens"][where]) < 1e-5
    pooled = module.pool(tokens, mask, pooling="mean")
    assert relative(pooled, case["pooled"]) < 1e-5
    projected = run(variables, pooled, module=module, method="project")
    assert relative(projected, case["projected"]) < 1e-5


def test_a_wrong_activation_gives_other_features():
    """Which nobody would notice: it has to come from the folder."""
    case, (_, variables), _ = towers()
    other = ClipVision(**golden()[2]["image"], activation="gelu")
    got = run(variables, case["images/same"], module=other)
    assert relative(got, case["pooled/same"]) > 1e-4


def test_later_words_and_padding_change_nothing_before_them():
    case, _, (module, variables) = towers()
    ids, mask = case["ids"].copy(), case["mask"]
    before = run(variables, ids, mask, module=module)
    ids[1, 6:] = 7
    after = run(variables, ids, mask, module=module)
    np.testing.assert_array_equal(before[1, :6], after[1, :6])
    ids[0, 4] = 9
    changed = run(variables, ids, mask, module=module)
    np.testing.assert_array_equal(before[0, :4], changed[0, :4])
    assert np.abs(before[0, 4:] - changed[0, 4:]).max() > 1e-3


def test_captions_that_are_too_long():
    _, _, (module, variables) = towers()
    ids = np.ones((1, 13), int)
    with pytest.raises(ValueError, match="got 13 tokens, expected at most 12"):
        module.apply(variables, ids, ids, train=False)


@pytest.mark.parametrize("name", CLIPS)
def test_published_sizes(name):
    """Parameters of both towers and the temperature: OpenAI's and OpenCLIP's counts."""
    expected = {
        "clip_base_32": 151_277_313,
        "clip_base_16": 149_620_737,
        "clip_large_14": 427_616_513,
        "clip_huge_14": 986_109_441,
    }
    total = 1
    for kind, sizes in zip((ClipVision, ClipText), CLIPS[name], strict=True):
        module = kind(**sizes)
        if kind is ClipVision:
            module = module.for_images(224)
        inputs = module.smallest_inputs()
        init = functools.partial(module.init, jax.random.key(0), train=False)
        shapes = jax.eval_shape(init, *inputs)
        total += sum(x.size for x in jax.tree.leaves(shapes))
    assert total == expected[name]


def tokenizer():
    """CLIP's kind of tokenizer with as many words as the golden word table."""
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    words = [*letters, *(f"{letter}</w>" for letter in letters[:22])]
    vocab = {word: i for i, word in enumerate(words)}
    vocab |= {"<|startoftext|>": 48, "<|endoftext|>": 49}
    made = Tokenizer(
        tokenizers.models.BPE(
            vocab, [], end_of_word_suffix="</w>", unk_token="<|endoftext|>"
        )
    )
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.RobertaProcessing(
        ("<|endoftext|>", 49), ("<|startoftext|>", 48), add_prefix_space=False
    )
    return made


def write(folder, *, config=CONFIG, words=True, preprocessing=True, drop=()):
    """A folder as `CLIPModel.save_pretrained` and its processor write it."""
    folder.mkdir(parents=True)
    _, tensors, _ = golden()
    kept = {k: v for k, v in tensors.items() if k not in drop}
    save_file(kept, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    if words:
        tokenizer().save(str(folder / "tokenizer.json"))
    if preprocessing:
        content = {
            "image_mean": MEAN,
            "image_std": STD,
            "size": {"shortest_edge": 12},
            "crop_size": {"height": 12, "width": 12},
            "do_center_crop": True,
            "resample": 3,
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return folder


def test_a_folder_of_both_towers(tmp_path):
    folder = write(tmp_path / "clip")
    with pytest.raises(TwoTowersError, match="open it for one of them, 'image' or"):
        checkpoint.open_checkpoint(folder)
    _, tensors, sizes = golden()
    for tower, form in (("image", "clip_vision"), ("text", "clip_text")):
        loaded = checkpoint.load(folder, tower=tower)
        assert loaded.architecture.name == form
        wanted = sizes[tower] | {"activation": "quick_gelu"}
        assert loaded.architecture.sizes == wanted
        expected, _ = to_variables(
            tensors, form=f"huggingface {form}", sizes=sizes[tower]
        )
        assert_trees_equal(loaded.variables, expected)
    image = checkpoint.open_checkpoint(folder, tower="image")
    assert image.preprocessing == (MEAN, STD, 12, "shorter_bicubic")
    larger = checkpoint.load(folder, tower="image", grid=5)
    assert larger.variables["params"]["positions"].shape == (26, 24)
    assert larger.architecture.sizes["grid"] == 5


def test_what_a_clip_cannot_do_without(tmp_path):
    bare = write(tmp_path / "bare", words=False, preprocessing=False)
    with pytest.raises(
        ValueError, match="a clip tower without preprocessor_config.json"
    ):
        checkpoint.open_checkpoint(bare, tower="image")
    with pytest.raises(ValueError, match="a clip tower without its tokenizer"):
        checkpoint.open_checkpoint(bare, tower="text")
    (bare / "config.json").unlink()
    with pytest.raises(ValueError, match="CLIP or SigLIP of Hugging Face without"):
        checkpoint.open_checkpoint(bare, tower="image")
    wrong = CONFIG | {"text_config": TEXT | {"hidden_act": "relu"}}
    folder = write(tmp_path / "relu", config=wrong)
    with pytest.raises(ValueError, match="got hidden_act 'relu'.*'quick_gelu'"):
        checkpoint.open_checkpoint(folder, tower="text")
    torn = write(tmp_path / "torn", drop=["text_projection.weight"])
    opened = checkpoint.load(torn, tower="text")
    assert opened.architecture.sizes["projection"] == 0
    assert "projector" not in opened.variables["params"]
    torn = write(tmp_path / "half", drop=["vision_model.pre_layrnorm.bias"])
    with pytest.raises(ValueError, match="1 missing: vision_model.pre_layrnorm.bias"):
        checkpoint.load(torn, tower="image")


def test_rules_of_config_json():
    """Defaults, and which of several values holds."""
    base = read_config({"model_type": "clip"}, tower="image")
    assert ClipVision(**base.sizes) == ClipVision(**CLIPS["clip_base_32"][0])
    text = read_config({"model_type": "clip"}, tower="text")
    assert ClipText(**text.sizes) == ClipText(**CLIPS["clip_base_32"][1])
    # LAION's: only what differs, and another activation.
    laion = {
        "model_type": "clip",
        "projection_dim": 768,
        "vision_config": {
            "hidden_size": 1024,
            "num_attention_heads": 16,
            "hidden_act": "gelu",
        },
    }
    sizes = read_config(laion, tower="image").sizes
    assert (sizes["activation"], sizes["projection"]) == ("gelu", 768)
    # The older name overrides; the whole config's width holds in a CLIP.
    legacy = {"vision_config_dict": {"hidden_size": 36, "projection_dim": 3}}
    sizes = read_config(CONFIG | legacy, tower="image").sizes
    assert (sizes["hidden"], sizes["projection"]) == (36, 10)
    # A single tower's own width does.
    single = {"model_type": "clip_vision_model", **VISION}
    assert read_config(single).sizes["projection"] == 512
    for tower in ("image", "text"):
        form, architecture = recognise({}, CONFIG, tower=tower)
        assert form == f"huggingface clip_{'vision' if tower == 'image' else 'text'}"
        assert architecture.sizes["projection"] == 0
    with pytest.raises(ValueError, match="expected one of .*'clip', 'clip_text_model'"):
        read_config({"model_type": "clip_vision"})


@pytest.mark.parametrize("tower", ["image", "text"])
def test_saved_towers_come_back(tmp_path, tower):
    """As folders of a single tower, in the names that transformers writes."""
    _, tensors, sizes = golden()
    name = "clip_vision" if tower == "image" else "clip_text"
    architecture = Architecture(name, sizes[tower] | {"activation": "gelu"})
    variables, _ = to_variables(tensors, form=f"huggingface {name}", sizes=sizes[tower])
    how = Preprocessing(MEAN, STD, 12) if tower == "image" else None
    folder = tmp_path / "tower"
    checkpoint.save(folder, architecture, variables, preprocessing=how)
    if tower == "text":
        (folder / "tokenizer.json").write_text("{}")
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == f"{name}_model"
    kind = "Vision" if tower == "image" else "Text"
    assert config["architectures"] == [f"CLIP{kind}ModelWithProjection"]
    assert config["hidden_act"] == "gelu" and config["projection_dim"] == 10
    again = checkpoint.load(folder)
    assert again.architecture == architecture
    assert_trees_equal(again.variables, variables)
    written = load_file(folder / "model.safetensors")
    own = ("vision_model.", "visual") if tower == "image" else ("text_",)
    assert set(written) == {k for k in tensors if k.startswith(own)}
    # transformers in memory leaves the first part out.
    short = {
        k.removeprefix("vision_model.").removeprefix("text_model."): v
        for k, v in written.items()
    }
    assert_trees_equal(
        to_variables(short, form=f"huggingface {name}", sizes=sizes[tower])[0],
        variables,
    )
    bare = Architecture(name, sizes[tower] | {"projection": 0})
    assert write_config(bare)["architectures"] == [f"CLIP{kind}Model"]


def test_preprocessing_of_older_files():
    old = {
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "size": 224,
        "crop_size": 224,
        "do_center_crop": True,
        "resample": 3,
    }
    assert read_preprocessing(old) == (MEAN, STD, 224, "shorter_bicubic")
    assert write_preprocessing(Preprocessing(MEAN, STD, 224))["image_mean"] == list(
        MEAN
    )


def test_gradients_reach_every_parameter_but_the_projection():
    case, (module, variables), (text, words) = towers()

    def loss(params, module, *inputs):
        out = module.apply({"params": params}, *inputs, train=False)
        return jnp.sum(out**2)

    for tower, tree, inputs in (
        (module, variables, (case["images/same"],)),
        (text, words, (case["ids"], case["mask"])),
    ):
        found = jax.grad(loss)(tree["params"], tower, *inputs)
        for path, leaf in jax.tree_util.tree_leaves_with_path(found):
            name = jax.tree_util.keystr(path)
            assert np.isfinite(leaf).all()
            # A constant on all keys cancels in the softmax.
            if "projector" in name or "['key']['bias']" in name:
                continue
            assert np.abs(leaf).max() > 1e-6, name


def test_to_tensors_writes_the_file_again():
    _, tensors, sizes = golden()
    for tower, form in (("image", "clip_vision"), ("text", "clip_text")):
        variables, _ = to_variables(
            tensors, form=f"huggingface {form}", sizes=sizes[tower]
        )
        again = to_tensors(variables, form=f"huggingface {form}", sizes=sizes[tower])
        for name, value in again.items():
            np.testing.assert_array_equal(value, tensors[name])


def test_a_run_from_a_clip(tmp_path):
    """Both towers from one folder; captions are cut at their longest, and counted."""
    folder = write(tmp_path / "clip")
    config = tiny(
        **{
            "arms": ("vit",),
            "stages": ("finetune", "evaluate"),
            "weights.image_vit": str(folder),
            "weights.text": str(folder),
            # Another size than the position table's.
            "data.image_size": 16,
            "data.resize": "checkpoint",
            "data.text_length": 40,
            "finetune.steps": 2,
            "finetune.eval_every": 2,
            "finetune.optimizer.warmup": 1,
        }
    )
    results = train.run(config, tmp_path / "run")
    assert results["data"]["truncated_captions"] > 0
    saved = json.loads((tmp_path / "run/config.json").read_text())
    assert saved["model"]["image"]["vit"]["name"] == "clip_vision"
    assert saved["model"]["text"]["name"] == "clip_text"
    assert saved["data"]["text_length"] == 12
    assert saved["data"]["resize"] == "shorter_bicubic"
    normalization = saved["model"]["image"]["vit"]["normalization"]
    assert normalization == {"mean": list(MEAN), "std": list(STD)}
    predictor = predict.load_predictor(tmp_path / "run")
    pictures = np.zeros((2, 16, 16, 3), np.uint8)
    proba = predictor.predict(pictures, ["a cab", ""])
    assert np.isfinite(proba).all() and proba[0] != proba[1]
    export.export(tmp_path / "run", tmp_path / "out")
    how = json.loads(
        (tmp_path / "out/vit/image_encoder/preprocessor_config.json").read_text()
    )
    assert how["image_processor_type"] == "CLIPImageProcessor"
    assert (how["resample"], how["size"]) == (3, {"shortest_edge": 16})
    assert read_preprocessing(how) == (MEAN, STD, 16, "shorter_bicubic")
    assert "Image.Resampling.BICUBIC" in (tmp_path / "out/README.md").read_text()
    for part, name in (("image_encoder", "clip_vision"), ("text_encoder", "clip_text")):
        exported = json.loads((tmp_path / f"out/vit/{part}/config.json").read_text())
        assert exported["model_type"] == f"{name}_model"


def test_no_checkpoint_to_take_the_resizing_of():
    with pytest.raises(ValueError, match="data.resize='checkpoint' takes that of weig"):
        adopt(tiny(**{"data.resize": "checkpoint"}))


def test_another_kind_of_checkpoint_is_still_refused(tmp_path):
    folder = write(tmp_path / "clip")
    config = tiny(**{"weights.text": str(folder), "data.text_length": 200})
    assert adopt(config).data.text_length == 12
    checkpoint.save(
        tmp_path / "tower",
        Architecture("clip_text", golden()[2]["text"]),
        to_variables(
            golden()[1], form="huggingface clip_text", sizes=golden()[2]["text"]
        )[0],
    )
    tokenizer().save(str(tmp_path / "tower/tokenizer.json"))
    config = tiny(**{"weights.image_vit": str(tmp_path / "tower")})
    with pytest.raises(CheckpointError, match="it is a clip_text .*expected vit"):
        adopt(config)


def test_older_tokenizers_of_two_files(tmp_path):
    """vocab.json and merges.txt, as transformers reads them."""
    alphabet = [*"abcdefghijklmnopqrstuvwxyz!"]
    words = [*alphabet, *(f"{a}</w>" for a in alphabet), "ca", "cat</w>"]
    vocab = {word: i for i, word in enumerate(words)}
    vocab |= {"<|startoftext|>": len(vocab), "<|endoftext|>": len(vocab) + 1}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    read = text.load_tokenizer(str(tmp_path))
    tokens = text.encode(read, ["A  Cat!", "cat " * 9], length=6)
    start, end = vocab["<|startoftext|>"], vocab["<|endoftext|>"]
    assert tokens.input_ids[0].tolist() == [
        *(start, vocab["a</w>"], vocab["cat</w>"], vocab["!</w>"], end, end)
    ]
    assert tokens.attention_mask[0].tolist() == [1, 1, 1, 1, 1, 0]
    # Cut, and ended all the same.
    assert tokens.input_ids[1].tolist() == [start, *[vocab["cat</w>"]] * 4, end]
    assert tokens.truncated == 1
    (tmp_path / "merges.txt").write_text("#version: 0.2\nq\n")
    with pytest.raises(ValueError, match="are not CLIP's vocabulary and merges"):
        text.load_tokenizer(str(tmp_path))


def test_inspect_names_both_flags(tmp_path):
    found = inspect.describe(str(write(tmp_path / "clip")))
    assert found["architecture"] == "clip_vision" and found["model"] is None
    flags = [flag.split("=")[0] for flag in found["flags"]]
    assert flags == ["--config.weights.image_vit", "--config.weights.text"]
    assert "huggingface clip_vision" in inspect.to_text(found)
