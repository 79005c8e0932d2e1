"""What a finished run says of new memes, from its folder alone."""

import csv
import dataclasses
import io
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from support import refused, without_data

from memejax import decisions, metrics, predict
from memejax.data import images, known_memes, ocr, pdq
from memejax.data.captions import CAPTIONS
from memejax.data.hateful_memes import read_jsonl
from memejax.data.inputs import Item
from memejax.data.known_file import KnownMeme
from memejax.metrics.calibration import Calibration
from memejax.metrics.thresholds import Certified, parse_rule
from memejax.predict import __main__ as command
from memejax.predict import command as work
from memejax.predict import load, rows
from memejax.predict import moderator as moderators

SPLIT = "dev_seen"


def scored(run, arm=""):
    """Ids and probabilities that the run wrote itself."""
    path = run / "0" / "evaluate" / "predictions" / f"{SPLIT}{arm}.csv"
    return metrics.read_predictions(path)[:2]


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """The finished run without its data."""
    return without_data(finished[0], tmp_path_factory.mktemp("predict") / "run")


@pytest.fixture(scope="module")
def memes(finished):
    root = finished[0] / "memes"
    return read_jsonl(str(root / f"{SPLIT}.jsonl"), root=str(root), split=SPLIT)[0]


@pytest.fixture(scope="module")
def predictor(run):
    # Seven batches of 2 and one of 1 are 15: the last is filled up.
    return dataclasses.replace(predict.load_predictor(run), batch=2)


@pytest.fixture(scope="module")
def pictures(predictor, memes):
    decoded, errors = predictor.read([meme.image for meme in memes])
    assert errors == {}
    return decoded


def test_agrees_with_the_run(run, predictor, pictures, memes):
    captions = [meme.text for meme in memes]
    ids, expected = scored(run)
    assert ids == [meme.id for meme in memes]
    close(predictor.predict(pictures[:15], captions[:15]), expected[:15])
    alone = predict.load_predictor(run, arm="vit")
    of_arm = scored(run, ".vit")[1]
    close(alone.predict(pictures[:2], captions[:2]), of_arm[:2])
    assert np.abs(of_arm - expected)[:2].max() > 1e-3
    report = json.loads((run / "results.json").read_text())["seeds"]["0"]["evaluate"]
    for arm, one in (("average", predictor), ("vit", alone)):
        assert one.threshold == report["splits"][SPLIT][arm]["threshold"]


@settings(deadline=None, derandomize=True, max_examples=20)
@given(order=st.permutations(range(16)), n=st.integers(0, 16))
def test_each_meme_by_itself(run, predictor, pictures, memes, order, n):
    rows = order[:n]
    got = predictor.predict(pictures[rows], [memes[i].text for i in rows])
    assert got.shape == (n,)
    close(got, scored(run)[1][rows])


def test_wrong_pictures(predictor, pictures):
    for wrong in (pictures, pictures[:2].astype(np.float32), pictures[:2, 1:]):
        with pytest.raises(ValueError, match=r"expected uint8 \(2, 24, 24, 3\)"):
            predictor.predict(wrong, ["a", "b"])


@pytest.fixture(scope="module")
def moderator(predictor):
    return predict.Moderator(predictor, None, Reader())


class Reader:
    """A reader that reads "read" off every picture that is one."""

    def read(self, picture, *, max_pixels):
        images.load(picture, max_pixels=max_pixels)
        return ocr.Reading((ocr.Line("read", 0.9),))


@pytest.fixture
def loaded(monkeypatch, predictor):
    """Commands use the predictor that is compiled already."""
    monkeypatch.setattr(load, "load_predictor", lambda *_, **__: predictor)
    monkeypatch.setattr(load, "CaptionReader", lambda **_: Reader())


def written(path):
    """The rows of a CSV file, their numbers as floats."""
    with open(path, newline="") as file:
        found = list(csv.DictReader(file))
    assert all(list(row) == list(rows.FIELDS) for row in found)
    return found


def column(path, name):
    return [row[name] for row in written(path)]


def probas(path):
    return np.array([float(row["raw_proba"]) for row in written(path)])


def jsonl(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def test_the_mean_of_several_seeds(run, pictures, memes):
    """Of two that differ, each predicted alone."""
    one = predict.restore(run)
    other = dataclasses.replace(
        one, variables=jax.tree.map(lambda leaf: 1.05 * leaf, one.variables)
    )
    captions = [meme.text for meme in memes[:3]]
    alone = [
        predict.make_predictor(restored).predict(pictures[:3], captions)
        for restored in (one, other)
    ]
    assert np.abs(alone[0] - alone[1]).max() > 1e-4
    both = predict.make_predictor(one, other)
    close(both.predict(pictures[:3], captions), np.mean(alone, axis=0))
    assert both.threshold is None
    # A run of one seed is all of its seeds.
    whole = predict.load_predictor(run, seed="all")
    close(whole.predict(pictures[:3], captions), alone[0])


def test_command_on_a_file(run, memes, finished, tmp_path, capsys):
    root = finished[0] / "memes"
    lines = [
        {"img": str(pathlib.Path(meme.image)), "text": meme.text, "id": int(meme.id)}
        for meme in memes[:2]
    ]
    # A byte order mark, a blank line, labels that are no labels, paths of both kinds.
    lines[1] |= {"label": "?", "img": f"{root.name}/img/{lines[1]['img'][-9:]}"}
    (tmp_path / root.name).symlink_to(root)
    file = tmp_path / "asked.jsonl"
    text = "\ufeff" + "\n\n".join(json.dumps(line) for line in lines)
    file.write_text(text, "utf-8")
    out = tmp_path / "scores.csv"
    command.main([f"--workdir={run}", f"--input={file}", f"--output={out}"])
    expected = scored(run)[1][:2]
    close(probas(out), expected)
    assert [
        (row["id"], row["proba"] == row["raw_proba"], row["decision"], row["caption"])
        for row in written(out)
    ] == [
        (meme.id, True, "hateful" if p > 0.5 else "not hateful", meme.text)
        for meme, p in zip(memes[:2], expected, strict=True)
    ]
    said = capsys.readouterr().out
    assert f"{(expected > 0.5).sum()} of 2 hateful at 0.5, not calibrated" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "asked.jsonl",
        "memes",
        "scores.csv",
    ]


def test_command_on_one_meme_and_on_a_folder(
    run, loaded, memes, tmp_path, capsys, moderator
):
    expected = scored(run)[1]
    common = [f"--workdir={run}", "--seed=0"]
    command.main([*common, f"--image={memes[3].image}", f"--text={memes[3].text}"])
    said = capsys.readouterr().out
    assert f"P(hateful) {expected[3]:.4f}" in said
    assert ("not hateful at 0.5" in said) == (expected[3] <= 0.5)

    folder = tmp_path / "pictures"
    folder.mkdir()
    for place in (2, 1):
        shutil.copy(memes[place].image, folder / f"{place}.PNG")
    jsonl(folder / CAPTIONS, [{"img": f"{i}.PNG", "text": memes[i].text} for i in (2,)])
    out = tmp_path / "out.csv"
    command.main([*common, f"--input={folder}", f"--output={out}"])
    assert column(out, "id") == ["1.PNG", "2.PNG"]
    # A given caption wins; one that is missing is read.
    assert column(out, "caption") == ["read", memes[2].text]
    close(probas(out)[1], expected[2])
    read = Item("1", memes[1].image, "read")
    assert probas(out)[0] == pytest.approx(moderator.rows([read])[0].proba, abs=1e-6)
    # No caption at all: what is read is shown.
    capsys.readouterr()
    command.main([*common, f"--image={folder}/1.PNG"])
    assert "caption read: read\n" in capsys.readouterr().out


def test_decides_by_the_rule_of_the_run(run, loaded, memes, tmp_path, capsys):
    """Calibrated, at the threshold of decision.json; of another seed it is left."""
    copy = shutil.copytree(run, tmp_path / "run")
    expected = scored(run)[1][:6]
    flat = Calibration("platt", slope=0.5, intercept=-0.25)
    calibrated = special.expit(0.5 * special.logit(expected) - 0.25)
    rule = decisions.Decision(
        "average",
        ("0",),
        flat,
        0.5,
        {"platt": 0.6},
        parse_rule("precision>=0.9"),
        Certified(float(np.median(calibrated)), 40, 40, 0.01),
        0.05,
        "certify",
    )
    decisions.write(copy, rule)
    one = [f"--image={memes[3].image}", f"--text={memes[3].text}"]
    command.main([f"--workdir={copy}", *one])
    said = capsys.readouterr().out
    line = f"P(hateful) {calibrated[3]:.4f}, calibrated from {expected[3]:.4f}"
    assert line in said
    assert "hateful by precision>=0.9, at a threshold of " in said
    assert ("not hateful" in said) == (calibrated[3] <= np.median(calibrated))

    lines = [{"img": meme.image, "text": meme.text} for meme in memes[:6]]
    file, out = jsonl(tmp_path / "asked.jsonl", lines), tmp_path / "out.csv"
    many = [f"--input={file}", f"--output={out}"]
    # One that is between, and for a person.
    low, high = np.sort(calibrated)[2:4]
    between = dataclasses.replace(rule, abstain=(low - 1e-4, (low + high) / 2))
    decisions.write(copy, between)
    command.main([f"--workdir={copy}", *many])
    said = capsys.readouterr().out
    assert "3 of 6 hateful, 1 for a person by precision>=0.9" in said
    close(probas(out), expected)
    close([float(p) for p in column(out, "proba")], calibrated)
    decided = column(out, "decision")
    assert decided.count("review") == 1
    # A tenth hateful in place of a half: odds a ninth, and the same decisions.
    command.main([f"--workdir={copy}", *many, "--prevalence=0.1"])
    shifted = calibrated / (calibrated + 9 * (1 - calibrated))
    close([float(p) for p in column(out, "proba")], shifted)
    assert column(out, "decision") == decided

    decisions.write(copy, dataclasses.replace(rule, seeds=("1",)))
    command.main([f"--workdir={copy}", *one])
    said = capsys.readouterr().out
    assert "of average of seed 1: not used" in said
    assert f"P(hateful) {expected[3]:.4f}, not calibrated\n" in said
    with refused(capsys, "prevalence shifts calibrated probabilities"):
        command.main([f"--workdir={copy}", *one, "--prevalence=0.1"])
    # A rule of its own, on a split that is named.
    command.main(
        [f"--workdir={copy}", *one, "--rule=cost=1:1", "--certify=test_unseen"]
    )
    assert "hateful by cost=1:1, at a threshold of" in capsys.readouterr().out


def test_command_refuses(run, loaded, memes, tmp_path, capsys):
    common = [f"--workdir={run}"]
    with refused(capsys, r"gone\.png: picture .*gone\.png is missing"):
        command.main([*common, f"--image={tmp_path}/gone.png", "--text=a"])
    for usage in (
        ["--input=a"],
        ["--image=a", "--captions=b"],
        ["--text=a"],
        ["--image=a", "--certify=dev_seen"],
        [],
    ):
        with pytest.raises(SystemExit) as stopped:
            command.main([*common, *usage])
        assert stopped.value.code == 2


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--arm=rnn", "unknown arm 'rnn': expected one of average"),
        ("--seed=7", "got seed 7, but .* has the seeds 0"),
        ("--rule=size>=3", "size>=3"),
    ],
)
def test_what_a_run_has_not(run, memes, capsys, flag, message):
    one = [f"--image={memes[0].image}", "--text="]
    with refused(capsys, message):
        command.main([f"--workdir={run}", *one, flag])


def test_what_cannot_be_read_has_a_row_with_its_error(
    run, loaded, memes, tmp_path, capsys
):
    whole = pathlib.Path(memes[1].image).read_bytes()
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    lines = [
        {"img": memes[0].image, "text": memes[0].text, "id": 1},
        {"img": "bad.png", "text": "x", "id": 7},
        {"img": "bad.png", "id": 8},
        {"img": "cut.png", "text": "x"},
        {"text": "no picture", "id": 9},
        {"img": memes[2].image, "text": memes[2].text, "id": 3},
    ]
    file, out = jsonl(tmp_path / "in.jsonl", lines), tmp_path / "out.csv"
    with open(file, "a") as more:
        more.write('{"img"\n')
    common = [f"--workdir={run}", f"--input={file}", f"--output={out}"]
    with refused(capsys, r"in\.jsonl: 5 bad records:(.|\n)*7: picture .*bad\.png"):
        command.main([*common, "--strict"])
    assert not out.exists()
    command.main(common)
    found = written(out)
    assert [row["id"] for row in found] == [
        "1",
        "7",
        "8",
        "cut.png",
        "9",
        "3",
        "line 7",
    ]
    for row, expected in zip(
        found,
        [
            "",
            "bad.png is not",
            "bad.png is not",
            "cut.png is",
            "img is None",
            "",
            "JSON",
        ],
        strict=True,
    ):
        assert expected in row["error"] and (row["error"] == "") == (expected == "")
        assert (row["proba"] == row["decision"] == "") == bool(expected)
    close([float(found[i]["proba"]) for i in (0, 5)], scored(run)[1][[0, 2]])
    assert "5 cannot be predicted, see their column error" in capsys.readouterr().out


def test_probabilities_that_are_not_finite(moderator, memes):
    broken = dataclasses.replace(
        moderator.predictor,
        apply=lambda *columns: np.where(np.arange(len(columns[1])) == 1, np.nan, 0.25),
    )
    items = [Item(meme.id, meme.image, meme.text) for meme in memes[:2]]
    found = dataclasses.replace(moderator, predictor=broken).rows(items)
    assert [row.proba for row in found] == [0.25, None]
    assert "no finite probability" in found[1].error


def test_an_interrupted_prediction_goes_on(
    run, loaded, memes, tmp_path, capsys, monkeypatch
):
    """After an end at any chunk: the rows are those of one that was not interrupted."""
    monkeypatch.setattr(moderators, "CHUNK", 2)
    lines = [{"img": meme.image, "text": meme.text} for meme in memes[:7]]
    file = jsonl(tmp_path / "in.jsonl", lines)
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    command.main([f"--workdir={run}", f"--input={file}", f"--output={whole}"])
    arguments = [f"--workdir={run}", f"--input={file}", f"--output={out}"]
    score, calls = moderators.Moderator.score, []

    def dies(self, prepared):
        calls.append(len(prepared.items))
        if len(calls) in (2, 4):
            raise KeyboardInterrupt
        return score(self, prepared)

    monkeypatch.setattr(moderators.Moderator, "score", dies)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            command.main(arguments)
        assert not out.exists()
    # A row that was written in part.
    with open(f"{out}.part", "a") as part:
        part.write('{"id": "x", "pro')
    command.main(arguments)
    assert sum(calls) == 2 + 2 + 2 + 2 + 3
    assert out.read_text() == whole.read_text()
    said = capsys.readouterr().out
    assert "2 rows are there already: going on" in said
    assert "4 rows are there already: going on" in said
    # By another run it begins again; with other memes it is refused.
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        command.main(arguments)
    del lines[0]
    jsonl(file, lines)
    monkeypatch.setattr(moderators.Moderator, "score", score)
    with refused(capsys, r"out\.csv\.part is of other memes: its row 1 is of"):
        command.main(arguments)
    command.main([*arguments, "--seed=all"])
    assert len(written(out)) == 6


def test_known_memes(run, loaded, memes, tmp_path, monkeypatch, capsys, moderator):
    """Reported beside the probability, or decided by, with or without words."""
    # Some share their picture.
    chosen = list({meme.image: meme for meme in memes}.values())[:3]
    hashes = np.random.default_rng(0).integers(0, 256, (3, 32)).astype(np.uint8)

    def compute_all(pictures, *, max_pixels):
        places = [[meme.image for meme in chosen].index(one) for one in pictures]
        return hashes[places], np.full(len(places), 100), {}

    monkeypatch.setattr(pdq, "compute_all", compute_all)
    monkeypatch.setattr(pdq, "require", lambda: None)
    known = tmp_path / "known.jsonl"
    with known_memes.changing(known) as listed:
        for place, label, caption in ((0, "hateful", "read"), (1, "benign", "other")):
            made = KnownMeme(
                id=f"k{place}",
                pdq=pdq.to_hex(hashes[place]),
                quality=90,
                caption=caption,
                label=label,
            )
            listed.add(made)
    lines = [{"img": meme.image} for meme in chosen]
    file, out = jsonl(tmp_path / "in.jsonl", lines), tmp_path / "out.csv"
    common = [f"--workdir={run}", f"--input={file}", f"--output={out}"]

    def written_with(*flags):
        command.main([*common, f"--known={known}", *flags])
        return [(r["matched"], r["decision"], r["raw_proba"]) for r in written(out)]

    rows_ = moderator.rows([Item("", meme.image, "read") for meme in chosen])
    alone = [(row.decision, repr(row.raw_proba)) for row in rows_]
    assert written_with() == [("k0", *alone[0]), ("k1", *alone[1]), ("", *alone[2])]
    assert written_with("--known-decides") == [
        ("k0", "hateful", ""),
        ("k1", "not hateful", ""),
        ("", *alone[2]),
    ]
    # It needs no words, and none are read.
    assert column(out, "caption") == ["", "", "read"]
    assert written_with("--known-decides", "--same-words") == [
        ("k0", "hateful", ""),
        ("", *alone[1]),
        ("", *alone[2]),
    ]
    capsys.readouterr()
    one = [f"--image={chosen[0].image}", f"--known={known}"]
    command.main([f"--workdir={run}", *one, "--known-decides"])
    said = capsys.readouterr().out
    assert "matches the known meme k0" in said
    assert "hateful by the list of known memes" in said and "P(hateful)" not in said


def test_pages_that_say_why(run, loaded, memes, tmp_path, monkeypatch, capsys):
    """Of each meme that the network scored, with the decision and the words used."""
    asked = []

    def write_pages(folder, explainer, *, memes, verdicts):
        asked.append((folder, explainer, memes, verdicts))
        return pathlib.Path(folder) / "index.html"

    monkeypatch.setattr(work, "write_pages", write_pages)
    monkeypatch.setattr(work, "load_explainer", lambda *given, **more: more)
    lines = [{"img": memes[0].image}, {"img": "gone.png"}, {"img": memes[2].image}]
    file = jsonl(tmp_path / "in.jsonl", lines)
    common = [f"--workdir={run}", f"--explain={tmp_path}/why"]
    command.main([*common, f"--input={file}", f"--output={tmp_path}/out.csv"])
    command.main([*common, f"--image={memes[1].image}", "--text=its words"])
    assert f"why: {tmp_path}/why/index.html" in capsys.readouterr().out
    many, one = asked
    assert [(meme.image, meme.text) for meme in many[2]] == [
        (memes[0].image, "read"),
        (memes[2].image, "read"),
    ]
    assert one[2][0].text == "its words" and one[1] == {"seed": 0, "arm": "average"}
    assert re.fullmatch(r"(not )?hateful at 0\.5, P\(hateful\) 0\.\d{4}", one[3][0])
    with pytest.raises(SystemExit) as stopped:
        command.main([*common, f"--image={memes[1].image}", "--seed=all"])
    assert stopped.value.code == 2


def test_where_to_write_is_looked_at_first(run, memes, tmp_path, monkeypatch, capsys):
    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr(load, "load_predictor", never)
    for output, message in [
        ("/dev/full", "/dev/full"),
        (str(tmp_path), "is a folder"),
        (str(tmp_path / "no/where.csv"), "there is no folder"),
        (str(tmp_path / "a.xls"), "expected one of .csv, .jsonl, .parquet"),
    ]:
        with refused(capsys, message):
            command.main([f"--workdir={run}", "--input=a", f"--output={output}"])


def test_formulas_are_quoted_for_spreadsheets_alone(loaded, memes, tmp_path, run):
    out = tmp_path / "out.csv"
    ids = ["=cmd|'/c calc'!A1", "+1", "plain"]
    lines = [{"img": memes[0].image, "text": "-a", "id": one} for one in ids]
    file = jsonl(tmp_path / "in.jsonl", lines)
    arguments = [f"--workdir={run}", f"--input={file}", f"--output={out}"]
    command.main(arguments)
    assert column(out, "id") == ids and column(out, "caption") == ["-a"] * 3
    command.main([*arguments, "--excel"])
    assert column(out, "id") == [f"'{ids[0]}", "'+1", "plain"]
    assert column(out, "caption") == ["'-a"] * 3


def test_a_pipe(loaded, memes, run, tmp_path, monkeypatch):
    """Paths and JSON, line by line."""
    lines = [memes[0].image, json.dumps({"img": memes[1].image, "text": "b", "id": 4})]
    given = io.TextIOWrapper(io.BytesIO("\n".join(lines).encode()))
    monkeypatch.setattr("sys.stdin", given)
    out = tmp_path / "out.jsonl"
    command.main([f"--workdir={run}", "--input=-", f"--output={out}"])
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["id"], row["caption"]) for row in found] == [
        (memes[0].image, "read"),
        ("4", "b"),
    ]
