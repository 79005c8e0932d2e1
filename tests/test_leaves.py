"""The kind and range of every leaf of a config."""

import math

import pytest
from test_configs import CONFIGS, leaves, load, texts

from memejax.config import unknown_leaf
from memejax.errors import UserError
from memejax.stages import leaves as rules


@pytest.mark.parametrize("name", CONFIGS)
def test_every_leaf_has_a_rule_that_allows_its_default(name):
    for text in texts(name):
        config = load(name, text)
        rules.check(config)
        missing = [leaf for leaf in leaves(config) if rules.rule_of(leaf) is None]
        assert not missing, text


def test_every_rule_is_for_some_leaf_or_field():
    configs = (load(name, text) for name in CONFIGS for text in texts(name))
    used = {leaf for config in configs for leaf in leaves(config)}
    # Fields that only a config of one's own, or a checkpoint, sets.
    own = {
        "model.image.*.normalization.*",
        "model.**.eps",
        "model.**.stem",
        "model.**.bottleneck",
        "model.**.widths",
        "model.**.drop_path",
        "*.optimizer.groups.*.rule",
        "*.optimizer.groups.*.decay_exempt",
        "*.optimizer.groups.*.layer_decay",
    }
    idle = [
        name
        for (pattern, _), name in zip(rules._PATTERNS, rules.LEAVES, strict=True)
        if not any(pattern.fullmatch(leaf) for leaf in used)
    ]
    assert set(idle) <= own


@pytest.mark.parametrize(
    ("name", "leaf", "value", "message"),
    [
        ("cass_mm", "finetune.optimizer.rule", "admaw", "got 'admaw'.*mean 'adamw'"),
        ("cass_mm", "seeds", 0, "got 0, expected a whole number from 1 to"),
        ("cass_mm", "seeds", -1, "got -1"),
        ("cass_mm", "stages", (), "at least 1 values"),
        ("cass_mm", "arms", ("cnn", "cnn"), "distinct"),
        ("cass_mm", "pretrain.caption_dropout", 1.5, "a number from 0.* to 1"),
        ("cass_mm", "pretrain.optimizer.warmup", -1, "got -1"),
        ("cass_mm", "checkpoint.every", -1, "got -1, expected a whole number >= 1"),
        ("cass_mm", "checkpoint.every", 0, "got 0"),
        ("cass_mm", "log.every", 0, "got 0"),
        ("cass_mm", "finetune.eval_every", 0, "got 0"),
        ("cass_mm", "finetune.eval_every", -1, "got -1"),
        ("cass_mm", "model.dtype", "float23", "one of bfloat16, float32"),
        ("cass_mm", "finetune.optimizer.groups.cnn.lr", math.nan, "got nan"),
        ("cass_mm", "finetune.optimizer.groups.cnn.pattern", "(", "regular expression"),
        ("cass_mm", "data.root", "", "text that is not empty"),
        ("cass_mm", "data.validation", 1.0, "above 0 and below 1"),
        ("graph", "graph.epochs", -1.0, "a number above 0"),
        ("graph", "graph.projection_dropout", 2.0, "below 1"),
        ("graph", "graph.relations", ("image_enttiy",), "image_entity"),
        (
            "curriculum",
            "data.train",
            0,
            "got 0, expected a whole number from 1 to .*, or None",
        ),
        ("curriculum", "curriculum.winsorize", 0.5, "below 0.5"),
        ("curriculum", "curriculum.score", "entropi", "mean 'entropy'"),
        ("dino", "pretrain.augment.local_scale", (0.8, 0.4), "ascending"),
    ],
)
def test_wrong_values_are_named(name, leaf, value, message):
    config = load(name)
    config.update_from_flattened_dict({leaf: value})
    with pytest.raises(UserError, match=rf"--config\.{leaf}: .*{message}") as caught:
        rules.check(config)
    assert "\n" not in str(caught.value)


def test_networks_of_ones_own_have_rules():
    config = load("cass_mm").unlock()
    config.model.image.cnn = dict(name="resnet", stage_sizes=(), width=8)
    with pytest.raises(UserError, match="model.image.cnn.stage_sizes: got \\(\\)"):
        rules.check(config)
    config.model.image.cnn.stage_sizes = (1, 2)
    config.model.image.vit.drop_path = 1.0
    with pytest.raises(UserError, match="model.image.vit.drop_path: got 1.0"):
        rules.check(config)


def test_infinite_ratios_are_allowed():
    config = load("curriculum")
    config.curriculum.ratio = math.inf
    rules.check(config)


def test_unknown_leaves_get_the_nearest_name():
    config = load("cass_mm")
    assert unknown_leaf(config, "finetune.optimizer.rule") is None
    assert unknown_leaf(config, "finetune") is None
    found = unknown_leaf(config, "finetune.optimiser.rule")
    assert found.startswith("--config.finetune.optimiser.rule: this config has no")
    assert "did you mean finetune.optimizer.rule" in found
    assert unknown_leaf(config, "seed.x").startswith("--config.seed.x: this config")
