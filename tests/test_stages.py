"""The table of stages, and the state that a stage begins with."""

import functools
import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from support import tiny

from memejax import datasets, parallel, stages, train
from memejax.configs import common
from memejax.stages import STAGES, Ended, Kind, evaluate, finetune, pretrain
from memejax.stages.parts.training import devices


def test_a_further_stage_is_one_entry(tmp_path, monkeypatch):
    seen = []

    def run(context, before):
        seen.append((context.seed, before.name, sorted(before.outcomes)))
        context.finish("count", {"splits of": len(context.data.splits)})
        outcomes = {"count": context.outcome("count")}
        return Ended(before.name, outcomes, before.stage, before.weights)

    count = Kind("Count", "", run, after=("evaluate",), first=False)
    monkeypatch.setitem(STAGES, "count", count)
    config = tiny(
        stages=("finetune", "evaluate", "count"),
        arms=("vit",),
        **{"finetune.steps": 2, "finetune.optimizer.warmup": 1},
    )
    (tmp_path / "0/count").mkdir(parents=True)
    results = train.run(config, tmp_path)
    assert seen == [(0, "finetune", ["evaluate"])]
    assert results["seeds"]["0"]["count"] == {"splits of": 3}
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "names",
    [
        ("pretrain",),
        ("pretrain", "probe"),
        ("pretrain", "finetune"),
        ("pretrain", "probe", "finetune", "evaluate"),
        ("finetune",),
        ("finetune", "evaluate"),
        ("graph",),
        ("graph", "evaluate"),
        ("classify",),
    ],
)
def test_orders_that_runs_have(names):
    stages.check_order(names)


def test_devices_are_prepared_by_the_stages_that_need_it(monkeypatch):
    called = []
    monkeypatch.setattr(parallel, "device_per_core", lambda: called.append(True))
    for names, seeds in (
        (("pretrain", "finetune"), 2),
        (("classify",), 1),
        # What is unknown is told later, by `check`.
        (("unknown",), 2),
    ):
        stages.prepare(types.SimpleNamespace(stages=names, seeds=seeds))
    assert called == []
    stages.prepare(types.SimpleNamespace(stages=("classify",), seeds=2))
    assert called == [True]


@pytest.mark.parametrize("make", [pretrain.make, finetune.make])
def test_a_divided_state_begins_as_a_whole_one(tmp_path, monkeypatch, make):
    """Bitwise; and each device makes its own part of every large array alone."""
    some = functools.partial(parallel.state_shardings, smallest=64)
    monkeypatch.setattr(parallel, "state_shardings", some)
    states, stage = {}, None
    for divided in (False, True):
        config = tiny(**{"parallel.shard_parameters": divided, "parallel.devices": 4})
        data = datasets.load(config, tmp_path / str(divided))
        stage = make(config, data, seed=0, mesh=devices(config))
        states[divided] = stage.init()
    whole, parts = (jax.tree.leaves(states[divided]) for divided in (False, True))
    abstract = jax.tree.leaves(stage.abstract)
    assert len(whole) == len(parts) == len(abstract)
    divided = 0
    for one, other, shape in zip(whole, parts, abstract, strict=True):
        assert other.sharding == shape.sharding and other.dtype == shape.dtype
        if other.sharding.is_fully_replicated:
            continue
        divided += 1
        assert all(
            4 * shard.data.size == one.size for shard in other.addressable_shards
        )
        np.testing.assert_array_equal(one, other)
    assert divided > 20


@pytest.mark.parametrize("preset", ["full", "paper"])
def test_an_arm_alone_learns_as_it_does_beside_another(tmp_path, preset):
    """The groups of the presets, on tiny models, with a clip that always applies."""
    found = {}
    for arms in (("cnn",), ("cnn", "vit")):
        config = tiny(**{"arms": arms, "finetune.steps": 3})
        groups = common.finetune(preset)["optimizer"]["groups"]
        with config.unlocked():
            config.finetune.optimizer.groups = ConfigDict(groups)
            config.finetune.optimizer.clip = 1e-3
        for group in config.finetune.optimizer.groups.values():
            group.lr = 1e-2
        data = datasets.load(config, tmp_path)
        stage = finetune.make(config, data, seed=0, mesh=devices(config))
        state = stage.init()
        for _, chunk in stage.feeder.chunks(0, 3):
            state, values = stage.run_chunk(state, chunk)
        found[arms] = jax.device_get(state.params["arms_cnn"])
        assert float(values["grad_norm"]) > 1e-3
    for alone, beside in zip(*map(jax.tree.leaves, found.values()), strict=True):
        np.testing.assert_allclose(alone, beside, atol=1e-5)


def test_pictures_that_explain_come_before_the_predictions(tmp_path):
    """Their folder need not be there yet."""
    context = types.SimpleNamespace(
        folder=tmp_path / "0", seed=0, config=types.SimpleNamespace(seed=0)
    )
    evaluate._explain(context, lambda v, p: {"graphs.png": v + p}, b"a", b"b")  # type: ignore[arg-type]
    assert (tmp_path / "0/evaluate/graphs.png").read_bytes() == b"ab"
