"""The benchmark of training steps: both sides compute the same."""

import json
import pathlib
import warnings

import jax
import numpy as np
import pytest

from memejax import weights
from memejax.bench.train_step import __main__ as program
from memejax.bench.train_step import ours
from memejax.bench.train_step.cases import CASES
from memejax.bench.train_step.problem import check_parameters, data, problem


@pytest.fixture
def peer():
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        # transformers and torch warn of what they themselves import.
        warnings.simplefilter("ignore")
        pytest.importorskip("transformers")
        from memejax.bench.train_step import peer
    # Threads that wait for such small work take more time than it.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield peer
    torch.set_num_threads(before)


def run(monkeypatch, *options):
    monkeypatch.setattr("sys.argv", ["train_step", *options])
    program.main()


def test_parameters_of_the_published_sizes():
    """DistilBERT's and ViT-B/16's for 384 pixels, and a logit on 768 features."""
    assert ours.parameters(problem("text", "small")) == 66_362_880 + 769
    assert ours.parameters(problem("vit", "paper")) == 86_090_496 + 769


@pytest.mark.parametrize("case", CASES)
def test_both_sides_have_as_many_parameters(peer, case):
    given = problem(case, "tiny")
    theirs = peer.Trainer(given, device="cpu").parameters
    assert ours.parameters(given) == theirs


def dense(layer):
    weight, bias = (p.detach().numpy() for p in (layer.weight, layer.bias))
    return {"kernel": weight.T, "bias": bias}


def encoder(module, folder):
    module.model.save_pretrained(folder)
    return weights.load(folder).variables


def cass_variables(network, folder):
    """Our variables of both arms."""
    params, stats = {}, {}
    for name in ("cnn", "vit"):
        arm = getattr(network, name)
        image = encoder(arm.image_encoder, folder / f"{name} image")
        text = encoder(arm.text_encoder, folder / f"{name} text")
        layers = "image_head vision_adder language_adder fusion_layer".split()
        params[f"arms_{name}"] = {
            "image_encoder": image["params"],
            "text_encoder": text["params"],
            **{layer: dense(getattr(arm, layer)) for layer in layers},
            "fc": dense(arm.top),
        }
        if "batch_stats" in image:
            stats[f"arms_{name}"] = {"image_encoder": image["batch_stats"]}
    return {"params": params, "batch_stats": stats}


def test_same_weights_same_losses(peer, tmp_path):
    given = problem("cass_mm", "tiny")
    theirs = peer.Trainer(given, device="cpu")
    start = jax.tree.map(np.array, cass_variables(theirs.network, tmp_path))
    mine = ours.Trainer(given, variables=start)
    for _ in range(4):
        mine.run(1)
        theirs.run(1)
    expected = np.array(theirs.losses)
    assert np.abs(mine.losses - expected).max() <= 1e-5 * expected.max()
    # The last of them come of updated weights.
    assert np.ptp(expected) > 1e-3


def test_products_are_counted(monkeypatch, tmp_path, capsys):
    """Our side alone, on the command line."""
    out = tmp_path / "out.json"
    options = "--case=text --size=tiny --steps=2 --pairs=3 --no-peer".split()
    run(monkeypatch, *options, f"--out={out}")
    assert "timing only our side" in capsys.readouterr().out
    found = json.loads(out.read_text("utf-8"))["text"]
    # A layer's maps and attention, tokens x (4 d^2 + 2 d m + 2 t d); the head; a
    # multiply-add is two, and two gradients cost twice as much as going forward.
    tokens, d, m, t = 4 * 8, 16, 32, 8
    forward = tokens * (4 * d * d + 2 * d * m + 2 * t * d) + 4 * d
    assert found["FLOPs a step"] == 3 * 2 * forward
    rate = np.median(found["ours"]) / 4 * 3 * 2 * forward
    share = rate / found["FLOP/s of the device"]["product"]
    assert found["share"]["product"] == {"ours": pytest.approx(share)}
    assert len(found["ours"]) == 3 and "peer" not in found
    losses = found["loss"]["ours"]
    assert len(losses) == 4 and losses == sorted(losses, reverse=True)


def test_both_sides(peer, monkeypatch, tmp_path, capsys):
    out = tmp_path / "out.json"
    options = "--case=text --size=tiny --steps=1 --pairs=2".split()
    run(monkeypatch, *options, f"--out={out}")
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("text  captions/s")
    result = json.loads(out.read_text("utf-8"))
    assert result["machine"]["cores"] and result["environment"]["packages"]["jax"]
    found = result["text"]
    assert (found["batch"], found["tokens"], found["dtype"]) == (4, 8, "float32")
    assert found["parameters"]["ours"] == found["parameters"]["peer"]
    assert found["peer is"]["torch"] and found["peer is"]["threads"] >= 1
    assert found["compile seconds"]["ours"] > 0 < found["first step seconds"]["peer"]
    assert set(found["share"]["product"]) == {"ours", "peer"}
    assert set(found["peak memory"]) == {"ours", "peer"}
    assert found["ratio_low"] <= found["ratio"] <= found["ratio_high"]
    for side in ("ours", "peer"):
        losses = found["loss"][side]
        assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_cases_run_in_processes_of_their_own(monkeypatch, tmp_path, capsys):
    commands = []

    def in_a_process(command, **_):
        if command[0] == "git":
            raise FileNotFoundError
        *shared, out, flag, case = command[3:]
        commands.append((shared, flag, case))
        figures = {"unit": "images/s", "ours": [2.0], "share": {"product": {}}}
        path = pathlib.Path(out.removeprefix("--out="))
        path.write_text(json.dumps({case: figures}), "utf-8")

    monkeypatch.setattr(program.subprocess, "run", in_a_process)
    options = ["--case", "vit", "resnet", "--steps=1"]
    run(monkeypatch, *options)
    assert commands == [(options, "--case", "vit"), (options, "--case", "resnet")]
    assert capsys.readouterr().out.count("images/s  2 ") == 2


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(case="bert"), "expected one of"),
        (dict(size="huge"), "expected one of"),
        (dict(dtype="float16"), "expected one of"),
        (dict(batch=1), "at least 2"),
        (dict(pixels=100), "multiple of the patch of 16"),
        (dict(tokens=513), "expected 1 to 512"),
    ],
)
def test_what_does_not_fit(wrong, message):
    with pytest.raises(ValueError, match=message):
        problem(**(dict(case="vit", size="small") | wrong))


def test_different_sizes_are_an_error():
    check_parameters("vit", {"ours": 3, "peer": 3})
    with pytest.raises(ValueError, match="ours has 3 parameters, the peer 4"):
        check_parameters("vit", {"ours": 3, "peer": 4})


def test_batches():
    batch = data(problem("cass_mm", "tiny"))
    assert batch["image"].shape == (4, 32, 32, 3)
    assert batch["attention_mask"].sum(1).tolist() == [8, 4, 8, 4]
    crops = data(problem("dino", "tiny", pixels=48))["crops"]
    assert crops.shape == (2, 4, 48, 48, 3) and (crops[0] != crops[1]).all()
