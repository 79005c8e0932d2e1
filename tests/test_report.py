"""Runs' folders written here by hand, and what a person is shown of them."""

import base64
import html.parser
import json
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from memejax import metrics, report
from memejax.report import plots, tables
from memejax.train.results import summary

ARMS = ("cnn", "vit")
SPLITS = {"dev_seen": 24, "test_unseen": 40}
EVIL = '<script>alert("x")</script>&'
PANEL = {"std": 0.727, "mean_cosine": 0.451, "effective_rank": 49.96}
DEAD = {"std": 0.012, "mean_cosine": 0.991, "effective_rank": 1.04}


def memes(n, seed):
    """Ids, labels, and probabilities that know something of the labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    arms = {arm: rng.uniform(0, 0.7, n) + 0.3 * labels for arm in ARMS}
    return [f"{i:05}" for i in range(n)], labels, arms


def make_run(
    folder,
    *,
    seeds=1,
    stages=("pretrain", "finetune", "evaluate"),
    name="cass_mm",
    panel=None,
    unlabelled=False,
    bootstrap=50,
):
    """Writes a run's folder; returns what its results.json holds."""
    results = {
        "config": name,
        "preset": "demo",
        "dev": "dev_seen",
        "data": {
            "root": None,
            "sizes": {"train": 100, **SPLITS},
            "truncated_captions": 3,
            "bad_records": 1,
            "vocabulary": 285,
            "bayes": {
                "both": {"auroc": 0.9876, "accuracy": 0.9321},
                "image": {"auroc": 0.5123, "accuracy": 0.5},
                "text": {"auroc": 0.5234, "accuracy": 0.5},
            },
        },
        "seeds": {},
        "seconds": 3723.4,
        "peak_memory_gb": 1.927,
    }
    (folder / "memes").mkdir(parents=True)
    for split, n in SPLITS.items():
        ids, labels, _ = memes(n, 0)
        records = [
            {"id": int(i), "img": "x.png", "text": "", "label": int(y)}
            for i, y in zip(ids, labels, strict=True)
        ]
        path = folder / "memes" / f"{split}.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in records))
    for seed in range(seeds):
        outcomes = {}
        if "pretrain" in stages:
            outcomes["pretrain"] = write_pretrain(folder, seed, panel or PANEL)
        if "finetune" in stages:
            outcomes["finetune"] = write_finetune(folder / str(seed))
        if "evaluate" in stages:
            outcomes["evaluate"] = write_evaluate(folder / str(seed), seed, bootstrap)
        if unlabelled:
            write_csv(folder / str(seed), "test_seen", *memes(10, seed)[::2])
            results["data"]["sizes"]["test_seen"] = 10
        results["seeds"][str(seed)] = outcomes
    results["summary"] = summary(results["seeds"])
    config = {"name": name, "stages": list(stages), "data": {"root": None}}
    environment = {
        "platform": f"Linux {EVIL}",
        "python": "3.11.7",
        "cores": 2,
        "devices": ["cpu cpu"],
        "packages": {"jax": "0.10.2", "memejax": None},
        "commit": None,
    }
    for file, value in (
        ("results", results),
        ("config", config),
        ("environment", environment),
    ):
        (folder / f"{file}.json").write_text(json.dumps(value))
    return results


def write_lines(folder, lines):
    folder.mkdir(parents=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)


def write_pretrain(folder, seed, panel):
    write_lines(
        folder / str(seed) / "pretrain",
        [
            {
                "step": step,
                "split": "train",
                "loss": (3 + seed) / step,
                "cass": 1 / step,
            }
            | {"lr/cnn": 1e-3, "lr/vit": 5e-4, "grad_norm": 2.0, "clock": {"s": 1.0}}
            | {f"collapse/{arm}/{k}": v for arm in ARMS for k, v in panel.items()}
            for step in (5, 10)
        ],
    )
    figures = {f"{arm}/{key}": v for arm in ARMS for key, v in panel.items()}
    dead = panel["std"] < 0.1
    return {
        "steps": 10,
        "seconds": 51.86,
        "best": None,
        "best_step": None,
        "panel": figures,
        "collapsed": dead,
        "why_collapsed": ["vit: std 0.012 is below 0.1"] if dead else [],
    }


def write_finetune(folder):
    lines = [{"step": 5, "split": "train", "loss": 1.5, "bce/cnn": 0.8, "bce/vit": 0.7}]
    dev = {"auroc/cnn": 0.6, "auroc/vit": None, "auroc/average": 0.7125}
    write_lines(folder / "finetune", [*lines, {"step": 10, "split": "dev_seen"} | dev])
    return {"steps": 10, "seconds": 53.16, "best": 0.7125, "best_step": 10}


def write_csv(folder, split, ids, arms):
    path = folder / "evaluate" / "predictions"
    path.mkdir(parents=True, exist_ok=True)
    average = np.mean(list(arms.values()), axis=0)
    for suffix, proba in [("", average), *((f".{a}", p) for a, p in arms.items())]:
        metrics.write_predictions(path / f"{split}{suffix}.csv", ids, proba=proba)
    return arms | {"average": average}


def write_evaluate(folder, seed, bootstrap):
    splits = {}
    for place, (split, n) in enumerate(SPLITS.items()):
        ids, labels, arms = memes(n, 10 * seed + place)
        splits[split] = {
            arm: metrics.binary_report(
                proba, labels, threshold=0.4375, bootstrap=bootstrap
            )
            for arm, proba in write_csv(folder, split, ids, arms).items()
        } | {"constant": metrics.constant_report(labels)}
    return {"checkpoint": 10, "splits": splits}


class Page(html.parser.HTMLParser):
    """Checks that tags are closed in order, and collects what a test asks for."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.images, self.links, self.words = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        self.links += [value for name, value in attrs if name in ("href", "src")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def alt(self, start):
        return [i["alt"] for i in self.images if i["alt"].startswith(start)]


def page_of(folder):
    return Page(report.write(folder).read_text("utf-8"))


def printed(results, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    report.console(results)
    out = capsys.readouterr().out
    assert "\x1b" not in out and "…" not in out
    assert max(map(len, out.splitlines())) <= width
    return out


def test_summary_has_no_nan():
    rows = [{"auroc": 0.75, "f1": math.nan}, {"auroc": 0.25, "f1": 0.5}]
    seeds = {
        str(i): {"evaluate": {"splits": {"t": {"a": r}}}} for i, r in enumerate(rows)
    }
    both = summary(seeds)["t"]["a"]
    assert both["auroc"] == {"mean": 0.5, "std": pytest.approx(math.sqrt(0.125))}
    assert both["f1"] == {"mean": None, "std": None}
    one = summary({"1": seeds["1"]})["t"]["a"]
    assert one["auroc"] == {"mean": 0.25, "std": None}
    assert summary({"0": {"pretrain": {}}}) == {}


@pytest.mark.parametrize("width", [80, 100])
def test_console_prints_each_figure_whole(tmp_path, capsys, monkeypatch, width):
    results = make_run(tmp_path / "run")
    out = printed(results, capsys, monkeypatch, width)
    for split, arms in results["seeds"]["0"]["evaluate"]["splits"].items():
        assert f"{split}: {SPLITS[split]} memes, preset demo" in out
        for arm in (*ARMS, "average"):
            r = arms[arm]
            cells = [
                arm,
                f"{r['auroc']:.4f} [{r['auroc_low']:.3f}, {r['auroc_high']:.3f}]",
                *(f"{r[k]:.4f}" for k in ("accuracy", "threshold_accuracy", "f1")),
            ]
            assert re.search(" +".join(map(re.escape, cells)) + "\n", out), cells
    assert len(re.findall(r"constant +0\.5000 +0\.5000 +0\.5000 +0\.0000\n", out)) == 2
    assert len(re.findall(r"Bayes \(possible\) +0\.9876 +0\.9321 +- +-\n", out)) == 2
    assert "0.5123" in out and "0.5234" in out
    assert out.count("chose the checkpoint: optimistic") == 1
    assert re.search(r"cnn, seed 0 +0\.727 +0\.451 +50\.0 +not collapsed\n", out)
    assert re.search(r"collapsed +below 0\.1 +above 0\.95 +below 2", out)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_console_of_many_seeds(tmp_path, capsys, monkeypatch, encoding):
    monkeypatch.setattr("rich.console.Console.encoding", encoding)
    results = make_run(tmp_path / "run", seeds=3)
    out = printed(results, capsys, monkeypatch, 80)
    seeds = results["seeds"].values()
    values = [s["evaluate"]["splits"]["test_unseen"]["average"]["auroc"] for s in seeds]
    sign = "± " if encoding == "utf-8" else "+-"
    figure = f"{np.mean(values):.4f} {sign}{np.std(values, ddof=1):.4f}"
    assert re.search(f"average +{re.escape(figure)} ", out)
    assert f"Over 3 seeds, the average of the arms reaches an AUROC of {figure}" in (
        out.replace("\n", "").replace("  ", " ")
    )
    assert "[" not in out
    assert out.isascii() == (encoding == "ascii")


def test_console_shouts_collapse(tmp_path, capsys, monkeypatch):
    results = make_run(tmp_path / "run", panel=DEAD, stages=("pretrain",))
    out = printed(results, capsys, monkeypatch, 80)
    assert "COLLAPSED in 1 of 1 seed" in out
    assert re.search(r"vit, seed 0 +0\.012 +0\.991 +1\.0 +COLLAPSED\n", out)
    assert "Seed 0: vit: std 0.012 is below 0.1." in out
    assert "Pretraining collapsed (seed 0)." in page_of(tmp_path / "run").text


def test_page_has_the_figures_of_the_results(tmp_path):
    results = make_run(tmp_path)
    page = page_of(tmp_path)
    split = results["seeds"]["0"]["evaluate"]["splits"]["test_unseen"]
    r = split["average"]
    low, high = f"{r['auroc_low']:.3f}", f"{r['auroc_high']:.3f}"
    assert (
        f"The average of the arms reaches an AUROC of {r['auroc']:.4f} (95 % interval "
        f"{low} to {high}) on test_unseen (40 memes); a constant predictor has 0.5."
    ) in page.text
    assert f"average {r['auroc']:.4f} [{low}, {high}] {r['accuracy']:.4f}" in page.text
    area = {arm: f"{split[arm]['auroc']:.4f}" for arm in split}
    said = f"AUROC: cnn {area['cnn']}, vit {area['vit']}, average {area['average']}."
    assert page.alt("ROC curves")[0] == f"ROC curves. {said}"
    c = r["confusion"]
    counts = f"is not hateful {c['tn']} {c['tn'] / 20:.1%} {c['fp']} {c['fp'] / 20:.1%}"
    assert counts in page.text and "At the threshold 0.4375" in page.text
    for text in ("1:02:03", "1.93 GB", "jax 0.10.2", "285 tokens", "Captions cut 3"):
        assert text in page.text
    assert "finetune, seed 0 10 53.2 0.7125 10" in page.text
    assert page.alt("AUROC on dev_seen")[0].startswith(
        "AUROC on dev_seen. At the end: cnn 0.6; average 0.7125."
    )
    assert page.alt("Std") == ["Std. At the end: cnn 0.727; vit 0.727."]
    assert page.alt("Learning rate") == [
        "Learning rate. At the end: cnn 0.001; vit 0.0005."
    ]


def test_page_needs_nothing_else(tmp_path):
    make_run(tmp_path)
    page = page_of(tmp_path)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    files = [link for link in page.links if not link.startswith("data:image/svg+xml")]
    assert files and all((tmp_path / file).is_file() for file in files)
    assert page.images and all(image["alt"] for image in page.images)
    for image in page.images:
        svg = base64.b64decode(image["src"].partition("base64,")[2])
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert b'href="http' not in svg


def test_everything_is_escaped(tmp_path):
    results = make_run(tmp_path, name=EVIL)
    results["data"]["root"] = results["preset"] = EVIL
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = page_of(tmp_path)
    assert "script" not in page.tags
    # Title, preset, heading, system, tables, data.
    assert page.text.count(EVIL) >= 6


@pytest.mark.parametrize(
    ("stages", "there", "absent"),
    [
        (("pretrain",), "Pretraining", "Fine-tuning Results"),
        (("finetune",), "Fine-tuning", "Pretraining Results"),
        (("finetune", "evaluate"), "Fine-tuning Results", "Pretraining"),
        ((), "Config", "Pretraining Fine-tuning Results"),
    ],
)
def test_stages_may_be_missing(tmp_path, capsys, monkeypatch, stages, there, absent):
    results = make_run(tmp_path, stages=stages)
    text = report.write(tmp_path).read_text("utf-8")
    assert all(f"<h2>{name}</h2>" in text for name in there.split())
    assert not any(f"<h2>{name}</h2>" in text for name in absent.split())
    out = printed(results, capsys, monkeypatch, 80)
    assert ("no figure to report" in out) == ("evaluate" not in stages)
    if "finetune" in stages and "evaluate" not in stages:
        assert re.search(r"finetune, seed 0 +10 +53\.2 +0\.7125 +10\n", out)


def test_page_of_many_seeds(tmp_path):
    results = make_run(tmp_path, seeds=3)
    page = page_of(tmp_path)
    row = results["summary"]["test_unseen"]["average"]
    cells = " ".join(
        f"{row[k]['mean']:.4f} ± {row[k]['std']:.4f}"
        for k in ("auroc", "accuracy", "threshold_accuracy", "f1")
    )
    assert f"average {cells}" in page.text
    assert "Over 3 seeds" in page.text and "One curve per seed" in page.text
    tn = sum(
        s["evaluate"]["splits"]["test_unseen"]["average"]["confusion"]["tn"]
        for s in results["seeds"].values()
    )
    assert f"is not hateful {tn} {tn / 60:.1%}" in page.text
    assert page.alt("Loss")[0] == "Loss. At the end: 0.3 to 0.5."


def test_unlabelled_split_and_lost_labels(tmp_path):
    make_run(tmp_path, unlabelled=True)
    proba = metrics.read_predictions(
        tmp_path / "0" / "evaluate" / "predictions" / "test_seen.csv"
    )[1]
    page = page_of(tmp_path)
    share = f"10 scores, {np.mean(proba > 0.5):.1%} of them above 0.5."
    assert page.alt("Scores of the average. ") == [f"Scores of the average. {share}"]
    assert len(page.alt("ROC curves")) == 2
    # Other labels than those of the run: its curves would be of something else.
    path = tmp_path / "memes" / "dev_seen.jsonl"
    path.write_text(path.read_text().replace('"label": 0', '"label": 1', 2))
    (tmp_path / "memes" / "test_unseen.jsonl").unlink()
    page = page_of(tmp_path)
    assert page.alt("ROC curves") == []
    assert page.text.count("No curves") == 2


def test_control_runs_say_so(tmp_path):
    make_run(tmp_path, stages=())
    path = tmp_path / "config.json"
    for modalities in ("text", "both"):
        config = json.loads(path.read_text())
        config["model"] = {"arm": {"modalities": modalities}}
        path.write_text(json.dumps(config))
        said = "A control run: the arms are given the text alone." in (
            page_of(tmp_path).text
        )
        assert said == (modalities == "text")


def test_no_interval_without_bootstrap(tmp_path, capsys, monkeypatch):
    results = make_run(tmp_path, bootstrap=0)
    out = printed(results, capsys, monkeypatch, 80)
    assert "nan" not in out.lower() and "[" not in out and "bracket" not in out
    assert "nan" not in page_of(tmp_path).text.lower()


def test_headline_prefers_the_test_set_and_owns_up():
    figure = {"mean": 0.51, "std": None}
    row = {"n": 9, "auroc": 0.51, "auroc_low": 0.4, "auroc_high": 0.6}
    results = {
        "dev": "dev",
        "preset": "demo",
        "data": {},
        "summary": {"dev": {"average": {"auroc": figure}}},
        "seeds": {"0": {"evaluate": {"splits": {"dev": {"average": row}}}}},
    }
    assert tables.headline(results) == "dev"
    text = tables.sentence(results)
    assert "optimistic" in text and "shows no skill" in text
    for split in ("other", "test_unseen"):
        results["summary"][split] = results["summary"]["dev"]
        results["seeds"]["0"]["evaluate"]["splits"][split] = {"average": row}
        assert tables.headline(results) == split
    assert "optimistic" not in tables.sentence(results)


def test_roc_line_by_hand():
    line = plots.roc_line("a", [0.9, 0.6, 0.4, 0.1], [1, 0, 1, 0], style=0)
    assert list(zip(line.x, line.y, strict=True)) == [
        (0.0, 0.0),
        (0.0, 0.5),
        (0.5, 0.5),
        (0.5, 1.0),
        (1.0, 1.0),
    ]


def test_lines_mark_bounds_and_take_any_label():
    curve = plots.Line("_$x^$", list(range(5000)), np.sin(np.arange(5000)).tolist())

    def drawn(bounds):
        uri = plots.lines([curve], last=5000, bounds=bounds)
        return base64.b64decode(uri.partition("base64,")[2]).decode()

    # The line and its label are in the colour of a warning.
    assert drawn({"collapsed below 0.1": 0.1}).count("#b42318") >= 2
    assert "#b42318" not in drawn({})
    # 5000 points are finer than the plot.
    assert len(drawn({})) < 150_000


def test_no_results_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no results.json"):
        report.write(tmp_path)
