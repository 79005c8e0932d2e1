"""A paper's table from runs that a fake runner made, and one small real one."""

import csv
import json
import pathlib

import numpy as np
import pytest
from graph_support import TINY as GRAPH_TINY
from graph_support import write_store
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder
from support import ROOT, TINY, refused, shrunk

from memejax import folder, metrics, train
from memejax.config import load_config
from memejax.report.paper_table import Spread
from memejax.reproduce import __main__ as command_line
from memejax.reproduce import command, figures, rows, runs
from memejax.reproduce import features as stored_features
from memejax.signals import Interrupted
from memejax.stages.parts.choices import RUNTIME
from memejax.train.results import summary

PROBA = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97])
LABELS = np.array([0, 0, 1, 0, 0, 1, 1, 0, 1, 0])


def fake_config(name):
    """What `load_config` gives, with leaves enough."""
    file, _, text = name.partition(":")
    preset = text.split(",")[0]
    config = ConfigDict()
    config.name, config.preset = pathlib.Path(file).stem, preset
    config.seed, config.seeds = 7, 3
    config.data = dict(root=placeholder(str), image_size=48, tokenizer=placeholder(str))
    config.data.update(dev="dev_seen", validation=0.1)
    config.data.synthetic = dict(concepts=4, train=8, dev=8)
    config.finetune = dict(steps=1, batch=1, eval_every=1)
    config.arms = ("cnn", "vit")
    if config.name == "graph":
        config.features = placeholder(str)
        config.graph = dict(kind="stored", network="gat", epochs=1.0)
    if config.name != "supervised":
        config.pretrain = dict(steps=1, batch=1)
        config.pretrain.augment = dict(global_size=48, local_size=32)
    config.log = dict(every=20)
    return config


class Runner:
    """In place of train.run: writes results of the true format."""

    def __init__(self):
        self.ran, self.stop_at, self.figures, self.dead = [], None, {}, set()
        self.config = None

    def __call__(self, config, workdir):
        with folder.claim(workdir, config.to_dict(), runtime=RUNTIME) as path:
            pass
        name = f"{path.parent.name}/{path.name}"
        self.ran.append(name)
        if self.stop_at == len(self.ran):
            raise Interrupted(143)
        self.config = config
        folder.write_json(path / "results.json", self.results(config, name))
        return {}

    def results(self, config, name):
        splits = {
            split: {
                arm: metrics.binary_report(PROBA, LABELS, bootstrap=50)
                | self.figures.get((name, arm), {})
                for arm in ("cnn", "vit", "average")
            }
            | {"constant": metrics.constant_report(LABELS)}
            for split in (config.data.dev, "test_unseen")
        }
        steps = {"cnn": 1, "vit": 2, "average": 2}
        stages = {
            "finetune": {"steps": 2, "seconds": 30.0, "best": 0.7, "best_step": 2},
            "evaluate": {"checkpoint": 2, "checkpoints": steps, "splits": splits},
        }
        if config.name != "supervised":
            stages["pretrain"] = {
                "steps": 2,
                "seconds": 60.0,
                "panel": {},
                "collapsed": name in self.dead,
                "why_collapsed": [],
            }
        by_seed = {str(config.seed): stages}
        bayes = {} if config.data.root else {"both": {"auroc": 0.99, "accuracy": 0.9}}
        return {
            "config": config.name,
            "preset": config.preset,
            "data": {
                "root": config.data.root,
                "bayes": bayes,
                "sizes": {"train": 80, config.data.dev: 20},
            },
            "dev": config.data.dev,
            "seeds": by_seed,
            "summary": summary(by_seed),
            "seconds": 5 + sum(s.get("seconds", 0) for s in stages.values()),
            "peak_memory_gb": 1.0,
        }


@pytest.fixture
def runner(monkeypatch):
    fake = Runner()
    monkeypatch.setattr(train, "run", fake)
    monkeypatch.setattr(runs, "load_config", fake_config)
    return fake


def names(expanded):
    return [f"{run.folder.parent.name}/{run.folder.name}" for run in expanded]


def expand(table, preset="full", seeds=2):
    return runs.expand(rows.rows(table, preset=preset), "w", seeds=seeds)


@pytest.mark.parametrize(
    ("table", "preset", "lines", "a_seed"),
    [
        ("table1", "demo", 7, 7),
        ("table2", "demo", 7, 7),
        ("table3", "demo", 8, 8),
        ("table8", "demo", 14 + 3, 11),
        ("table1", "full", 7, 7),
        ("table2", "paper", 7, 7),
        ("table8", "full", 14 + 3, 11),
    ],
)
def test_counts(table, preset, lines, a_seed):
    found = rows.rows(table, preset=preset)
    assert len(found) == len({row.name for row in found}) == lines
    everything = expand(table, preset, seeds=3)
    assert len(everything) == len(set(names(everything))) == 3 * a_seed
    # Seed by seed: an unfinished table has some of every row.
    assert [run.seed for run in everything] == [
        s for s in range(3) for _ in range(a_seed)
    ]


@pytest.mark.parametrize("preset", rows.PRESETS)
def test_tables_share_runs(preset):
    tables = ("table1", "table2", "table3", "table8")
    assert set(rows.TABLES) == set(tables)
    one, two, three, eight = (set(names(expand(t, preset))) for t in tables)
    assert not three & eight
    assert eight == one | two
    small, large = (32, 48) if preset == "demo" else (224, 384)
    shared = (f"cass-{small}", f"cass-{large}", f"cass_mm-{large}")
    assert one & two == {f"{run}/seed{i}" for run in shared for i in (0, 1)}


def test_rows_of_one_run_have_one_config():
    one, two = rows.rows("table1", preset="demo")[:2]
    clash = [one, rows.Row(**{**two.__dict__, "run": one.run})]
    with pytest.raises(ValueError, match="share the run supervised-cnn-32"):
        runs.expand(clash, "w", seeds=1)


def test_published_figures():
    found = {row.name: row for row in rows.rows("table8", preset="full")}
    row = found["cass-cnn-384"]
    assert row.published_auroc == Spread(0.5405, 0.045)
    assert row.published_accuracy == Spread(0.5445, 0.015)
    assert found["supervised-vit-224"].published_auroc == Spread(0.51293, 0.043)
    assert found["dino-vit-384"].published_accuracy == Spread(0.624, 0.071)
    assert found["gat"].published_auroc == Spread(0.564)
    assert "0.541" in found["gat"].note
    # All fourteen rows of the papers' two tables, in every preset.
    assert len(rows.PUBLISHED) == 14
    for preset in rows.PRESETS:
        both = [rows.rows(table, preset=preset) for table in ("table1", "table2")]
        assert [len(lines) for lines in both] == [7, 7]
        assert all(row.published_auroc.std for lines in both for row in lines)
    demo = {row.name: row for row in rows.rows("table2", preset="demo")}
    assert demo["supervised-vit-48"].published_accuracy == Spread(0.545, 0.087)
    assert demo["supervised-vit-32"].size == "32 in place of 224"


@pytest.mark.parametrize("n", [1, 3, 8])
def test_shards_are_a_partition(n):
    everything = expand("table8")
    parts = [runs.shard(everything, i, of=n) for i in range(n)]
    assert sorted(sum(map(names, parts), [])) == sorted(names(everything))
    assert parts[0][0] == everything[0]
    if n == 3:
        assert names(parts[1])[:2] == [names(everything)[1], names(everything)[4]]


@pytest.mark.parametrize(("i", "n"), [(3, 3), (-1, 2), (0, 0)])
def test_no_such_shard(i, n):
    with pytest.raises(ValueError, match=r"expected i/n with i from 0 to n - 1"):
        runs.shard(expand("table1"), i, of=n)


def test_configs(runner):
    everything = expand("table1", seeds=2)
    made = runs.configs(
        everything,
        preset="full",
        root="F",
        leaves={"pretrain.batch": "64", "data.tokenizer": "2024"},
    )
    by_name = dict(zip(names(everything), made, strict=True))
    config = by_name["supervised-cnn-224/seed1"]
    assert (config.seed, config.seeds, config.preset) == (1, 1, "full")
    assert config.arms == ("cnn",) and config.data.image_size == 224
    # A folder may be called 2024; a config without pretraining goes without its batch.
    assert config.data.tokenizer == "2024" and "pretrain" not in config
    both = by_name["cass-384/seed0"]
    assert both.pretrain.batch == 64 and both.arms == ("cnn", "vit")
    assert both.data.root == "F" and both.finetune.steps == 1


def test_the_demo_gives_every_row_the_same(runner):
    made = runs.configs(expand("table8", "demo"), preset="demo")
    assert {(c.finetune.steps, c.finetune.batch) for c in made} == {(80, 128)}
    pretrained = [c for c in made if "pretrain" in c]
    assert {(c.pretrain.steps, c.pretrain.batch) for c in pretrained} == {(120, 128)}
    assert len(made) - len(pretrained) == 8
    assert {c.data.image_size for c in made} == {32, 48}


@pytest.mark.parametrize("preset", rows.PRESETS)
@pytest.mark.parametrize("method", rows.METHODS)
def test_the_real_configs_have_the_leaves(method, preset):
    wanted = [
        r for r in rows.rows("table8", preset=preset) if f"/{method}.py" in r.config
    ]
    expanded = runs.expand(wanted, "w", seeds=1)
    for config in runs.configs(expanded, preset=preset, root="F"):
        assert (config.name, config.preset, config.seeds) == (method, preset, 1)


def test_what_is_finished_is_not_run_again(runner, tmp_path):
    command.reproduce("table1", workdir=tmp_path, seeds=2)
    assert len(runner.ran) == len(set(runner.ran)) == 14
    command.reproduce("table1", workdir=tmp_path, seeds=2)
    assert len(runner.ran) == 14
    # CASS and multimodal CASS are there for table 2, and table 8 is then complete.
    command.reproduce("table2", workdir=tmp_path, seeds=2)
    assert len(runner.ran) == 22
    table = command.reproduce("table8", workdir=tmp_path, seeds=2)
    assert len(runner.ran) == 22
    assert [line.finished for line in table.lines if line.seeds] == [2] * 14
    assert not list(tmp_path.glob("*.csv.*"))


def test_shards_together_make_the_table(runner, tmp_path):
    for i in range(3):
        table = command.reproduce("table1", workdir=tmp_path, seeds=2, shard=(i, 3))
    assert len(set(runner.ran)) == 14
    assert [line.finished for line in table.lines if line.seeds] == [2] * 7


def test_an_interrupted_table_goes_on(runner, tmp_path):
    runner.stop_at = 3
    with pytest.raises(Interrupted):
        command.reproduce("table1", workdir=tmp_path, seeds=1)
    assert "2 of 7 seeds are in." in (tmp_path / "table1.html").read_text()
    stopped = runner.ran[-1]
    table = command.reproduce("table1", workdir=tmp_path, seeds=1)
    assert runner.ran[3] == stopped and len(runner.ran) == 8
    assert [line.finished for line in table.lines if line.seeds] == [1] * 7


def test_a_failed_run_names_itself(monkeypatch, runner, tmp_path):
    def fail(config, workdir):
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr(train, "run", fail)
    with pytest.raises(FloatingPointError) as caught:
        command.reproduce("table1", workdir=tmp_path, seeds=1)
    assert "supervised-cnn-32" in caught.value.__notes__[0]
    assert "| 0/1 |" in (tmp_path / "table1.md").read_text()


def test_another_config_in_the_way(runner, tmp_path):
    command.reproduce("table1", workdir=tmp_path, seeds=1)
    with pytest.raises(folder.OtherRunError, match=r"finetune\.steps: 80 there, 9"):
        command.reproduce(
            "table1", workdir=tmp_path, seeds=2, leaves={"finetune.steps": "9"}
        )
    assert len(runner.ran) == 7
    # What does not change a result may differ.
    command.reproduce("table1", workdir=tmp_path, seeds=1, leaves={"log.every": "5"})


def test_figures(runner, tmp_path):
    aurocs, accuracies = (0.5, 0.6, 0.7), (0.5, 0.5, 0.8)
    for i, (auroc, accuracy) in enumerate(zip(aurocs, accuracies, strict=True)):
        runner.figures[f"cass-48/seed{i}", "cnn"] = {
            "auroc": auroc,
            "accuracy": accuracy,
        }
        runner.figures[f"cass-48/seed{i}", "vit"] = {"auroc": 0.9, "accuracy": 0.75}
    runner.dead = {"cass-48/seed1", "cass-48/seed2"}
    table = command.reproduce("table8", workdir=tmp_path, seeds=3)
    lines = {
        (line.method, line.architecture): line
        for line in table.lines
        if not line.size.startswith("32")
    }
    line = lines["CASS, image-only", "small ResNet"]
    # t(0.975, 2) = 4.302653; 4.302653 * 0.1 / sqrt(3) = 0.248414.
    np.testing.assert_allclose(
        [line.auroc.mean, line.auroc.std, line.auroc.low, line.auroc.high],
        [0.6, 0.1, 0.351586, 0.848414],
        atol=1e-6,
    )
    # std = sqrt((0.01 + 0.01 + 0.04) / 2) = 0.173205.
    np.testing.assert_allclose(
        [line.accuracy.mean, line.accuracy.std, line.accuracy.low],
        [0.6, 0.173205, 0.169735],
        atol=1e-6,
    )
    assert line.published_auroc == Spread(0.5405, 0.045)
    assert (line.collapsed, line.finished, line.seeds) == (2, 3, 3)
    assert line.seconds == 95.0
    assert line.pages[1] == ("1", "cass-48/seed1/report.html")
    other = lines["CASS, image-only", "small ViT"]
    assert (other.auroc.mean, other.auroc.std) == (pytest.approx(0.9), pytest.approx(0))
    assert other.collapsed == 2 and other.pages == line.pages
    assert lines["supervised", "small ViT"].collapsed is None
    assert lines["supervised", "small ViT"].seconds == 35.0
    # 4 of 10 are hateful.
    assert LABELS.sum() == 4
    constant = lines["constant predictor", ""]
    assert (constant.auroc.mean, constant.accuracy.mean) == (0.5, pytest.approx(0.6))
    assert constant.seeds == 0
    assert lines["best possible (Bayes)", ""].auroc.mean == pytest.approx(0.99)
    graph = lines["GAT", "graph network"]
    assert graph.seeds == 0 and graph.note.startswith("Runs of table3.")
    assert table.split == "test_unseen of the built-in memes"
    with (tmp_path / "table8.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert written[4]["pixels"].startswith("48") and written[4]["method"] == line.method
    assert float(written[4]["auroc_low"]) == line.auroc.low
    assert len(written) == len(table.lines) == 19


def test_one_seed_has_the_bootstrap_interval(runner, tmp_path):
    interval = {"auroc": 0.66, "auroc_low": 0.61, "auroc_high": 0.72, "accuracy": 0.5}
    runner.figures["supervised-cnn-32/seed0", "cnn"] = interval
    line = command.reproduce("table1", workdir=tmp_path, seeds=1).lines[0]
    assert (line.auroc.mean, line.auroc.std) == (0.66, None)
    assert (line.auroc.low, line.auroc.high) == (0.61, 0.72)
    assert (line.accuracy.mean, line.accuracy.low) == (0.5, None)


def test_figures_that_are_nan_are_left_out():
    assert figures.spread([float("nan")]) == Spread()
    one = figures.spread([0.25, float("nan")], single=(float("nan"), 0.5))
    assert one == Spread(0.25, None, None, 0.5)


def test_no_interval_reaches_beyond_what_an_area_can_be():
    wide = figures.spread([0.5, 1.0])
    assert (wide.low, wide.high) == (0.0, 1.0)
    narrow = figures.spread([0.5, 0.5, 0.501])
    assert 0.49 < narrow.low < narrow.mean < narrow.high < 0.51


def test_nothing_is_finished_yet(runner, tmp_path):
    with pytest.raises(ValueError, match="no run of table8 is finished in .*--workdir"):
        command.reproduce("table8", preset="full", workdir=tmp_path, table_only=True)
    # As the table is before its first run.
    plan = command.prepare("table8", preset="full", workdir=tmp_path, root="F")
    table = command.write(plan)
    assert runner.ran == [] and table.split is None
    assert [line.finished for line in table.lines if line.seeds] == [0] * 14
    text = (tmp_path / "table8.md").read_text("utf-8")
    assert text.count("| 0/5 |") == 14
    assert "| constant predictor |  |  | 0.5000 |" in text
    assert text.startswith("## Table 8, all methods: preset full, no run finished yet")


def test_the_real_test_split(runner, tmp_path):
    table = command.reproduce(
        "table1", preset="full", root="F", workdir=tmp_path, seeds=1
    )
    assert runner.config.data.root == "F" and runner.config.data.image_size == 384
    assert table.split == "test_unseen of F" and table.preset == "full"
    assert [line.size for line in table.lines] == [*["224"] * 3, *["384"] * 4, ""]
    assert table.lines[-1].method == "constant predictor"


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ("table9", {}, r"unknown table 'table9': choose one of \['table1', 'table2'"),
        ("table3", {"preset": "full"}, "table3 needs --features=STORE"),
        ("table3", {"shard": (0, 2)}, "shards of table3 share stored features"),
        ("table3", {"leaves": {"features": "F"}}, r"itself sets \['features'\]"),
        ("table1", {"preset": "tiny"}, "unknown preset 'tiny'"),
        ("table1", {"preset": "full"}, "needs --root=FOLDER"),
        ("table1", {"preset": "paper"}, "needs --root=FOLDER"),
        ("table1", {"seeds": 0}, "seeds=0"),
        ("table1", {"shard": (2, 2)}, "got shard 2/2"),
        (
            "table1",
            {"leaves": {"pretrian.batch": "1"}},
            "leaf pretrian.batch; .*pretrain.batch",
        ),
        ("table1", {"leaves": {"seeds": "3"}}, r"itself sets \['seeds'\]"),
        (
            "table1",
            {"preset": "full", "root": "F", "leaves": {"data.image_size": "64"}},
            r"itself sets \['data.image_size'\]",
        ),
        ("table1", {"leaves": {"finetune.steps": "many"}}, "cannot be 'many'"),
    ],
)
def test_errors_come_before_any_run(runner, tmp_path, table, options, message):
    with pytest.raises(ValueError, match=message):
        command.reproduce(table, workdir=tmp_path, **options)
    assert runner.ran == []


def test_runs_that_do_not_belong_together(runner, tmp_path):
    command.reproduce("table1", workdir=tmp_path, seeds=2)
    path = tmp_path / "dino-cnn-32/seed1/results.json"
    results = json.loads(path.read_text())
    dev = results["dev"]
    assert dev == "random_validation"
    sized = results["data"] | {"sizes": {"train": 100, "dev_seen": 5}}
    earlier = json.loads(path.read_text())["seeds"]["1"]
    del earlier["evaluate"]["checkpoints"]
    for change, message in (
        ({"preset": "full"}, "preset full, expected demo"),
        (
            {"data": results["data"] | {"root": "elsewhere"}},
            "cannot be compared: folder None and elsewhere; use a separate",
        ),
        (
            {"data": results["data"] | {"sizes": {"train": 70, dev: 30}}},
            "protocol .* a random 20% of train and .* a random 30% of train",
        ),
        ({"dev": "dev_seen", "data": sized}, "protocol .* 20% of train and .*dev_seen"),
        ({"seeds": {"1": earlier}}, "one checkpoint for all of its arms"),
    ):
        path.write_text(json.dumps(results | change))
        with pytest.raises(ValueError, match=message):
            command.reproduce("table1", workdir=tmp_path, seeds=2, table_only=True)
    del results["seeds"]["1"]["evaluate"]["splits"]["test_unseen"]["cnn"]
    path.write_text(json.dumps(results))
    with pytest.raises(ValueError, match="row dino-cnn-32 is of the arm 'cnn'"):
        command.reproduce("table1", workdir=tmp_path, seeds=2, table_only=True)


def test_a_shard_that_finishes_meanwhile_is_in_the_table(runner, tmp_path, monkeypatch):
    plan = command.prepare("table1", workdir=tmp_path, seeds=1)
    collect, calls = figures.collect, []

    def slow(*args, **kwargs):
        table = collect(*args, **kwargs)
        if not calls:
            run, config = plan.jobs[0]
            runner(config, run.folder)
        calls.append(table)
        return table

    monkeypatch.setattr(figures, "collect", slow)
    table = command.write(plan)
    assert [t.lines[0].finished for t in calls] == [0, 1, 1]
    assert table.lines[0].finished == 1
    assert "1 of 7 seeds are in." in (tmp_path / "table1.html").read_text()


def test_command_line(runner, tmp_path, capsys):
    arguments = ["table1", f"--workdir={tmp_path}", "--seeds=2", "--shard=1/2"]
    command_line.main([*arguments, "--set", "config.finetune.steps=7", "log.every=3"])
    assert runner.config.finetune.steps == 7 and runner.config.log.every == 3
    out = capsys.readouterr().out
    assert "table1, preset demo: 14 runs, 0 finished" in out
    assert "shard 1 of 2 has 7 of them" in out and "to run here: 7" in out
    assert "| constant predictor |" in out and "table1.html" in out
    # Several tables in one call.
    command_line.main(["table2", "table8", f"--workdir={tmp_path}", "--table-only"])
    assert (tmp_path / "table2.html").is_file() and (tmp_path / "table8.md").is_file()
    assert "GCN, GraphSAGE, GAT: run by table3" in capsys.readouterr().out
    with refused(capsys, "error: the preset full needs --root"):
        command_line.main(["table1", "--preset=full"])
    for wrong in ("--shard=1", "--shard=a/2", "--set=steps"):
        with pytest.raises(SystemExit):
            command_line.main(["table1", wrong])
        assert "expected" in capsys.readouterr().err


def test_a_real_run(monkeypatch, tmp_path):
    """The whole way on tiny models; little to compile: pictures, no pretraining."""
    only = {"cass_mm": rows.METHODS["cass_mm"]}
    monkeypatch.setattr(rows, "METHODS", only)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(runs, "load_config", lambda name: shrunk(load_config(name)))
    named = ("model.image.", "model.text.")
    sizes = {
        k: str(v)
        for k, v in TINY.items()
        if not k.startswith(named) and k not in runs.RESERVED
    }
    leaves = sizes | {
        "stages": "('finetune', 'evaluate')",
        "finetune.steps": "2",
        "finetune.eval_every": "2",
        "parallel.devices": "1",
        "model.arm.modalities": "image",
    }
    options = {"workdir": tmp_path, "seeds": 1, "leaves": leaves}
    one = command.reproduce("table1", **options).lines[0]
    # The same run has the row of the other table.
    monkeypatch.setattr(train, "run", None)
    two = command.reproduce("table2", **options).lines[0]
    results = json.loads((tmp_path / "cass_mm-48/seed0/results.json").read_text())
    arms = results["seeds"]["0"]["evaluate"]["splits"]["test_unseen"]
    for line, arm in ((one, arms["cnn"]), (two, arms["vit"])):
        assert line.auroc.mean == arm["auroc"]
        assert line.auroc.low == arm["auroc_low"]
        assert line.accuracy.mean == arm["accuracy"]
        assert line.finished == 1 and line.collapsed is None
        assert (tmp_path / line.pages[0][1]).is_file()


def test_the_graph_networks_of_a_store(tmp_path, monkeypatch):
    """Table 3 of a store that is there, and what table 8 then shows of it."""
    monkeypatch.chdir(ROOT)
    sizes = {"train": 96, "random_validation": 24, "test_unseen": 40}
    store = write_store(tmp_path / "store", root="F", sizes=sizes)
    leaves = {
        leaf: str(value) for leaf, value in GRAPH_TINY.items() if "network" not in leaf
    }
    options = {"workdir": tmp_path, "seeds": 1, "leaves": leaves}
    with monkeypatch.context() as one:
        one.setattr(rows, "GRAPHS", {"gat": rows.GRAPHS["gat"]})
        table = command.reproduce("table3", features=str(store), **options)
        # Finished: nothing is run again.
        one.setattr(train, "run", None)
        again = command.reproduce("table3", features=str(store), **options)
    assert again == table
    results = json.loads((tmp_path / "graph-gat/seed0/results.json").read_text())
    report = results["seeds"]["0"]["evaluate"]["splits"]["test_unseen"]["gat"]
    line, constant = table.lines
    assert line.method == "GAT" and line.finished == 1 and line.collapsed is None
    assert (line.auroc.mean, line.auroc.low) == (report["auroc"], report["auroc_low"])
    assert (line.published_auroc, constant.auroc.mean) == (Spread(0.541), 0.5)
    assert (tmp_path / line.pages[0][1]).is_file()
    assert table.split == "test_unseen of F"
    assert (
        table.protocol == "checkpoint of each row's arm chosen on a random 20% of train"
    )
    assert any("same stored features" in note for note in table.notes)
    eight = command.reproduce("table8", workdir=tmp_path, seeds=1, table_only=True)
    (shown,) = [line for line in eight.lines if line.method == "GAT"]
    assert shown.auroc == line.auroc and shown.seeds == 1
    assert shown.published_auroc == Spread(0.564)


def test_the_demo_stores_features_first(runner, tmp_path, monkeypatch):
    """Encoders, then their features once, then the networks."""
    stored = []

    def store(run, out):
        assert (run / "results.json").exists() and len(runner.ran) == 1
        stored.append((run, out))

    monkeypatch.setattr(stored_features, "store", store)
    monkeypatch.setattr(runner, "results", lambda config, name: {})
    monkeypatch.setattr(command, "write", lambda plan: None)
    plan = command.prepare("table3", workdir=tmp_path, seeds=2)
    assert "17 runs, 0 finished" in plan.summary
    command.perform(plan)
    assert runner.ran[0] == "cass_mm-48/seed0" and len(runner.ran) == 17
    assert runner.ran[1:3] == ["graph-gcn/seed0", "graph-sage/seed0"]
    features = str(tmp_path / "features")
    assert stored == [(tmp_path / "cass_mm-48/seed0", features)]
    assert runner.config.features == features
    # Of a run that is there: no encoders to train.
    other = command.prepare("table3", workdir=tmp_path, seeds=1, run="RUN")
    assert str(other.encoders) == "RUN" and len(other.runs) == 8


def test_features_need_a_finished_run(tmp_path):
    with pytest.raises(ValueError, match="holds no finished run"):
        stored_features.store(tmp_path, tmp_path / "features")
