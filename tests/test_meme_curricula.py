"""Fine-tuning on memes from disk, in the order of a curriculum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny

from memejax import curriculum, datasets, logs, train
from memejax.checkpoint import Checkpoints
from memejax.curriculum import draw
from memejax.stages import finetune
from memejax.stages.parts import curricula
from memejax.stages.parts.meme_uncertainty import make_uncertainty
from memejax.stages.parts.models import fusion_arms
from memejax.stages.parts.training import devices

SHORT = {
    "stages": ("finetune",),
    "finetune.steps": 6,
    "finetune.eval_every": 6,
    "checkpoint.every": 2,
}


def saved_plan(where, config, **more):
    """The plan of the last checkpoint of fine-tuning."""
    stage = finetune.make(
        config, datasets.load(config, where), seed=0, mesh=devices(config), **more
    )
    with Checkpoints(where / "0/finetune/checkpoints", keep=2) as saves:
        return saves.restore(stage.abstract, step=saves.latest).plan["index"]


def test_dsac_draws_memes_by_the_scores_of_then(tmp_path):
    config = tiny(
        "curriculum=dsac",
        **SHORT
        | {
            "curriculum.warmup": 2,
            "curriculum.refresh": 2,
            "curriculum.score": "bald",
            "curriculum.ratio": 8.0,
        },
    )
    train.run(config, tmp_path)
    lines = logs.read_metrics(tmp_path / "0/finetune/metrics.jsonl")
    drawn = [line for line in lines if line["split"] == "curriculum"]
    assert [line["step"] for line in drawn] == [2, 4]
    np.testing.assert_allclose([line["achieved_ratio"] for line in drawn], 8, rtol=1e-4)
    index = saved_plan(tmp_path, config, curriculum=config.curriculum)
    assert index.shape == (6, 16) and index.max() < 64
    for step in (2, 4):
        with np.load(tmp_path / f"0/finetune/refreshes/{step}.npz") as saved:
            u, probs = saved["uncertainty"], saved["probs"]
        assert u.shape == (64,) and u.std() > 0
        # Easy is favoured: the likelier, the less the arms disagree.
        assert (np.diff(probs[np.argsort(u, kind="stable")]) <= 1e-9).all()


def test_bac_ranks_memes_by_a_baseline_of_its_own(tmp_path):
    leaves = {"curriculum.score": "loss", "curriculum.favour": "hard"}
    config = tiny("curriculum=bac", **SHORT | leaves)
    train.run(config, tmp_path)
    u = np.load(tmp_path / "0/baseline/uncertainty.npy")
    index = saved_plan(tmp_path, config, curriculum=config.curriculum, uncertainty=u)
    # The first phase is the harder half: 3 updates of 16 of its 32 memes.
    first = np.unique(index[:3])
    assert len(first) == 32 and u[first].min() >= np.sort(u)[31] - 1e-6
    assert len(np.unique(index[3:])) > 32


def test_uncertainty_of_a_committee_by_hand():
    members = [np.array([0.5, 1.0, 0.9]), np.array([0.5, 0.0, 0.9])]
    labels = np.array([1, 1, 0])
    entropy = curriculum.committee_uncertainty("entropy", members, labels)
    h = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(entropy, [np.log(2), np.log(2), h], rtol=1e-4)
    # Both are undecided about the first; about the second they disagree.
    bald = curriculum.committee_uncertainty("bald", members, labels)
    np.testing.assert_allclose(bald, [0, np.log(2), 0], atol=1e-4)
    loss = curriculum.committee_uncertainty("loss", members, labels)
    np.testing.assert_allclose(loss, -np.log([0.5, 0.5, 0.1]), rtol=1e-4)
    with pytest.raises(ValueError, match="it needs two of them"):
        curriculum.committee_uncertainty("bald", members[:1], labels)
    with pytest.raises(ValueError, match="unknown score 'luck'"):
        curriculum.committee_uncertainty("luck", members, labels)


def bald_by_hand(proba):
    """Entropy of the mean minus mean entropy, of P(1) [members, n], in float64."""

    def entropy(p):
        p = np.clip(np.asarray(p, np.float64), 1e-12, 1 - 1e-12)
        return -(p * np.log(p) + (1 - p) * np.log(1 - p))

    return entropy(proba.mean(0)) - entropy(proba).mean(0)


@pytest.mark.parametrize("names", [("cnn", "vit"), ("vit",)])
def test_bald_of_dropout_passes(tmp_path, names):
    """Each pass drops features of the classifier, the same of every meme."""
    chosen = {
        "arms": names,
        "curriculum.score": "bald",
        "curriculum.passes": 3,
    }
    config = tiny("curriculum=dsac", **SHORT | chosen)
    data, mesh = datasets.load(config, tmp_path), devices(config)
    stage = finetune.make(config, data, seed=0, mesh=mesh)
    variables = stage.init().weights()
    score = make_uncertainty(config, data, seed=0, mesh=mesh)
    got = score(variables, 5)
    # The features of each arm, and its classifier applied by hand.
    train, members = data.splits["train"], []
    features = {name: [] for name in names}
    for _, batch in stage.scoring(train).chunks(0):
        for name, values in stage.embed(variables, batch).items():
            features[name].append(np.asarray(values, np.float64))
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 9), 5)
    arms = fusion_arms(config, data.vocabulary)
    heads = {n: variables["params"][f"arms_{n}"]["classifier"]["logit"] for n in names}
    weight = {n: np.asarray(leaf["kernel"])[:, 0] for n, leaf in heads.items()}
    # Multiples of unit vectors, whose logits are the mask and the bias.
    units = {n: jnp.diag(1 / w) for n, w in weight.items()}
    for m in range(3):
        logits = arms.apply(
            variables,
            units,
            rngs={"dropout": jax.random.fold_in(key, m)},
            method="mc_logits",
        )
        for name in names:
            mask = np.asarray(logits[name] - heads[name]["bias"])
            kept = np.isclose(mask, 1 / 0.9, rtol=1e-4)
            assert (kept | np.isclose(mask, 0, atol=1e-4)).all() and 0 < kept.mean() < 1
            f = np.concatenate(features[name])[: len(train.ids)]
            logit = f @ (kept / 0.9 * weight[name]) + float(heads[name]["bias"][0])
            members.append(1 / (1 + np.exp(-logit)))
    np.testing.assert_allclose(got, bald_by_hand(np.stack(members)), atol=1e-6)
    assert got.std() > 0 and not np.allclose(got, score(variables, 6))


def test_a_run_draws_one_arms_memes_by_dropout_passes(tmp_path):
    """One arm has nobody to disagree with but its own passes."""
    one = {"arms": ("vit",), "curriculum.score": "bald", "curriculum.warmup": 2}
    config = tiny("curriculum=dsac", **SHORT | one | {"curriculum.refresh": 2})
    with pytest.raises(ValueError, match="curriculum.passes compares"):
        train.run(config, tmp_path / "arms")
    config.curriculum.passes = 4
    train.run(config, tmp_path / "passes")
    with np.load(tmp_path / "passes/0/finetune/refreshes/4.npz") as saved:
        assert saved["uncertainty"].std() > 0


@pytest.mark.parametrize("draws", ["categorical", "inverse_cdf"])
def test_draws_are_those_of_the_method(draws):
    """The whole plan: the warm-up, and a segment by scores."""
    config = tiny("curriculum=dsac", **{"curriculum.draws": draws})
    c = config.curriculum
    c.warmup, c.refresh, c.ratio = 2, 3, 8.0
    source = curricula.Source(np.arange(40), np.tile([0, 1], 20))
    u = np.linspace(0, 1, 40)
    plan = curricula.first_plan(c, source, batch=4, steps=5, seed=3)
    plan, drawn = curricula.redrawn(c, plan, source, uncertainty=u, step=2, seed=3)
    key = jax.random.fold_in(jax.random.key(3), 3)
    for segment, (start, stop), probs in (
        (0, (0, 2), np.full(40, 1 / 40, np.float32)),
        (1, (2, 5), drawn.probs),
    ):
        own = jax.random.fold_in(jax.random.fold_in(key, 1_000_101), segment)
        expected = draw(own, probs, (stop - start, 4), method=draws)
        np.testing.assert_array_equal(plan.index[start:stop], expected)


def test_a_temperature_that_starts_at_1_is_raised_step_by_step():
    """As the thesis finds it; from 0 the ratio is met exactly."""
    c = tiny("curriculum=dsac").curriculum
    c.warmup, c.refresh, c.ratio = 0, 5, 2.0
    source = curricula.Source(np.arange(40), np.tile([0, 1], 20))
    u = np.linspace(0, 3.0, 40)
    plan = curricula.first_plan(c, source, batch=4, steps=5, seed=3)
    for lowest, tau in ((0.0, 3 / np.log(2)), (1.0, 4.33)):
        # 3 / ln 2 = 4.3281.
        c.min_temperature = lowest
        _, drawn = curricula.redrawn(c, plan, source, uncertainty=u, step=0, seed=3)
        p = np.exp(-u / tau)
        np.testing.assert_allclose(drawn.probs, p / p.sum(), rtol=1e-5)


def test_categorical_draws_of_too_many_examples():
    c = tiny("curriculum=replacement").curriculum
    assert c.draws == "categorical"
    n = curricula.MOST_CATEGORICAL + 1
    source = curricula.Source(np.arange(n), np.zeros(n, int))
    with pytest.raises(ValueError, match="100,001 examples: above 100,000 choose 'inv"):
        curricula.first_plan(c, source, batch=2, steps=2, seed=0)
    c.draws = "inverse_cdf"
    assert curricula.first_plan(c, source, batch=2, steps=2, seed=0).batch == 2
