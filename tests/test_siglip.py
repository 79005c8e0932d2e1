"""SigLIP's towers against golden outputs of transformers, and their checkpoints."""

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

from memejax import explain, export, predict, train
from memejax.data import text
from memejax.models.siglip import SIGLIPS, SiglipText, SiglipVision
from memejax.weights import checkpoint, inspect
from memejax.weights.configs import TwoTowersError, read_config
from memejax.weights.convert import to_tensors, to_variables

FORMS = {"image": "siglip_vision", "text": "siglip_text"}
CONFIG = {
    "model_type": "siglip",
    "vision_config": {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "patch_size": 4,
        "image_size": 14,
    },
    "text_config": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 28,
        "vocab_size": 50,
        "max_position_embeddings": 8,
        "projection_size": 20,
    },
}


@functools.cache
def golden():
    """Golden case, tensors of the file, and the sizes of both towers."""
    with np.load(GOLDEN / "siglip.npz") as file:
        case = dict(file)
    tensors = {k[7:]: v for k, v in case.items() if k.startswith("tensor/")}
    return case, tensors, json.loads(str(case["sizes"]))


def tower(which):
    """Golden case, module and variables of one tower."""
    case, tensors, sizes = golden()
    kind = SiglipVision if which == "image" else SiglipText
    form = f"huggingface {FORMS[which]}"
    variables, _ = to_variables(tensors, form=form, sizes=sizes[which])
    return case, kind(**sizes[which]), variables


@functools.partial(jax.jit, static_argnames=("module", "method"))
def run(variables, *inputs, module, method=None):
    return module.apply(variables, *inputs, method=method, train=False)


@pytest.mark.parametrize("side", ["same", "larger"])
def test_pictures_agree_with_transformers(side):
    """Of 14 and 20 x 26 pixels, which are not whole patches of 4."""
    case, module, variables = tower("image")
    images = case[f"images/{side}"]
    tokens = run(variables, images, module=module, method="tokens")
    assert relative(tokens, case[f"tokens/{side}"]) < 1e-5
    pooled = run(variables, images, module=module)
    assert relative(pooled, case[f"pooled/{side}"]) < 1e-5
    shared = module.apply(variables, pooled, method="project")
    np.testing.assert_array_equal(shared, pooled)


def test_captions_agree_with_transformers():
    case, module, variables = tower("text")
    ids, mask = case["ids"], case["mask"]
    tokens = run(variables, ids, mask, module=module)
    assert relative(tokens, case["tokens"]) < 1e-5
    pooled = module.pool(tokens, mask, pooling="mean")
    projected = module.apply(variables, pooled, method="project")
    assert relative(projected, case["projected"]) < 1e-5


def test_padding_is_read():
    """SigLIP attends to it, and pools the last position, whatever the mask."""
    case, module, variables = tower("text")
    ids, mask = case["ids"], case["mask"]
    before = run(variables, ids, mask, module=module)
    np.testing.assert_array_equal(
        before, run(variables, ids, np.ones_like(mask), module=module)
    )
    other = ids.copy()
    other[1, 5:] = 0
    after = run(variables, other, mask, module=module)
    assert np.abs(before[1, -1] - after[1, -1]).max() > 1e-3
    with pytest.raises(ValueError, match="got 7 tokens, expected captions padded to 8"):
        module.apply(variables, ids[:, :7], mask[:, :7], train=False)
    with pytest.raises(ValueError, match="got 9 tokens, expected at most 8"):
        module.apply(variables, *[np.ones((1, 9), int)] * 2, train=False)


def test_pictures_below_one_patch():
    _, module, variables = tower("image")
    with pytest.raises(ValueError, match=r"got images \[1, 3, 9, 3\], expected sides"):
        module.apply(variables, np.zeros((1, 3, 9, 3), np.float32), train=False)
    with pytest.raises(ValueError, match="images of 3 pixels are smaller than a patch"):
        module.for_images(3)


@pytest.mark.parametrize(
    "name, expected", [("siglip_base_16", 203_155_970), ("siglip_so400m_14", None)]
)
def test_published_sizes(name, expected):
    """Parameters of both towers, temperature and bias: google/siglip-base-patch16-224.

    The so400m of 384 pixels has 729 tokens, and 6 pixels beyond its patches.
    """
    total = 2
    image, caption = SIGLIPS[name]
    size = 224 if expected else 384
    for module in (SiglipVision(**image).for_images(size), SiglipText(**caption)):
        init = functools.partial(module.init, jax.random.key(0), train=False)
        shapes = jax.eval_shape(init, *module.smallest_inputs())
        total += sum(x.size for x in jax.tree.leaves(shapes))
    if expected:
        assert total == expected
    else:
        grid = SiglipVision(**image).for_images(size).grid
        assert grid**2 == 729


def tokenizer():
    """SigLIP's kind of tokenizer with as many words as the golden word table."""
    words = ["<pad>", "</s>", "<unk>", "▁a", "▁cat", "▁sat", "▁A", "▁c,at"]
    words += [f"w{i}" for i in range(len(words), 50)]
    vocab = {word: i for i, word in enumerate(words)}
    made = Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return made


def write(folder, *, kind="SiglipTokenizer", drop=(), config=CONFIG, words=True):
    """A folder as `SiglipModel.save_pretrained` and its processor write it."""
    folder.mkdir(parents=True)
    _, tensors, _ = golden()
    kept = {k: v for k, v in tensors.items() if k not in drop}
    save_file(kept, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    if words:
        tokenizer().save(str(folder / "tokenizer.json"))
        settings = {"tokenizer_class": kind, "pad_token": {"content": "</s>"}}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    content = {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"height": 14, "width": 14},
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return folder


def test_a_folder_of_both_towers(tmp_path):
    folder = write(tmp_path / "siglip")
    with pytest.raises(TwoTowersError, match="it is a SigLIP of pictures and captions"):
        checkpoint.open_checkpoint(folder)
    _, tensors, sizes = golden()
    for which, name in FORMS.items():
        loaded = checkpoint.load(folder, tower=which)
        assert loaded.architecture.name == name
        activation = {"activation": "gelu_pytorch_tanh"}
        assert loaded.architecture.sizes == sizes[which] | activation
        form = f"huggingface {name}"
        expected, _ = to_variables(tensors, form=form, sizes=sizes[which])
        assert_trees_equal(loaded.variables, expected)
    image = checkpoint.open_checkpoint(folder, tower="image")
    assert image.preprocessing == ((0.5,) * 3, (0.5,) * 3, 14, "square_bicubic")
    same = checkpoint.load(folder, tower="image", grid=3)
    assert same.preprocessing is not None and same.preprocessing.size == 14
    larger = checkpoint.load(folder, tower="image", grid=5)
    assert larger.variables["params"]["positions"].shape == (25, 24)
    flags = inspect.describe(str(folder))["flags"]
    assert [flag.split("=")[0] for flag in flags] == [
        "--config.weights.image_vit",
        "--config.weights.text",
    ]


def test_folders_that_are_refused(tmp_path):
    bare = write(tmp_path / "bare", words=False)
    with pytest.raises(ValueError, match="siglip tower without its tokenizer"):
        checkpoint.open_checkpoint(bare, tower="text")
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="siglip tower without preprocessor_config"):
        checkpoint.open_checkpoint(bare, tower="image")
    vision = CONFIG["vision_config"] | {"vision_use_head": False}
    headless = write(tmp_path / "headless", config=CONFIG | {"vision_config": vision})
    with pytest.raises(ValueError, match="got vision_use_head False.*expected True"):
        checkpoint.open_checkpoint(headless, tower="image")
    torn = write(tmp_path / "torn", drop=["vision_model.head.attention.in_proj_bias"])
    with pytest.raises(ValueError, match="1 missing: vision_model.head.attention.in_p"):
        checkpoint.load(torn, tower="image")
    with pytest.raises(ValueError, match="got model_type 'siglip2', expected one of"):
        # Its pictures keep their shape.
        read_config({"model_type": "siglip2"}, tower="image")


@pytest.mark.parametrize("which", FORMS)
def test_saved_towers_come_back(tmp_path, which):
    _, tensors, _ = golden()
    _, module, variables = tower(which)
    architecture = export.encoders.architecture(module)
    folder = tmp_path / "tower"
    how = checkpoint.Preprocessing((0.5,) * 3, (0.5,) * 3, 14, "square_bicubic")
    checkpoint.save(folder, architecture, variables, preprocessing=how)
    tokenizer().save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == f"{FORMS[which]}_model"
    again = checkpoint.load(folder)
    assert again.architecture == architecture
    assert_trees_equal(again.variables, variables)
    start = "vision_model." if which == "image" else "text_model."
    written = load_file(folder / "model.safetensors")
    assert set(written) == {k for k in tensors if k.startswith(start)}
    for name, value in written.items():
        np.testing.assert_array_equal(value, tensors[name])
    # transformers in memory leaves the first part out.
    short = {k.removeprefix(start): v for k, v in written.items()}
    form = f"huggingface {FORMS[which]}"
    sizes = golden()[2][which]
    assert_trees_equal(to_variables(short, form=form, sizes=sizes)[0], variables)


def test_to_tensors_stacks_the_probe_s_queries_keys_and_values():
    _, tensors, sizes = golden()
    _, _, variables = tower("image")
    form = "huggingface siglip_vision"
    again = to_tensors(variables, form=form, sizes=sizes["image"])
    name = "vision_model.head.attention.in_proj_weight"
    pool = variables["params"]["pool"]["attention"]
    stacked = [np.asarray(pool[k]["kernel"]).T for k in ("query", "key", "value")]
    np.testing.assert_array_equal(again[name], np.concatenate(stacked))
    np.testing.assert_array_equal(again[name], tensors[name])


def test_gradients_reach_every_parameter():
    case, vision, image = tower("image")
    _, caption, words = tower("text")

    def loss(params, module, *inputs):
        out = module.apply({"params": params}, *inputs, train=False)
        if module is caption:
            pooled = module.pool(out, inputs[1], pooling="cls")
            out = module.apply({"params": params}, pooled, method="project")
        return jnp.sum(out**2)

    for module, tree, inputs in (
        (vision, image, (case["images/same"],)),
        (caption, words, (case["ids"], case["mask"])),
    ):
        found = jax.grad(loss)(tree["params"], module, *inputs)
        for path, leaf in jax.tree_util.tree_leaves_with_path(found):
            name = jax.tree_util.keystr(path)
            assert np.isfinite(leaf).all()
            # A constant on all keys cancels in the softmax.
            if "['key']['bias']" not in name:
                assert np.abs(leaf).max() > 1e-6, name


def test_captions_as_siglip_prepares_them(tmp_path):
    """Lower case without punctuation, padded by </s>; SigLIP2 keeps punctuation."""
    first = text.load_tokenizer(str(write(tmp_path / "one")))
    found = text.encode(first, ["  A   c,at, SAT!"], length=8)
    assert found.input_ids[0].tolist() == [3, 4, 5, 1, 1, 1, 1, 1]
    assert found.attention_mask[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    second = text.load_tokenizer(str(write(tmp_path / "two", kind="GemmaTokenizer")))
    assert text.encode(second, ["A c,at"], length=4).input_ids[0].tolist() == [
        *(3, 7, 1, 1)
    ]
    # What a run saves beside itself needs no further file.
    text.save_tokenizer(first, str(tmp_path / "saved"))
    again = text.load_tokenizer(str(tmp_path / "saved"))
    assert text.encode(again, ["A cat"], length=4).input_ids[0].tolist() == [3, 4, 1, 1]


def test_the_probe_s_attention():
    """A map per head over whole patches, which sums to 1."""
    case, module, variables = tower("image")
    maps = explain.probe_attention(
        module.apply, variables, images_bhwc=case["images/larger"], patch=4
    )
    assert maps.shape == (2, 3, 5, 6)
    np.testing.assert_allclose(maps.sum(axis=(2, 3)), 1, rtol=1e-5)
    # By hand: the softmax of scaled products of the probe and the tokens.
    tokens = run(variables, case["images/larger"], module=module, method="tokens")
    pool = variables["params"]["pool"]
    q = pool["probe"] @ pool["attention"]["query"]["kernel"]
    q = (q + pool["attention"]["query"]["bias"])[0].reshape(3, 8)
    k = np.asarray(tokens, np.float64) @ pool["attention"]["key"]["kernel"]
    k = (k + pool["attention"]["key"]["bias"]).reshape(2, 30, 3, 8)
    logits = np.einsum("ne,btne->bnt", q, k) / np.sqrt(8)
    weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(maps.reshape(2, 3, 30), weights, rtol=1e-4)


def test_a_run_from_a_siglip(tmp_path):
    """Both towers from one folder; captions have the length that SigLIP pools at."""
    folder = write(tmp_path / "siglip")
    config = tiny(
        **{
            "arms": ("vit",),
            "stages": ("finetune", "evaluate"),
            "weights.image_vit": str(folder),
            "weights.text": str(folder),
            # Two pixels more than whole patches.
            "data.image_size": 18,
            "data.resize": "checkpoint",
            "data.text_length": 5,
            "finetune.steps": 2,
            "finetune.eval_every": 2,
            "finetune.optimizer.warmup": 1,
        }
    )
    train.run(config, tmp_path / "run")
    saved = json.loads((tmp_path / "run/config.json").read_text())
    assert saved["model"]["image"]["vit"]["name"] == "siglip_vision"
    assert saved["model"]["text"]["name"] == "siglip_text"
    assert saved["data"]["text_length"] == 8
    assert saved["data"]["image_size"] == 18
    assert saved["data"]["resize"] == "square_bicubic"
    predictor = predict.load_predictor(tmp_path / "run")
    pictures = np.zeros((2, 18, 18, 3), np.uint8)
    proba = predictor.predict(pictures, ["a cat", "a"])
    assert np.isfinite(proba).all() and proba[0] != proba[1]
    export.export(tmp_path / "run", tmp_path / "out")
    for part, name in (
        ("image_encoder", "siglip_vision"),
        ("text_encoder", "siglip_text"),
    ):
        exported = json.loads((tmp_path / f"out/vit/{part}/config.json").read_text())
        assert exported["model_type"] == f"{name}_model"
