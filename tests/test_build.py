"""From a config to models, weights and optimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import ROOT, tiny

from memejax import datasets, optim
from memejax.config import load_config
from memejax.stages import finetune, pretrain
from memejax.stages.parts import models
from memejax.stages.parts.models import fusion_arms
from memejax.stages.parts.optimizers import optimizer
from memejax.stages.parts.training import devices
from memejax.stages.parts.variables import transfer


@pytest.mark.parametrize("preset", ["demo", "full", "paper"])
def test_every_parameter_is_in_one_group(preset):
    """At the real sizes, by shapes alone."""
    config = load_config(str(ROOT / f"configs/cass_mm.py:{preset}"))
    arms = fusion_arms(config, 30522)
    size, length = config.data.image_size, config.data.text_length
    inputs = {
        "image": jnp.zeros((2, size, size, 3)),
        "input_ids": jnp.zeros((2, length), int),
        "attention_mask": jnp.ones((2, length), int),
    }
    for section, method in (("pretrain", "project"), ("finetune", "classify")):
        shapes = jax.eval_shape(
            lambda method=method: arms.init(
                jax.random.key(0),
                {arm: inputs for arm in config.model.image},
                train=False,
                method=method,
            )
        )["params"]
        groups = {
            name: optim.Group(group.pattern, group.lr)
            for name, group in config[section].optimizer.groups.items()
        }
        labels = set(jax.tree.leaves(optim.label_parameters(shapes, groups)))
        assert labels == set(groups)
        if preset != "demo" and section == "pretrain":
            # 2 x DistilBERT, ResNet-50, ViT-B/16 and the heads: about 240 million.
            count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
            assert 240e6 < count < 246e6


def test_the_papers_preset_keeps_its_quirks():
    config = load_config(str(ROOT / "configs/cass_mm.py:paper"))
    assert config.pretrain.optimizer.groups.frozen.lr == 0
    assert config.pretrain.optimizer.schedule == "plateau"
    assert not config.pretrain.independent_views
    assert config.pretrain.objective.to_dict() == dict(
        standardize=False, variance=0.0, covariance=0.0, stop_gradient=False
    )


def test_misspelt_keys_are_errors(tmp_path):
    config = tiny()
    config.unlock()
    config.model.arm.dropuot = 0.5
    with pytest.raises(TypeError, match="dropuot"):
        fusion_arms(config, 50)


def test_transfer_takes_what_fits():
    old = {"params": {"a": jnp.ones(3), "b": jnp.ones(4), "c": jnp.ones(5)}}
    new = {"params": {"a": jnp.zeros(3), "b": jnp.zeros(2), "d": jnp.zeros(1)}}
    merged = transfer(old, new)["params"]
    assert np.all(merged["a"] == 1) and np.all(merged["b"] == 0) and merged["d"] == 0
    with pytest.raises(ValueError, match="nothing of the pretrained state fits"):
        transfer({"x": jnp.ones(1)}, new)


def test_fine_tuning_starts_from_the_pretrained_arms(tmp_path):
    config = tiny()
    data = datasets.load(config, tmp_path)
    mesh = devices(config)
    pre = pretrain.make(config, data, seed=0, mesh=mesh).init()
    fine = finetune.make(config, data, seed=0, mesh=mesh).init(pre.weights)
    scratch = finetune.make(config, data, seed=0, mesh=mesh).init()
    for arm in ("arms_cnn", "arms_vit"):
        for part in ("image_encoder", "text_encoder", "fusion_layer", "vision_adder"):
            for x, y in zip(
                *(jax.tree.leaves(s.params[arm][part]) for s in (pre, fine)),
                strict=True,
            ):
                np.testing.assert_array_equal(x, y)
        assert "fc" not in fine.params[arm] and "classifier" in fine.params[arm]
    different = [
        bool(np.any(x != y))
        for x, y in zip(
            jax.tree.leaves(fine.params), jax.tree.leaves(scratch.params), strict=True
        )
    ]
    assert any(different)


@pytest.mark.parametrize("modalities", ["image", "text"])
def test_a_control_leaves_out_the_groups_of_what_it_has_not(modalities):
    """And no others: a group that would be empty without a control is an error."""
    leaves = {"model.arm.modalities": modalities, "arms": ("cnn",), "seeds": 1}
    config = load_config(str(ROOT / "configs/supervised.py:full"))
    config.update_from_flattened_dict(leaves)
    arms = models.fusion_arms(config, 100)
    inputs = {
        "image": jnp.zeros((2, 64, 64, 3)),
        "input_ids": jnp.zeros((2, 4), int),
        "attention_mask": jnp.ones((2, 4), int),
    }
    params = jax.eval_shape(
        lambda: arms.init(
            jax.random.key(0), {"cnn": inputs}, train=False, method="classify"
        )
    )["params"]
    params = jax.tree.map(lambda s: jnp.zeros(1), params)
    section = config.finetune.optimizer
    absent = models.absent_parts(config)
    _, rates, _ = optimizer(section, params=params, total=1000, absent=absent)
    tx, _, _ = optimizer(section, params=params, total=1000, absent=absent)
    assert set(rates(tx.init(params), 0)) == {f"cnn_{modalities}", "cnn_heads"}
    with pytest.raises(ValueError, match="matches no leaf"):
        optimizer(section, params=params, total=1000)
