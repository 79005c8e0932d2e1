"""Classifiers of small pictures under a curriculum: all seeds in one program."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import ROOT, shrunk

from memejax import augment, curriculum, folder, logs, report, steps, train
from memejax.checkpoint import Checkpoints
from memejax.config import load_config
from memejax.datasets import labelled
from memejax.reproduce.study.command import base_config
from memejax.stages import classify
from memejax.stages.parts.small_classifier import make_classifier

TINY = {
    "seeds": 2,
    "data.train": 96,
    "data.validation": 40,
    "data.test": 50,
    "model.perceptron.hidden": (16,),
    "train.steps": 12,
    "train.batch": 8,
    "train.eval_every": 4,
    "curriculum.warmup": 3,
    "curriculum.refresh": 4,
    "curriculum.passes": 3,
    "checkpoint.every": 6,
    "log.every": 6,
}


def tiny(network="perceptron", **changes):
    config = load_config(str(ROOT / f"configs/curriculum.py:network={network}"))
    return shrunk(config, TINY, **changes)


def kind(name, **changes):
    section = {f"curriculum.{leaf}": value for leaf, value in changes.items()}
    return tiny(**{"curriculum.kind": name, **section})


@functools.cache
def template():
    """A state of two seeds, as every kind of curriculum has it."""
    config = tiny()
    data, mesh = classify.load(config, None), classify.devices(config)
    return classify.make(config, data, seed=0, mesh=mesh).abstract


def last_params(where):
    """The parameters of the last checkpoint, with a leading axis of seeds."""
    with Checkpoints(where / "train/checkpoints", keep=1) as saves:
        return jax.device_get(saves.restore(template(), step=saves.latest).state.params)


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def uniform(tmp_path_factory):
    where = tmp_path_factory.mktemp("uniform")
    return where, train.run(tiny(), where)


def test_results_and_files(uniform, capsys):
    where, results = uniform
    assert json.loads((where / "results.json").read_text()) == results
    curves = folder.read_json(where / "curves.json")
    assert sorted(map(int, curves)) == [4, 8, 12]
    assert curves["12"] == results["errors"]
    assert results["steps"] == 12 and len(results["errors"]["test"]) == 2
    # Of 50 pictures: every error is so many fiftieths.
    fiftieths = 50 * np.array(results["errors"]["test"])
    np.testing.assert_allclose(fiftieths, np.round(fiftieths), atol=1e-5)
    with np.load(where / "scores.npz") as saved:
        assert set(saved) == {"rows", *curriculum.SCORES}
        assert saved["entropy"].shape == (2, 96)
        # The two seeds' networks differ.
        assert (saved["entropy"][0] != saved["entropy"][1]).any()
    train.run(tiny(), where)
    assert "finished" in capsys.readouterr().out


def test_the_page_has_a_window_in_the_profiler(uniform, tmp_path):
    config = tiny(**{"profile.start": 1, "profile.steps": 4})
    train.run(config, tmp_path)
    title = "Where the time went"
    page = (tmp_path / "report.html").read_text("utf-8")
    assert title in page and 'href="train/profile.md"' in page
    assert (tmp_path / "train/profile.md").exists()
    assert title not in (uniform[0] / "report.html").read_text("utf-8")
    # A run that ranks by a baseline of its own has a window there too.
    (tmp_path / "baseline/train").mkdir(parents=True)
    table = (tmp_path / "train/profile.json").read_text("utf-8")
    (tmp_path / "baseline/train/profile.json").write_text(table, "utf-8")
    report.write(tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert 'href="baseline/train/profile.md"' in page


def test_errors_and_scores_are_those_of_the_network_alone(uniform):
    """One seed's network, applied to one picture after another by numpy."""
    where, results = uniform
    params = last_params(where)
    data = classify.load(tiny(), None)
    pixels = data.images.astype(np.float64) / 255
    x = (pixels - pixels[:5000].mean()) / pixels[:5000].std()
    x = x.reshape(len(x), -1)
    first, out = params["hidden0"], params["out"]
    for seed in range(2):
        h = np.maximum(x @ first["kernel"][seed] + first["bias"][seed], 0)
        logits = h @ out["kernel"][seed] + out["bias"][seed]
        wrong = logits.argmax(1) != data.truth
        np.testing.assert_allclose(
            results["errors"]["test"][seed], wrong[data.test].mean(), atol=1e-6
        )
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        entropy = -(np.exp(log_p) * log_p).sum(1)[data.train[seed]]
        with np.load(where / "scores.npz") as saved:
            # Of at most ln 3, in float32.
            np.testing.assert_allclose(
                saved["entropy"][seed], entropy, rtol=1e-5, atol=1e-5
            )
            # The gradient of the last layer for label c is (p - e_c) times (h, 1).
            p, rows = np.exp(log_p), data.train[seed]
            away = np.sqrt(((p[:, None] - np.eye(3)) ** 2).sum(2))
            length = (p * away).sum(1) * np.sqrt((h**2).sum(1) + 1)
            np.testing.assert_allclose(
                saved["gradient_length"][seed],
                length[rows],
                rtol=1e-4,
                atol=1e-5 * length.max(),
            )


def test_a_seed_does_not_depend_on_the_others(uniform, tmp_path):
    """Seed 1 alone is seed 1 of two."""
    where, _ = uniform
    train.run(tiny(seed=1, seeds=1), tmp_path)
    both = last_params(where)
    config = tiny(seed=1, seeds=1)
    data, mesh = classify.load(config, None), classify.devices(config)
    stage = make_classifier(config, data, seeds=[1], mesh=mesh).stage
    with Checkpoints(tmp_path / "train/checkpoints", keep=1) as saves:
        alone = saves.restore(stage.abstract, step=saves.latest).state.params
    for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a[1], b[0], rtol=1e-5, atol=1e-6)


def test_ratio_one_is_the_uniform_run_with_replacement(tmp_path):
    configs = {
        "replacement": kind("replacement"),
        "dsac": kind("dsac", ratio=1.0, score="entropy"),
        "other": kind("dsac", ratio=50.0, score="entropy"),
    }
    params = {}
    for name, config in configs.items():
        train.run(config, tmp_path / name)
        params[name] = last_params(tmp_path / name)
    assert_same(params["replacement"], params["dsac"])
    with pytest.raises(AssertionError):
        assert_same(params["replacement"], params["other"])


def test_bac_of_one_task_is_the_uniform_run(uniform, tmp_path):
    config = kind("bac", tasks=1)
    config.baseline = str(uniform[0])
    results = train.run(config, tmp_path)
    assert results["errors"] == uniform[1]["errors"]
    assert_same(last_params(tmp_path), last_params(uniform[0]))


def test_bac_trains_its_baseline_and_begins_with_the_easy(uniform, tmp_path):
    config = kind("bac", score="loss", tasks=2)
    train.run(config, tmp_path)
    with np.load(tmp_path / "baseline/scores.npz") as saved:
        loss, rows = saved["loss"], saved["rows"]
    with np.load(uniform[0] / "scores.npz") as saved:
        np.testing.assert_array_equal(saved["loss"], loss)
    with Checkpoints(tmp_path / "train/checkpoints", keep=1) as saves:
        data, mesh = classify.load(config, None), classify.devices(config)
        made = make_classifier(
            config, data, seeds=range(2), mesh=mesh, baseline={"loss": loss}
        ).stage
        index = saves.restore(made.abstract, step=12).plan["index"]
    np.testing.assert_array_equal(index, made.feeder.plan.index)
    for seed in range(2):
        seen = np.isin(rows[seed], index[:6, seed])
        assert loss[seed][seen].max() <= np.sort(loss[seed])[47] + 1e-6
    other = kind("bac", score="loss", tasks=2, favour="hard")
    other.baseline = str(uniform[0])
    train.run(other, tmp_path / "hard")
    assert (tmp_path / "hard/train").exists()
    assert not (tmp_path / "hard/baseline").exists()


def test_dsac_draws_by_the_scores_of_then(tmp_path):
    config = kind("dsac", ratio=5.0, favour="hard", score="margin")
    train.run(config, tmp_path)
    lines = [
        line
        for line in logs.read_metrics(tmp_path / "train/metrics.jsonl")
        if line["split"] == "curriculum"
    ]
    assert [line["step"] for line in lines] == [3, 7, 11]
    np.testing.assert_allclose([line["achieved_ratio"] for line in lines], 5, rtol=1e-4)
    with np.load(tmp_path / "train/refreshes/7.npz") as saved:
        u, p = saved["uncertainty"], saved["probs"]
    # Of the model of then, and the harder the likelier: ln p is affine in u.
    slope = np.log(5) / (u.max() - u.min())
    np.testing.assert_allclose(
        np.log(p) - np.log(p.min()), slope * (u - u.min()), atol=1e-3
    )


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, monkeypatch):
    config = kind("dsac", score="bald")
    whole = train.run(config, tmp_path / "whole")
    seen = []
    saved = Checkpoints.save

    def stop_once(self, step, *args, **kwargs):
        saved(self, step, *args, **kwargs)
        if step == 6 and not seen:
            seen.append(step)
            self.wait()
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", stop_once)
    with pytest.raises(KeyboardInterrupt):
        train.run(config, tmp_path / "cut")
    again = train.run(config, tmp_path / "cut")
    assert seen == [6] and again["errors"] == whole["errors"]
    curves = [folder.read_json(tmp_path / w / "curves.json") for w in ("whole", "cut")]
    assert curves[0] == curves[1]
    assert_same(*(last_params(tmp_path / w) for w in ("whole", "cut")))


def test_switch_and_pools_of_geoshapes():
    data = classify.load(tiny(), None)
    assert data.classes == ("rectangle", "ellipse", "triangle")
    assert len(data.images) == 96 + 96 + 40 + 50
    parts = [data.easy, data.train[0], data.validation[0], data.test]
    assert len(set(np.concatenate(parts).tolist())) == len(data.images)
    # Elongation is that of the training pictures trained on: basic ones have none.
    assert np.all(data.difficulty["elongation"][data.easy] == 0)
    assert np.all(data.difficulty["elongation"][data.train[0]] > 0)
    both = classify.load(tiny(**{"data.pool": "union"}), None)
    assert both.train.shape == (2, 192)
    config = kind("switch", switch=5)
    mesh = classify.devices(config)
    made = make_classifier(config, data, seeds=range(2), mesh=mesh)
    index = made.stage.feeder.plan.index
    assert np.isin(index[:5], data.easy).all()
    assert np.isin(index[5:], data.train[0]).all()


def test_label_noise_is_trained_on_and_not_judged_by():
    clean, noisy = (
        classify.load(tiny(**{"data.label_noise": share}), None)
        for share in (0.0, 0.25)
    )
    wrong = noisy.labels != noisy.truth
    assert wrong.sum() == round(0.25 * len(wrong))
    np.testing.assert_array_equal(noisy.truth, clean.labels)
    np.testing.assert_array_equal(noisy.difficulty["wrong label"], wrong)


def mnist(path: pathlib.Path, n=60, tested=20):
    """A folder in MNIST's format."""
    rng = np.random.default_rng(0)
    path.mkdir()
    for prefix, count in (("train", n), ("t10k", tested)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (path / f"{prefix}-images-idx3-ubyte").write_bytes(
            bytes([0, 0, 8, 3])
            + np.array([count, 28, 28], ">i4").tobytes()
            + images.tobytes()
        )
        (path / f"{prefix}-labels-idx1-ubyte").write_bytes(
            bytes([0, 0, 8, 1]) + np.array([count], ">i4").tobytes() + labels.tobytes()
        )
    return str(path)


def test_files_are_split_by_seed(tmp_path):
    root = mnist(tmp_path / "mnist")
    changes = {"data.name": "mnist", "data.root": root, "data.validation": 20}
    config = tiny(**changes | {"data.train": 30, "data.test": 10})
    data = classify.load(config, None)
    assert data.images.shape == (80, 28, 28, 1) and len(data.classes) == 10
    for seed in range(2):
        held, used = data.validation[seed], data.train[seed]
        assert len(held) == 20 and len(used) == 30 and held.max() < 60 > used.max()
        assert not set(held) & set(used)
    assert set(data.validation[0]) != set(data.validation[1])
    np.testing.assert_array_equal(data.test, np.arange(60, 70))
    with pytest.raises(ValueError, match="cannot hold out 20, train on 50"):
        classify.load(tiny(**changes | {"data.train": 50}), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.name": "letters"}, "data.name: got 'letters'.*geoshapes"),
        ({"data.name": "mnist", "data.root": None}, "MNIST needs data.root"),
        ({"data.root": "x"}, "geoshapes are built in"),
        ({"data.pool": "all"}, "data.pool: got 'all'"),
        ({"data.label_noise": 1.0}, "label_noise: got 1.0"),
        ({"curriculum.kind": "random"}, "curriculum.kind: got 'random'"),
        ({"curriculum.score": "luck"}, "curriculum.score: got 'luck'.*entropy"),
        ({"model.network": "vgg"}, "model.network: got 'vgg'.*perceptron"),
        ({"model.network": "resnet"}, "after the colon.*:demo,network=resnet"),
        ({"model.perceptron.activation": "gelu"}, "activation: got 'gelu'"),
        (
            {"curriculum.kind": "dsac", "curriculum.favour": "random"},
            "dsac takes easy or hard",
        ),
        ({"curriculum.kind": "dsac", "curriculum.ratio": 0.5}, "ratio"),
        ({"curriculum.kind": "switch", "curriculum.switch": 13}, "expected 0 to 12"),
        ({"curriculum.kind": "bac", "baseline": "nowhere"}, "holds no scores.npz"),
    ],
)
def test_bad_input_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train.run(tiny(**changes), tmp_path)


@pytest.mark.parametrize("network", ["convnet", "resnet"])
def test_other_networks(tmp_path, network):
    sizes = {
        "convnet": {"model.convnet.stages": ((4,), (4,)), "model.convnet.dense": 8},
        "resnet": {"model.resnet.stage_sizes": (1,), "model.resnet.width": 4},
    }[network]
    changes = {"train.steps": 2, "seeds": 1, "data.train": 16} | sizes
    results = train.run(tiny(network, **changes), tmp_path)
    assert 0 <= results["errors"]["test"][0] <= 1
    with np.load(tmp_path / "scores.npz") as saved:
        assert (saved["bald"] > 0).any()


def test_loaders_are_named_in_the_config():
    assert set(labelled.LOADERS) == {"geoshapes", "mnist", "cifar10"}


def test_augmentation_is_an_examples_own():
    """The loss is that of the augmented pictures, whatever the order of the batch."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 6, 6, 1), np.uint8)
    view = functools.partial(augment.random_view, shift=2, flip=0.5)

    def apply_fn(variables, x, *, train, rngs, mutable):
        return x.reshape(len(x), -1) @ variables["params"], {}

    def loss_of(images, order, view):
        tx = optax.sgd(0.1)
        step = steps.make_classify_step(
            apply_fn, tx, inputs=lambda x: x, augmentation=view
        )
        state = steps.init_state({"params": weights}, tx, key=jax.random.key(7))
        batch = {
            "image": images[order],
            "label": np.array([0, 1, 2, 1])[order],
            "index": np.array([5, 9, 2, 7])[order],
            "draw": np.array([0, 1, 0, 3])[order],
            "weight": np.ones(4, np.float32),
        }
        return float(jax.jit(step)(state, batch)[1]["loss"])

    weights = jnp.asarray(rng.normal(size=(36, 3)), jnp.float32)
    plain = np.arange(4)
    augmented = loss_of(images, plain, view)
    assert augmented == pytest.approx(loss_of(images, np.array([2, 0, 3, 1]), view))
    assert abs(augmented - loss_of(images, plain, None)) > 1e-3
    # The views by hand: the streams of a step are folded into the state's key.
    keys = augment.example_keys(
        jax.random.fold_in(jax.random.key(7), 0), [5, 9, 2, 7], [0, 1, 0, 3], 0
    )
    views = np.asarray(view(keys, augment.to_float(images)))
    by_hand = np.round(views * 255).astype(np.uint8)
    assert augmented == pytest.approx(loss_of(by_hand, plain, None), rel=1e-6)


def test_cifar10_arms_train_on_shifted_and_mirrored_pictures():
    config = base_config("cifar10", root="x", leaves={})
    assert config.train.augment.to_dict() == {"shift": 4, "flip": 0.5}
    full = base_config("cifar10", preset="full", root="x", leaves={})
    assert full.train.augment.to_dict() == {"shift": 4, "flip": 0.5}
    assert base_config("geoshapes", leaves={}).train.augment.shift == 0
