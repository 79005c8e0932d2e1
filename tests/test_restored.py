"""What a finished run learned, read from its folder alone."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import without_data

from memejax import steps
from memejax.checkpoint import Checkpoints
from memejax.restored import encoders_of, read_finished, restore


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """The finished run without its data."""
    return without_data(finished[0], tmp_path_factory.mktemp("restored") / "run")


def test_averaged_parameters_are_what_is_read(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    restored = restore(run)
    step = restored.outcomes["evaluate"]["checkpoint"]
    params = jax.tree.map(jnp.asarray, restored.variables["params"])
    state = steps.State(
        step=jnp.int32(step),
        params=params,
        batch_stats=jax.tree.map(jnp.asarray, restored.variables["batch_stats"]),
        opt_state={"m": params},
        key=jax.random.key(0),
        average=jax.tree.map(jnp.zeros_like, params),
    )
    shutil.rmtree(copy / "0" / "finetune" / "checkpoints")
    with Checkpoints(copy / "0" / "finetune" / "checkpoints", keep=1) as saves:
        saves.save(step, state, plan={"index": np.zeros(1)}, position={})
    found = restore(copy).variables
    assert all(not leaf.any() for leaf in jax.tree.leaves(found["params"]))
    assert jax.tree.structure(found) == jax.tree.structure(dict(restored.variables))
    assert found["batch_stats"]["arms_cnn"]["image_encoder"]["stem"]["norm"][
        "var"
    ].any()


def test_no_finished_run(run, tmp_path):
    def refuses(match, seed=0):
        with pytest.raises(ValueError, match=match):
            restore(tmp_path / "run", seed=seed)

    refuses("no folder")
    (tmp_path / "run" / "inner").mkdir(parents=True)
    config = (run / "config.json").read_text()
    (tmp_path / "run" / "inner" / "config.json").write_text(config)
    refuses("no config.json, there is inner; did you mean its folder inner")
    (tmp_path / "run" / "config.json").write_text(config)
    refuses("not finished: there is no results.json(.|\n)*it resumes")
    results = json.loads((run / "results.json").read_text())
    shutil.copy(run / "environment.json", tmp_path / "run")

    def write(value):
        (tmp_path / "run" / "results.json").write_text(json.dumps(value))

    write({"errors": 0, "seeds": {}})
    refuses("trains no classifier of memes")
    write(results)
    refuses("got seed 3, but .* has the seeds 0", seed=3)
    refuses("which gave the run's test scores, is not there")
    write(results | {"seeds": {"0": {"pretrain": {}}}})
    refuses("ran the stages pretrain: expected one with finetune")
    write(results | {"seeds": {"0": {"graph": {}, "evaluate": {"splits": {}}}}})
    features = json.loads(config)
    del features["arms"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(features))
    refuses("ran the stages graph, evaluate: expected one with finetune")


def test_config_and_results_need_no_checkpoint(run, tmp_path):
    for name in ("config.json", "environment.json", "results.json"):
        shutil.copy(run / name, tmp_path)
    config, results = read_finished(tmp_path)
    assert (config.name, list(config.arms)) == ("cass_mm", ["cnn", "vit"])
    assert results == json.loads((run / "results.json").read_text())
    with pytest.raises(ValueError, match="is not there"):
        restore(tmp_path)


def of(run, *, params, share, batch_stats=None):
    """The run as if it had learned these variables."""
    restored = restore(run)
    config = restored.config.copy_and_resolve_references()
    config.model.share_text = share
    variables = {"params": params, "batch_stats": batch_stats or {}}
    return dataclasses.replace(restored, config=config, variables=variables)


def test_encoders_of_an_arm(run):
    restored = restore(run)
    for arm in ("cnn", "vit"):
        found = encoders_of(restored, arm)
        assert list(found) == ["image_encoder", "text_encoder"]
        for part, trees in found.items():
            for collection, tree in trees.items():
                mine = restored.variables[collection][f"arms_{arm}"]
                assert jax.tree.leaves(tree) and tree is mine[part]
    # A transformer has no statistics of batches.
    assert set(found["image_encoder"]) == set(found["text_encoder"]) == {"params"}
    cnn = encoders_of(restored, "cnn")["image_encoder"]
    assert set(cnn) == {"params", "batch_stats"}


def test_a_text_encoder_that_arms_share(run):
    image, words = {"stem": np.ones(2)}, {"words": np.ones((3, 2))}
    params = {
        "arms_cnn": {"image_encoder": image, "text_encoder": words},
        "arms_vit": {"image_encoder": {"patches": np.zeros(4)}},
    }
    shared = of(run, params=params, share=True)
    for arm in ("cnn", "vit"):
        found = encoders_of(shared, arm)
        assert found["text_encoder"]["params"] is words
        mine = params[f"arms_{arm}"]["image_encoder"]
        assert found["image_encoder"] == {"params": mine}
    # An arm's own is not another's.
    with pytest.raises(ValueError, match="no text_encoder in its arm 'vit': expected"):
        encoders_of(of(run, params=params, share=False), "vit")
    del params["arms_cnn"]["image_encoder"]
    with pytest.raises(ValueError, match="no image_encoder in its arm 'cnn': expected"):
        encoders_of(shared, "cnn")
