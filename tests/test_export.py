"""An exported run, read by what its card says, with and without memejax."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import warnings

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from memejax import export as package
from memejax import predict
from memejax.config import load_config
from memejax.data import text
from memejax.data.hateful_memes import read_jsonl
from memejax.export import encoders, program
from memejax.export import folder as folders
from memejax.models import distilbert, resnet
from memejax.parallel import xla
from memejax.stages.parts.models import fusion_arms
from memejax.weights import checkpoint
from memejax.weights.configs import MODULES

pytest.importorskip("flatbuffers")

ENCODERS = [
    "cnn/image_encoder",
    "cnn/text_encoder",
    "vit/image_encoder",
    "vit/text_encoder",
]
# 17 tokens with [CLS] and [SEP], cut to 16; few; unknown; none.
CAPTIONS = ["window " * 15, "very morning", "quetzal basket", ""]


def assert_close(got, expected, tolerance=1e-5):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    to = tmp_path_factory.mktemp("export") / "whole"
    return to, package.export(finished[0], to)


@pytest.fixture(scope="module")
def restored(finished):
    return predict.restore(finished[0])


@pytest.fixture(scope="module")
def memes(finished):
    """Pictures and captions, and P(hateful) as `predict` has it."""
    root = finished[0] / "memes"
    found = read_jsonl(str(root / "dev_seen.jsonl"), root=str(root), split="dev_seen")
    memes = found[0][:2]
    predictor = predict.load_predictor(finished[0])
    pictures, _ = predictor.read([meme.image for meme in memes])
    captions = [meme.text for meme in memes]
    return memes, pictures, captions, predictor.predict(pictures, captions)


def own(folder):
    """Variables under memejax's own names."""
    return traverse_util.unflatten_dict(
        load_file(folder / "model.safetensors"), sep="/"
    )


def test_everything_is_there_bitwise(exported, restored):
    to, parts = exported
    assert [part.path for part in parts[:4]] == ENCODERS
    assert [part.kind for part in parts[:4]] == [
        "memejax",
        "distilbert",
        "vit",
        "distilbert",
    ]
    assert "no class" in parts[0].what
    found = dict(load_file(to / "classifier.safetensors"))
    for part in parts[:4]:
        arm, name = part.path.split("/")
        folder = to / part.path
        variables = (
            own(folder) if part.kind == "memejax" else checkpoint.load(folder).variables
        )
        for path, leaf in traverse_util.flatten_dict(variables, sep="/").items():
            collection, _, rest = path.partition("/")
            found[f"{collection}/arms_{arm}/{name}/{rest}"] = leaf
    expected = traverse_util.flatten_dict(dict(restored.variables), sep="/")
    assert found.keys() == expected.keys()
    with np.load(to / "predictor" / "predictor.npz") as weights:
        assert set(weights) == set(expected)
        for name, leaf in expected.items():
            np.testing.assert_array_equal(found[name], leaf)
            np.testing.assert_array_equal(weights[name], leaf)
    # Nobody else's folder is unreadable for having come out of an export.
    modes = {path.stat().st_mode & 0o777 for path in to.rglob("*") if path.is_file()}
    assert len(modes) == 1


def test_script_without_memejax(exported, memes, tmp_path):
    to = exported[0]
    _, pictures, captions, expected = memes
    (tmp_path / "memejax.py").write_text("raise ImportError")
    np.save(tmp_path / "images.npy", pictures)
    tokenizer = Tokenizer.from_file(str(to / "tokenizer" / "tokenizer.json"))
    tokens = tokenizer.encode_batch(captions)
    (tmp_path / "tokens.json").write_text(
        json.dumps(
            {
                "input_ids": [t.ids for t in tokens],
                "attention_mask": [t.attention_mask for t in tokens],
            }
        )
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [
            sys.executable,
            str(to / "predictor" / "run_predictor.py"),
            "images.npy",
            "tokens.json",
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    got = [float(line) for line in done.stdout.split()]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_predictor_says_what_it_is(exported, restored):
    where = exported[0] / "predictor"
    about = json.loads((where / "predictor.json").read_text())
    shapes = {i["name"]: (i["shape"], i["dtype"]) for i in about["inputs"][1:]}
    assert shapes == {
        "image": (["b", 24, 24, 3], "uint8"),
        "input_ids": (["b", 16], "int32"),
        "attention_mask": (["b", 16], "int32"),
    }
    assert about["output"] == {
        "name": "P(hateful)",
        "shape": ["b"],
        "dtype": "float32",
    }
    assert about["platforms"] == ["cpu", "cuda"]
    assert about["threshold"] == restored.threshold("average")
    for name, digest in about["sha256"].items():
        done = subprocess.run(
            ["sha256sum", where / name], capture_output=True, text=True, check=True
        )
        assert done.stdout.split()[0] == digest


def test_layers_join_as_written(exported, memes):
    """The parts alone, put together in numpy by classifier.json."""
    to = exported[0]
    _, pictures, captions, expected = memes
    how = json.loads((to / "classifier.json").read_text())
    layers = load_file(to / "classifier.safetensors")
    tokenizer = text.load_tokenizer(str(to / "tokenizer"))
    tokens = text.encode(tokenizer, captions, length=how["text_length"])

    def dense(x, arm, name):
        at = f"params/arms_{arm}/{name}"
        return x @ layers[f"{at}/kernel"].astype(np.float64) + layers[f"{at}/bias"]

    def norm(x, arm, name):
        at = f"params/arms_{arm}/{name}"
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * layers[f"{at}/scale"] + layers[f"{at}/bias"]

    proba = []
    for arm in how["arms"]:
        given = {k: np.float32(v) for k, v in how["normalization"][arm].items()}
        pixels = (np.float32(pictures) / 255 - given["mean"]) / given["std"]
        features = []
        for part, inputs in (
            ("image_encoder", (pixels,)),
            ("text_encoder", (tokens.input_ids, tokens.attention_mask)),
        ):
            module, variables = module_of(to / arm / part)
            apply = jax.jit(
                lambda v, *x, module=module: module.apply(v, *x, train=False)
            )
            features.append(np.asarray(apply(variables, *inputs), np.float64))
        v = norm(dense(features[0], arm, "vision_adder"), arm, "vision_norm")
        u = norm(dense(features[1][:, 0], arm, "language_adder"), arm, "language_norm")
        assert how["arm"]["fusion"] == "product"
        f = np.maximum(dense(u * v, arm, "fusion_layer"), 0)
        proba.append(1 / (1 + np.exp(-dense(f, arm, "classifier/logit")[:, 0])))
    np.testing.assert_allclose(np.mean(proba, 0), expected, rtol=0, atol=1e-6)


def module_of(folder):
    """An encoder and its variables, from its folder."""
    made = json.loads((folder / "config.json").read_text())
    if made["model_type"] == "memejax":
        return resnet.ResNet(**made["memejax"]["attributes"]), own(folder)
    loaded = checkpoint.load(folder)
    kind = MODULES[loaded.architecture.name]
    return kind(**loaded.architecture.sizes), loaded.variables


def transformers():
    with warnings.catch_warnings():
        # transformers warns of what it itself imports.
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers")


def test_tokenizer_for_transformers(exported, restored):
    to = exported[0]
    expected = text.encode(restored.tokenizer, CAPTIONS, length=16)
    assert expected.truncated == 1
    for folder in ("tokenizer", "cnn/text_encoder"):
        tokenizer = transformers().AutoTokenizer.from_pretrained(to / folder)
        tokens = tokenizer(CAPTIONS, padding="max_length", truncation=True)
        assert set(tokens) == {"input_ids", "attention_mask"}
        np.testing.assert_array_equal(tokens["input_ids"], expected.input_ids)
        np.testing.assert_array_equal(tokens["attention_mask"], expected.attention_mask)
        assert tokenizer.mask_token_id == restored.tokenizer.token_to_id("[MASK]")


def test_transformers_computes_the_same(exported, restored, memes, tmp_path):
    torch = pytest.importorskip("torch")
    hub = transformers()
    to, parts = exported
    pixels = np.random.default_rng(0).normal(size=(3, 24, 24, 3)).astype(np.float32)
    tokens = text.encode(restored.tokenizer, CAPTIONS, length=16)
    ids, mask = tokens.input_ids, tokens.attention_mask
    # A ResNet with the stem that transformers knows.
    module = resnet.ResNet(stage_sizes=[1, 1], bottleneck=False, width=4)
    variables = jax.jit(lambda key, x: module.init(key, x, train=False))(
        jax.random.key(0), pixels
    )
    how = encoders.preprocessing(restored.config, "cnn")
    one = encoders.Encoder("arm", "image_encoder", module, variables, how)
    paths = {to / part.path: part.kind for part in parts if part.path in ENCODERS[1:3]}
    paths[tmp_path / "arm/image_encoder"] = encoders.write_encoder(tmp_path, one).kind
    assert list(paths.values()) == ["distilbert", "vit", "resnet"]
    for path, kind in paths.items():
        option = {"add_pooling_layer": False} if kind == "vit" else {}
        theirs = hub.AutoModel.from_pretrained(path, **option).eval()
        ours, ours_variables = module_of(path)
        inputs = (ids, mask) if kind == "distilbert" else (pixels,)
        got = jax.jit(lambda v, *x, ours=ours: ours.apply(v, *x, train=False))(
            ours_variables, *inputs
        )
        with torch.no_grad():
            if kind == "distilbert":
                out = theirs(
                    torch.tensor(ids).long(), torch.tensor(mask)
                ).last_hidden_state
                # What stands on padding has no meaning.
                out, got = out.numpy() * mask[:, :, None], got * mask[:, :, None]
            else:
                out = theirs(torch.tensor(pixels.transpose(0, 3, 1, 2)))
                out = (
                    out.last_hidden_state[:, 0]
                    if kind == "vit"
                    else out.pooler_output[:, :, 0, 0]
                ).numpy()
        assert_close(got, out)


def test_card(exported, finished, memes, tmp_path, monkeypatch):
    to = exported[0]
    card = (to / "README.md").read_text("utf-8")
    front = card.split("---\n")[1]
    fields = dict(line.split(": ", 1) for line in front.splitlines())
    assert fields.keys() == {"library_name", "pipeline_tag", "license", "tags"}
    assert fields["license"] == '"apache-2.0"'
    results = finished[1]
    for split, rows in results["seeds"]["0"]["evaluate"]["splits"].items():
        assert (
            f"| {split} | {rows['average']['n']} | {rows['average']['positives']} ("
            in (card)
        )
        for arm in ("cnn", "vit", "average"):
            r = rows[arm]
            assert (
                f"| {arm} | {r['auroc']:.4f} [{r['auroc_low']:.3f}, "
                f"{r['auroc_high']:.3f}] | {r['accuracy']:.4f} | "
                f"{r['threshold_accuracy']:.4f} | {r['f1']:.4f} |"
            ) in card
    assert "| constant | 0.5000 |" in card
    assert "of no use on real memes" in card
    assert "multimodal_cass (" in card and "12 updates of 16 memes" in card
    assert str(finished[0]) not in card
    # The code on the card runs in the folder, but for what needs PyTorch.
    monkeypatch.chdir(to)
    first, pictures, captions, expected = memes
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 4
    names = {}
    meme = f'[({first[0].image!r}, "{captions[0]}")]'
    block = blocks[0].replace('[("meme.png", "its caption")]', meme)
    assert block != blocks[0]
    exec(block, names)
    np.testing.assert_allclose(names["proba"], expected[:1], rtol=0, atol=1e-6)
    exec(blocks[2], names)
    assert names["encoder"].stem == "patch4" and "batch_stats" in names["variables"]
    exec(blocks[3], names)
    assert "params/arms_vit/fusion_layer/kernel" in names["layers"]


def test_other_precision(exported, restored):
    written = (exported[0] / "predictor" / program.PROGRAM).read_bytes()
    whole = jax.export.deserialize(bytearray(written))
    half = program.make_program(restored, precision="bfloat16")
    assert "xbf16" in half.mlir_module() and "xbf16" not in whole.mlir_module()
    for made in (half, whole):
        # The weights stay as they are.
        kinds = {aval.dtype.name for aval in made.in_avals}
        assert kinds == {"float32", "int32", "uint8"}


@pytest.fixture(scope="module")
def demo(restored):
    """The classifier that the demo trains, before its first update."""
    config = load_config("configs/cass_mm.py:demo")
    config.data.image_size, config.data.text_length = 64, 12
    arms = fusion_arms(config, restored.tokenizer.get_vocab_size())
    images = jnp.zeros((2, 64, 64, 3))
    tokens = {
        name: jnp.ones((2, 12), jnp.int32) for name in ("input_ids", "attention_mask")
    }

    def init(key):
        views = {arm: {"image": images, **tokens} for arm in config.arms}
        return arms.init(key, views, train=False, method="classify")

    made = jax.jit(init, compiler_options=xla.RUN_ONCE)(jax.random.key(0))
    variables = jax.tree.map(np.asarray, made)
    return dataclasses.replace(restored, config=config, variables=variables)


@pytest.mark.parametrize("size", [1, 7, 32])
def test_program_of_the_demo_takes_any_batch(demo, demo_program, size):
    """Its convolutions are chosen by the batch's size, which a program leaves open."""
    rng = np.random.default_rng(size)
    pictures = rng.integers(0, 256, (size, 64, 64, 3), np.uint8)
    captions = [" ".join(rng.choice(["window", "basket"], 5)) for _ in range(size)]
    expected = predict.make_predictor(demo).predict(pictures, captions)
    tokens = text.encode(demo.tokenizer, captions, length=12)
    got = demo_program.call(
        program.flatten(demo.variables),
        pictures,
        tokens.input_ids,
        tokens.attention_mask,
    )
    assert size == 1 or np.ptp(expected) > 1e-4
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def demo_program(demo):
    written = program.make_program(demo, precision="float32").serialize()
    return jax.export.deserialize(bytearray(written))


def test_nothing_half_written(finished, tmp_path, monkeypatch):
    to = tmp_path / "to"
    with pytest.raises(ValueError, match="unknown precision 'int8'"):
        package.export(finished[0], to, precision="int8")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        package.export(finished[0], tmp_path / "file")
    to.mkdir()
    (to / "mine.txt").touch()
    for overwrite, match in ((False, "not empty"), (True, "only an earlier export")):
        with pytest.raises(ValueError, match=match):
            package.export(finished[0], to, overwrite=overwrite)
    (to / "mine.txt").rename(to / folders.MARK)

    def write(where, *_):
        (where / "new").touch()
        return []

    def fail(where, *_):
        write(where)
        raise RuntimeError("disk full")

    monkeypatch.setattr(folders, "restore", lambda *_, **__: None)
    monkeypatch.setattr(folders, "_write", fail)
    with pytest.raises(RuntimeError):
        package.export(finished[0], to, overwrite=True)
    assert [path.name for path in to.iterdir()] == [folders.MARK]
    monkeypatch.setattr(folders, "_write", write)
    package.export(finished[0], to, overwrite=True)
    assert [path.name for path in to.iterdir()] == ["new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "to"]


def test_encoders_that_are_shared_or_absent(restored):
    config = restored.config.copy_and_resolve_references()
    config.model.share_text = True
    kernel = jnp.ones((2, 2))
    layer = {"fc": {"kernel": kernel}}
    variables = {
        "params": {
            "arms_cnn": {"text_encoder": {"words": kernel}, **layer},
            "arms_vit": layer,
        },
        "batch_stats": {},
    }
    found, rest = encoders.split(config, variables, vocabulary=300)
    assert [one.path for one in found] == ["cnn/text_encoder", "vit/text_encoder"]
    for one in found:
        assert one.variables["params"]["words"] is kernel
    assert list(rest) == ["params/arms_cnn/fc/kernel", "params/arms_vit/fc/kernel"]


def test_no_class_for_it():
    make = distilbert.DistilBert
    assert encoders.architecture(make(eps=1e-6)) is None
    assert encoders.architecture(make()).name == "distilbert"
    found = encoders.architecture(resnet.ResNet(stage_sizes=[2, 1]))
    assert found.sizes == {"stage_sizes": (2, 1), "bottleneck": True, "width": 64}
    assert encoders.architecture(resnet.ResNet(stem="cifar")) is None
