"""Runs that were probed, and DINO's, written by hand: what a person is shown."""

import base64
import copy
import html.parser
import json
import math
import re

import pytest

from memejax import report
from memejax.report import tables

# 1 by 1 pixel: what it shows is of no account here.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg=="
)
EVIL = '<script>alert("x")</script>&'
LN_8 = math.log(8)
DINO = {
    "std": 0.75,
    "mean_cosine": 0.25,
    "effective_rank": 12.0,
    "cross_entropy": 1.5,
    "teacher_entropy": math.log(2),
    "kl": 1.5 - math.log(2),
    "mean_entropy": math.log(4),
    "log_k": LN_8,
}


def both(knn, linear):
    """A row of an outcome, the same figures under each probe's own name."""
    return {"knn": {"accuracy": knn}, "linear": {"accuracy": linear}}


def probe(cnn=0.5, vit=0.84, *, stage="pretrain", split="test", classes=4):
    return {
        "split": split,
        "classes": classes,
        "examples": {"train": 256, split: 400},
        "k": 20,
        "figures": {
            stage: {"cnn": both(cnn, 0.625), "vit": both(vit, 0.875)},
            "untrained": {"cnn": both(0.48, 0.55), "vit": both(0.52, 0.6)},
            "pixels": {"both": {"knn": {"accuracy": 0.97}}},
        },
        "panel": {},
        "pictures": ["attention", "map-cnn", "map-vit"],
    }


def results_of(*seeds):
    """What results.json holds of seeds with these outcomes."""
    return {
        "config": "dino",
        "preset": "demo",
        "dev": "test",
        "data": {
            "name": "pictures",
            "root": None,
            "sizes": {"test": 400, "train": 256},
            "bad_records": 0,
            "truncated_captions": 0,
            "vocabulary": 0,
        },
        "seeds": {str(i): outcomes for i, outcomes in enumerate(seeds)},
        "summary": {},
        "seconds": 12.0,
        "peak_memory_gb": 1.0,
    }


def pretrain(**arms):
    """The outcome of a pretraining with these panels."""
    panel = {f"{arm}/{k}": v for arm, own in arms.items() for k, v in own.items()}
    outcome = {"steps": 4, "seconds": 68.9, "best": None, "best_step": None}
    return outcome | {"panel": panel, "collapsed": False, "why_collapsed": []}


def write_run(folder, results, *, lines=(), pictures=("attention", "map-cnn")):
    """Writes a run's folder, the pictures of each of its probes too."""
    for seed, outcomes in results["seeds"].items():
        for stage, outcome in outcomes.items():
            where = folder / seed / stage
            where.mkdir(parents=True)
            if stage == "pretrain":
                text = "".join(json.dumps(line) + "\n" for line in lines)
                (where / "metrics.jsonl").write_text(text)
            for name in pictures if "pictures" in outcome else ():
                (where / f"{name}.png").write_bytes(PNG + seed.encode())
    image = {"cnn": {"name": "resnet"}, "vit": {"name": "vit"}}
    config = {
        "name": "dino",
        "stages": ["pretrain", "probe"],
        "model": {"image": image},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "results.json").write_text(json.dumps(results))


class Page(html.parser.HTMLParser):
    """A page's tags, images and words."""

    def __init__(self, folder):
        super().__init__()
        self.tags, self.images, self.words = [], [], []
        self.feed(report.write(folder).read_text("utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_data(self, data):
        # Not the style sheet.
        if self.tags[-1:] != ["style"]:
            self.words.append(data)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))

    def alt(self, start):
        return [i["alt"] for i in self.images if i["alt"].startswith(start)]

    def pngs(self):
        """The bytes of the PNG pictures."""
        sources = [i["src"].partition("data:image/png;base64,") for i in self.images]
        return [base64.b64decode(code) for before, _, code in sources if not before]


def test_table_of_one_seed():
    (table,) = tables.representation(results_of({"probe-pretrain": probe()})).values()
    assert table.title == (
        "Representation on test: 400 examples of 4 classes, preset demo"
    )
    assert table.columns == ("", "kNN\naccuracy", "linear probe\naccuracy")
    assert table.rows == [
        ["cnn, pretrain", "0.500", "0.625"],
        ["vit, pretrain", "0.840", "0.875"],
        ["cnn, untrained", "0.480", "0.550"],
        ["vit, untrained", "0.520", "0.600"],
        ["raw pixels", "0.970", "-"],
        ["chance, 1 of 4", "0.250", "0.250"],
    ]
    notes = " ".join(table.notes)
    # 0.5 / sqrt(400).
    assert "256 examples of train" in notes and "20 nearest" in notes
    assert "over 400 examples is up to 0.025" in notes
    assert "±" not in notes


def test_table_over_seeds():
    seeds = [{"probe-pretrain": probe(vit=vit)} for vit in (0.8, 0.9, 0.7)]
    table = tables.representation(results_of(*seeds))["test"]
    rows = {row[0]: row[1:] for row in table.rows}
    # Of 0.7, 0.8, 0.9 the sample standard deviation is 0.1.
    assert rows["vit, pretrain"] == ["0.800 ± 0.100", "0.875 ± 0.000"]
    # The pixels are the same for every seed.
    assert rows["raw pixels"] == ["0.970", "-"]
    assert "± is the standard deviation over 3 seeds." in table.notes


def test_two_classes_have_auroc_and_a_known_majority():
    outcome = probe(classes=2)
    for arms in outcome["figures"].values():
        for probes in arms.values():
            for figures in probes.values():
                figures["auroc"] = figures["accuracy"] / 2 + 0.25
    results = results_of({"probe-pretrain": outcome})
    table = tables.representation(results)["test"]
    assert table.columns[1:] == (
        "kNN\nAUROC",
        "kNN\naccuracy",
        "linear probe\nAUROC",
        "linear probe\naccuracy",
    )
    assert table.rows[1] == ["vit, pretrain", "0.670", "0.840", "0.688", "0.875"]
    assert table.rows[-2] == ["raw pixels", "0.735", "0.970", "-", "-"]
    assert table.rows[-1] == ["chance, 1 of 2", "0.500", "0.500", "0.500", "0.500"]
    assert "kNN AUROC on test of the pretrained cnn 0.500" in tables.sentence(results)
    # Where the split was evaluated its majority rate is known.
    results["summary"] = {"test": {"constant": {"accuracy": {"mean": 0.625}}}}
    table = tables.representation(results)["test"]
    assert table.rows[-1] == ["constant", "0.500", "0.625", "0.500", "0.625"]


def test_two_stages_share_a_table():
    outcomes = {
        "probe-pretrain": probe(),
        "probe-finetune": probe(vit=0.9, stage="finetune"),
    }
    (table,) = tables.representation(results_of(outcomes)).values()
    names = [row[0] for row in table.rows]
    assert names[2:4] == ["cnn, finetune", "vit, finetune"]
    assert names[4:8] == [
        "cnn, untrained (pretrain)",
        "vit, untrained (pretrain)",
        "cnn, untrained (finetune)",
        "vit, untrained (finetune)",
    ]
    assert names[8:] == ["raw pixels", "chance, 1 of 4"]
    assert table.rows[3][1] == "0.900"


def test_missing_figures_are_dashes():
    outcome = probe()
    outcome["figures"]["pixels"] = {}
    outcome["figures"]["pretrain"]["vit"]["linear"]["accuracy"] = None
    table = tables.representation(results_of({"probe-pretrain": outcome}))["test"]
    assert ["vit, pretrain", "0.840", "-"] in table.rows
    assert not any(row[0] == "raw pixels" for row in table.rows)
    assert any("Raw pixels were not compared" in note for note in table.notes)


def test_sentence_says_what_was_learnt():
    text = tables.sentence(results_of({"probe-pretrain": probe()}))
    assert text == (
        "kNN accuracy on test of the pretrained cnn 0.500 (untrained 0.480) and vit "
        "0.840 (untrained 0.520); raw pixels 0.970, chance 0.250. The cnn is not "
        "clearly above untrained."
    )
    # Two standard errors of a difference over 400 examples are sqrt(2 / 400) = 0.071.
    for cnn, said in ((0.48 + 0.070, True), (0.48 + 0.072, False)):
        text = tables.sentence(results_of({"probe-pretrain": probe(cnn=cnn)}))
        assert ("not clearly above" in text) == said
    seeds = [{"probe-pretrain": probe(vit=vit)} for vit in (0.8, 0.9)]
    text = tables.sentence(results_of(*seeds))
    assert text.startswith("Over 2 seeds, kNN accuracy") and "vit 0.850" in text
    text = tables.sentence(results_of({"probe-finetune": probe(stage="finetune")}))
    assert "of the fine-tuned cnn" in text
    assert "no figure to report" in tables.sentence(results_of({}))


def test_dino_table_by_hand():
    results = results_of({"pretrain": pretrain(cnn=DINO)})
    table = tables.dino(results)
    assert table is not None
    assert table.title == "DINO's last panel: 8 prototypes, ln K = 2.079 (preset demo)"
    # exp(ln 4) prototypes; ln 4 - ln 2 = 0.693 of information.
    assert table.rows == [
        ["cnn, seed 0", "1.500", "0.693", "0.807", "4.0", "0.693"],
        ["uniform output", "2.079", "2.079", "0.000", "8.0", "0.000"],
        ["collapsed", "", "", "", "below 1.1", "below 0.0021"],
    ]
    panel = tables.pretraining(results)
    first = ["cnn, seed 0", "0.750", "0.250", "12.0", "not collapsed"]
    assert panel is not None and panel.rows[0] == first
    # A panel of one example has no mean entropy.
    one = DINO | {"mean_entropy": None}
    table = tables.dino(results_of({"pretrain": pretrain(cnn=one)}))
    expected = ["cnn, seed 0", "1.500", "0.693", "0.807", "-", "-"]
    assert table is not None and table.rows[0] == expected


def test_no_dino_table_of_cass():
    own = ("std", "mean_cosine", "effective_rank")
    panel = {name: DINO[name] for name in own}
    results = results_of({"pretrain": pretrain(cnn=panel, vit=panel)})
    assert tables.dino(results) is None
    table = tables.pretraining(results)
    assert table is not None and len(table.rows) == 4
    assert tables.dino(results_of({})) is None


@pytest.mark.parametrize("width", [80, 100])
def test_console_of_a_probed_run(capsys, monkeypatch, width):
    seed = {"pretrain": pretrain(cnn=DINO, vit=DINO), "probe-pretrain": probe()}
    results = results_of(seed, copy.deepcopy(seed))
    monkeypatch.setenv("COLUMNS", str(width))
    report.console(results)
    out = capsys.readouterr().out
    assert "…" not in out and max(map(len, out.splitlines())) <= width
    assert re.search(r"vit, seed 1 +1\.500 +0\.693 +0\.807 +4\.0 +0\.693\n", out)
    assert re.search(r"pretrain, seed 0 +4 +68\.9\n", out)
    assert re.search(r"vit, untrained +0\.520 \S+ ?0\.000 +0\.600 \S+ ?0\.000\n", out)
    assert out.index("Pretraining:") < out.index("Representation on test")
    # The sentence comes last.
    last = " ".join(out[out.rindex("Over 2 seeds") :].split())
    assert last.endswith("The cnn is not clearly above untrained.")


def test_page_of_a_probed_run(tmp_path):
    lines = [
        {"step": step, "split": "train", "loss": 4.0 / step, "dino/cnn": 3.0 / step}
        | {f"collapse/cnn/{name}": value for name, value in DINO.items()}
        for step in (2, 4)
    ]
    results = results_of({"pretrain": pretrain(cnn=DINO), "probe-pretrain": probe()})
    write_run(tmp_path, results, lines=lines)
    page = Page(tmp_path)
    heads = re.findall("<h2>(.*?)</h2>", (tmp_path / "report.html").read_text())
    assert heads[:3] == ["Data", "Representation", "Pretraining"]
    assert "vit, pretrain 0.840 0.875" in page.text
    assert "cnn, seed 0 1.500 0.693 0.807 4.0 0.693" in page.text
    assert "kNN accuracy on test of the pretrained cnn 0.500" in page.text
    # map-vit.png has gone: the others are whole.
    assert page.pngs() == [PNG + b"0"] * 2
    (alt,) = page.alt("Where they look")
    assert "cnn Grad-CAM, along the embedding's own direction" in alt
    assert "vit attention, what the CLS token" in alt
    assert page.alt("Embeddings of the cnn on test. t-SNE")
    assert all(image["alt"] for image in page.images)
    # One curve a figure, and the loss once.
    assert page.alt("DINO's loss by arm") == [
        "DINO's loss by arm. At the end: cnn 0.75."
    ]
    assert page.alt("Prototypes in use") == ["Prototypes in use. At the end: cnn 4."]
    assert page.alt("Entropy of the teacher")[0].endswith("cnn 0.6931.")
    assert page.alt("KL")[0].endswith("cnn 0.8069.")
    assert page.alt("Std")[0].endswith("cnn 0.75.")
    # ln K is a line in the colour of a warning, where it is what to compare with.
    for title, lined in (("DINO's", 1), ("Entropy", 1), ("KL", 0), ("Loss", 0)):
        (source,) = (i["src"] for i in page.images if i["alt"].startswith(title))
        svg = base64.b64decode(source.partition("base64,")[2])
        assert (b"#b42318" in svg) == lined, title
    assert not page.alt("log_k") and not page.alt("mean_entropy")


def test_page_names_the_data(tmp_path):
    results = results_of({"pretrain": pretrain(cnn=DINO), "probe-pretrain": probe()})
    write_run(tmp_path, results)
    text = Page(tmp_path).text
    assert "Data pictures, built in Stages" in text and "Classes 4" in text
    assert "used for examples train training 256 test - 400" in text
    for absent in ("meme", "Vocabulary", "Captions", "checkpoint, threshold"):
        assert absent not in text.replace("memejax", ""), absent
    results["data"] |= {"name": "cifar10", "root": "/data/cifar", "classes": 10}
    (tmp_path / "results.json").write_text(json.dumps(results))
    text = Page(tmp_path).text
    assert "Data CIFAR-10 Stages" in text
    assert "Folder /data/cifar Classes 10" in text
    # As results were before there was other data.
    for name in ("name", "classes"):
        del results["data"][name]
    (tmp_path / "results.json").write_text(json.dumps(results))
    text = Page(tmp_path).text
    assert "Data cifar Stages" in text and "Folder /data/cifar" in text
    assert "used for memes hateful" in text and "test - 400 -" in text


def test_page_of_many_seeds_has_the_first_seeds_pictures(tmp_path):
    for many, shown in ((3, 3), (4, 1)):
        folder = tmp_path / str(many)
        folder.mkdir()
        write_run(folder, results_of(*[{"probe-pretrain": probe()}] * many))
        page = Page(folder)
        assert len(page.pngs()) == 2 * shown
        assert ("others: 1/probe-pretrain, 2/" in page.text) == (many > 3)
        assert ("networks see, seed 2" in page.text) == (many == 3)


def test_pictures_and_their_names_are_escaped(tmp_path):
    outcome = probe(split="test")
    outcome["split"] = EVIL
    outcome["examples"] = {"train": 256, EVIL: 400}
    outcome["figures"]["pretrain"]["&<b>"] = both(0.1, 0.1)
    results = results_of({"probe-pretrain": outcome})
    results["data"]["name"] = EVIL
    write_run(tmp_path, results)
    page = Page(tmp_path)
    assert "script" not in page.tags and "b" in page.tags
    # Sentence, table, its note, two pictures, data.
    assert page.text.count(EVIL) >= 5
    assert page.alt("Where they look")[0].startswith(
        f"Where they look, on the first pictures of {EVIL}."
    )
    assert "&<b>, pretrain 0.100 0.100" in page.text
