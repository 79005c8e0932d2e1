"""The memes on a run's page, the command that writes it anew, and the templates."""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from test_report import EVIL, Page, make_run

from memejax import metrics, report
from memejax.report import memes, render
from memejax.report.finished import Finished

REPORT = pathlib.Path(report.__file__).parent
KINDS = ("true positives", "true negatives", "false positives", "false negatives")


class Cards(Page):
    """Also what is known of each covered meme, under its kind."""

    def __init__(self, text):
        self.kinds, self.kind, self.summaries = {}, None, []
        super().__init__(text)

    def handle_starttag(self, tag, attrs):
        super().handle_starttag(tag, attrs)
        attrs = dict(attrs)
        if tag == "details" and attrs.get("class") == "cover":
            assert "open" not in attrs
        if tag == "summary" and "aria-label" in attrs:
            self.summaries.append(attrs["aria-label"])
            name = attrs["aria-label"].removeprefix("Show or cover meme ")
            self.kinds[self.kind].append(name)

    def handle_data(self, data):
        super().handle_data(data)
        found = [kind for kind in KINDS if kind in data]
        if self.open and self.open[-1] == "h3" and found:
            self.kind = found[0]
            self.kinds[self.kind] = []


def cards(folder, **options):
    return Cards(report.write(folder, **options).read_text("utf-8"))


def with_pictures(folder, split="test_unseen"):
    """The run with captions, and with a picture for every meme but the first two."""
    path = folder / "memes" / f"{split}.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for i, record in enumerate(records):
        record["text"] = f"caption {record['id']}"
        record["img"] = f"{i}.png"
        if i == 1:
            (folder / "memes" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
        if i > 1:
            picture = Image.new("RGB", (640, 160), (8 * i % 256, 40, 90))
            picture.save(folder / "memes" / f"{i}.png")
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return records


def naive(folder, split="test_unseen", threshold=0.4375):
    """Kind -> ids, the most confident first, straight from the files."""
    path = folder / "0" / "evaluate" / "predictions" / f"{split}.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    lines = (folder / "memes" / f"{split}.jsonl").read_text().splitlines()
    labels = {f"{r['id']:05}": r["label"] for r in map(json.loads, lines)}
    found = {kind: [] for kind in KINDS}
    for name, proba, _ in rows:
        called, true = float(proba) > threshold, labels[name] == 1
        kind = f"{str(called == true).lower()} {'positives' if called else 'negatives'}"
        found[kind].append((abs(float(proba) - threshold), name.lstrip("0") or "0"))
    return {k: [name for _, name in sorted(v)[::-1]] for k, v in found.items()}


def test_the_most_confident_memes_of_each_kind(tmp_path):
    make_run(tmp_path)
    with_pictures(tmp_path)
    expected = naive(tmp_path)
    page = cards(tmp_path)
    assert page.kinds == {kind: names[:4] for kind, names in expected.items()}
    for kind, names in expected.items():
        shown = f"4 of {len(names)}" if len(names) > 4 else str(len(names))
        assert f"{kind} ({shown})" in page.text
    for name in sum(page.kinds.values(), []):
        assert f"caption {name}" in page.text
    assert "Memes may be offensive" in page.text
    assert "on test_unseen, at the threshold 0.4375 that dev_seen chose" in page.text


def test_pictures_are_small_and_their_failures_leave_a_place(tmp_path, monkeypatch):
    make_run(tmp_path)
    with_pictures(tmp_path)
    monkeypatch.setattr(memes, "SHOWN", 40)
    page = cards(tmp_path)
    pictures = [i for i in page.images if i["alt"].startswith("Picture of meme")]
    assert len(pictures) == 38
    assert page.text.count("The picture is missing or cannot be read.") == 2
    uri, side = memes.thumbnail(str(tmp_path / "memes" / "5.png"))
    assert uri and uri.startswith("data:image/jpeg;base64,") and side == 320
    assert uri in [picture["src"] for picture in pictures]
    Image.new("L", (20, 48)).save(tmp_path / "small.png")
    assert memes.thumbnail(str(tmp_path / "small.png"))[1] == 48


def test_captions_and_ids_are_text(tmp_path):
    make_run(tmp_path)
    path = tmp_path / "memes" / "test_unseen.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    renamed = {}
    for record in records:
        renamed[f"{record['id']:05}"] = record["id"] = f"{EVIL}{record['id']}"
        record["text"] = f"{EVIL}</p></details><img src=x onerror=alert(1)>"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    for file in (tmp_path / "0/evaluate/predictions").glob("test_unseen*.csv"):
        ids, proba, _ = metrics.read_predictions(file)
        metrics.write_predictions(file, [renamed[name] for name in ids], proba=proba)
    page = cards(tmp_path)
    assert "script" not in page.tags and len(page.summaries) >= 12
    assert all(EVIL in label for label in page.summaries)
    assert not any(image["src"] == "x" for image in page.images)
    assert "</p></details><img src=x onerror=alert(1)>" in page.text


def test_memes_can_be_left_out(tmp_path):
    make_run(tmp_path)
    with_pictures(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "report" not in config and cards(tmp_path).summaries
    config["report"] = {"pictures": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    page = cards(tmp_path)
    assert not page.summaries and "caption 0" not in page.text
    assert "Memes may be offensive" not in page.text
    assert cards(tmp_path, pictures=True).summaries
    assert not cards(tmp_path, pictures=False).summaries


def test_no_memes_without_their_labels(tmp_path):
    make_run(tmp_path, seeds=2)
    assert "of seed 0 on test_unseen" in cards(tmp_path).text
    (tmp_path / "memes" / "test_unseen.jsonl").unlink()
    assert not cards(tmp_path).summaries


def test_splits_with_their_share_of_hateful_memes(tmp_path):
    results = make_run(tmp_path)
    assert "train training 100 -" in cards(tmp_path).text
    lines = [
        {"id": i, "img": "x.png", "text": "", "label": i % 4 == 0} for i in range(100)
    ]
    text = "".join(
        json.dumps(line | {"label": int(line["label"])}) + "\n" for line in lines
    )
    (tmp_path / "memes" / "train.jsonl").write_text(text)
    page = cards(tmp_path)
    assert "train training 100 25 (25.0%)" in page.text
    assert "dev_seen checkpoint, threshold 24 12 (50.0%)" in page.text
    assert "test_unseen evaluation 40 20 (50.0%)" in page.text
    heads = re.findall("<h2>(.*?)</h2>", (tmp_path / "report.html").read_text())
    assert heads[:3] == ["Data", "Results", "Memes"]
    # 24 memes of the training file held out: 12 of its 25 hateful ones.
    for name in ("results.json", "config.json"):
        path = tmp_path / name
        path.write_text(path.read_text().replace("dev_seen", "validation"))
    predictions = tmp_path / "0/evaluate/predictions"
    for file in predictions.glob("dev_seen*"):
        file.rename(predictions / file.name.replace("dev_seen", "validation"))
    results = json.loads((tmp_path / "results.json").read_text())
    results["data"]["sizes"] |= {"train": 76}
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert "train training 76 13 (17.1%)" in cards(tmp_path).text


def test_memes_of_a_feature_store(tmp_path, monkeypatch):
    """A graph run has its captions and labels from the store, by its folder."""
    from memejax.report import finished

    make_run(tmp_path)
    records = with_pictures(tmp_path)
    rows = {
        "ids": tuple(f"{r['id']:05}" for r in records),
        "images": tuple(r["img"] for r in records),
        "captions": tuple(r["text"] for r in records),
        "labels": np.array([r["label"] for r in records]),
    }

    class Store:
        facts = {"root": str(tmp_path / "memes")}
        splits = {"test_unseen": type("Split", (), rows)()}

    monkeypatch.setattr(finished, "open_store", lambda folder: Store)
    expected = naive(tmp_path)
    (tmp_path / "memes" / "test_unseen.jsonl").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"features": "store"}))
    found = Finished(tmp_path).memes("test_unseen")
    assert found["7"].image == str(tmp_path / "memes" / "7.png")
    page = cards(tmp_path)
    shown = {k: [n.lstrip("0") or "0" for n in v] for k, v in page.kinds.items()}
    assert shown == {kind: names[:4] for kind, names in expected.items()}


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "memejax.report", *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def test_the_command_writes_a_page_anew(tmp_path):
    make_run(tmp_path / "run")
    done = command(tmp_path / "run", "--no-pictures")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "run" / "report.html") in done.stdout
    assert "Memes may be" not in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("make", ["missing", "empty", "half"])
def test_the_command_names_a_folder_without_a_run(tmp_path, make):
    if make == "empty":
        (tmp_path / "run").mkdir()
    if make == "half":
        # A classifier's, whose config has gone.
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "results.json").write_text('{"errors": {}}')
    done = command(tmp_path / "run")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "holds no finished run" in line


def test_python_holds_no_html():
    for path in REPORT.rglob("*.py"):
        found = re.findall(r"</?[a-z][a-z0-9]*(?: [a-z-]+=|>|/>)", path.read_text())
        # Placeholders in the name of an array.
        assert not set(found) - {"<arm>", "<layer>"}, path.name


def test_every_template_parses_and_is_used():
    environment = render._environment()
    names = environment.list_templates()
    assert "style.css" in names and len(names) == 6
    for name in names:
        environment.get_template(name)
    used = "".join(
        path.read_text()
        for path in REPORT.rglob("*.*")
        if path.is_file() and path.suffix in (".py", ".j2")
    )
    assert all(f'"{name}"' in used for name in names)
