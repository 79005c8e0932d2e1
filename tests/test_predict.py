"""What a finished run says of new memes, from its folder alone."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from support import refused, without_data

from memejax import decisions, metrics, predict
from memejax.data.hateful_memes import BadRecordsError, read_jsonl
from memejax.errors import UserError
from memejax.metrics.calibration import Calibration
from memejax.metrics.thresholds import Certified, parse_rule
from memejax.predict import __main__ as command
from memejax.predict import memes as asked

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
    ids, proba, labels = metrics.read_predictions(out)
    assert ids == [meme.id for meme in memes[:2]]
    expected = scored(run)[1][:2]
    close(proba, expected)
    np.testing.assert_array_equal(labels, expected > 0.5)
    said = capsys.readouterr().out
    assert f"{(expected > 0.5).sum()} of 2 hateful at 0.5" in said
    assert [p.name for p in tmp_path.glob("*.part")] == []


def test_command_on_one_meme_and_on_a_folder(
    run, predictor, memes, tmp_path, capsys, monkeypatch
):
    # The one that is compiled already; the test above loads its own.
    monkeypatch.setattr(command, "load_predictor", lambda *_, **__: predictor)
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
    captions = "".join(
        json.dumps({"img": f"{i}.PNG", "text": memes[i].text}) + "\n" for i in (2, 1)
    )
    out = tmp_path / "out.csv"
    rest = [f"--input={folder}", f"--output={out}"]
    with refused(capsys, r"1\.PNG: has no caption(.|\n)*2\.PNG"):
        command.main([*common, *rest])
    (folder / asked.CAPTIONS).write_text(captions)
    command.main([*common, *rest])
    assert metrics.read_predictions(out)[0] == ["1.PNG", "2.PNG"]
    close(metrics.read_predictions(out)[1], expected[1:3])
    # The same captions from elsewhere, one path of them absolute.
    words = tmp_path / "words.jsonl"
    words.write_text(captions.replace('"2.PNG', f'"{folder}/2.PNG'))
    (folder / asked.CAPTIONS).unlink()
    found = asked.from_folder(folder, captions_file=words, captions=True)
    assert [meme.text for meme in found] == [memes[1].text, memes[2].text]


def test_decides_by_the_rule_of_the_run(
    run, predictor, memes, tmp_path, capsys, monkeypatch
):
    """Calibrated, at the threshold of decision.json; of another seed it is left."""
    copy = shutil.copytree(run, tmp_path / "run")
    monkeypatch.setattr(command, "load_predictor", lambda *_, **__: predictor)
    expected = scored(run)[1][:6]
    flat = Calibration("platt", slope=0.5, intercept=-0.25)
    calibrated = special.expit(0.5 * special.logit(expected) - 0.25)
    rule = decisions.Decision(
        "average",
        ("0",),
        flat,
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
    file = tmp_path / "asked.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    many = [f"--input={file}", f"--output={tmp_path / 'out.csv'}"]
    # One that is between, and for a person.
    low, high = np.sort(calibrated)[2:4]
    between = dataclasses.replace(rule, abstain=(low - 1e-4, (low + high) / 2))
    decisions.write(copy, between)
    command.main([f"--workdir={copy}", *many])
    said = capsys.readouterr().out
    assert "3 of 6 hateful, 1 for a person by precision>=0.9" in said
    close(metrics.read_predictions(tmp_path / "out.csv")[1], expected)

    decisions.write(copy, dataclasses.replace(rule, seeds=("1",)))
    command.main([f"--workdir={copy}", *one])
    said = capsys.readouterr().out
    assert "of average of seed 1: not used" in said
    assert f"P(hateful) {expected[3]:.4f}\n" in said


def test_command_refuses(run, predictor, memes, tmp_path, monkeypatch, capsys):
    common = [f"--workdir={run}"]
    with refused(capsys, "unknown arm 'rnn': expected one of average"):
        command.main([*common, f"--image={memes[0].image}", "--text=", "--arm=rnn"])
    monkeypatch.setattr(command, "load_predictor", lambda *_, **__: predictor)
    with refused(capsys, "has no caption: give --text"):
        command.main([*common, f"--image={memes[0].image}"])
    gone = dataclasses.replace(memes[0], image=f"{tmp_path}/nothing.png")
    with pytest.raises(
        BadRecordsError, match=r"dev_seen\.jsonl:1: .*nothing\.png is mis"
    ):
        command.predict_memes(predictor, [gone])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    lines = [
        {"img": memes[0].image, "text": "fine"},
        {"img": "bad.png", "text": "x", "id": 7},
    ]
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    out = tmp_path / "out.csv"
    with refused(capsys, r"in\.jsonl:2: image .*bad\.png is not an"):
        command.main([*common, f"--input={file}", f"--output={out}"])
    assert not out.exists()
    for usage in (["--input=a"], ["--image=a", "--captions=b"], ["--text=a"], []):
        with pytest.raises(SystemExit) as stopped:
            command.main([*common, *usage])
        assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON"),
        ("[1]", "expected a JSON object"),
        ('{"text": "a"}', "img is None"),
        ('{"img": 3, "text": "a"}', "img is 3"),
        ('{"img": "a.png"}', "a.png has no caption"),
        ('{"img": "a.png", "text": 3}', "text is 3"),
        ('{"img": "a.png", "text": "\\ud800"}', "half a surrogate pair"),
        ('{"img": "", "text": "a"}', "img is '', expected the path of a picture"),
        ('{"img": "a.png", "text": null}', "a.png has no caption"),
        ('"\xff"', "is not UTF-8: .* at byte 1"),
    ],
)
def test_bad_lines(tmp_path, line, reason):
    file = tmp_path / "memes.jsonl"
    good = '{"img": "b.png", "text": ""}'
    file.write_bytes(f"{good}\n\n{line}\n".encode("latin-1"))
    with pytest.raises(BadRecordsError, match=rf"memes\.jsonl:3: .*{reason}"):
        asked.from_jsonl(file, captions=True)


def test_ids_and_paths_are_taken_as_they_are(tmp_path):
    """Where a data set's records would be refused."""
    file = tmp_path / "memes.jsonl"
    file.write_text(
        '{"img": "../a.png", "text": "", "id": 2.5, "label": [7]}\n'
        '{"img": "/b.png", "text": "x", "id": true}\n'
    )
    found = [
        (meme.id, meme.image, meme.label, meme.line)
        for meme in asked.from_jsonl(file, captions=True)
    ]
    above = str(tmp_path.parent / "a.png")
    assert found == [("2.5", above, -1, 1), ("True", "/b.png", -1, 2)]
    assert len(read_jsonl(file, root=tmp_path, split=SPLIT)[1]) == 2


def test_captions_that_nothing_reads(tmp_path):
    file = tmp_path / "memes.jsonl"
    file.write_text('{"img": "a.png", "id": null}')
    (meme,) = asked.from_jsonl(file, captions=False)
    assert (meme.id, meme.text, meme.label) == ("a.png", "", -1)
    (tmp_path / "a.png").touch()
    (meme,) = asked.from_folder(tmp_path, captions=False)
    assert meme.image == str(tmp_path / "a.png")
    file.write_text("\n")
    with pytest.raises(ValueError, match="holds no memes"):
        asked.from_jsonl(file, captions=False)
    with pytest.raises(ValueError, match="no file"):
        asked.from_jsonl(tmp_path / "other", captions=False)
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match="no pictures"):
        asked.from_folder(tmp_path, captions=False)


def test_where_to_write_is_looked_at_first(run, memes, tmp_path, monkeypatch, capsys):
    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr(command, "load_predictor", never)
    for output, message in [
        ("/dev/full", "/dev/full is a device"),
        (str(tmp_path), "is a folder"),
        (str(tmp_path / "no/where.csv"), "there is no folder"),
    ]:
        with refused(capsys, message):
            command.main([f"--workdir={run}", "--input=a", f"--output={output}"])


def test_ids_that_no_file_can_hold_are_refused_first(tmp_path):
    file = tmp_path / "memes.jsonl"
    file.write_text('{"img": "a.png", "text": "", "id": "\\ud800"}\n')
    with pytest.raises(BadRecordsError, match="id is not valid Unicode"):
        asked.from_jsonl(file, captions=True)
    file.write_text('{"img": "a.png", "text": "", "img": "b.png"}\n')
    with pytest.raises(BadRecordsError, match="has 'img' twice"):
        asked.from_jsonl(file, captions=True)


def test_what_a_folder_holds_beside_pictures_is_counted(tmp_path, capsys):
    for name in ("a.png", "b.heic", "without", b"c\xff.png"):
        (tmp_path / os.fsdecode(name)).touch()
    (tmp_path / "more").mkdir()
    captions = '{"img": "a.png", "text": "1"}\n{"img": "a.png", "text": "2"}\n'
    (tmp_path / "captions.jsonl").write_text(captions)
    with pytest.raises(BadRecordsError, match="not printable UTF-8: rename it"):
        asked.from_folder(tmp_path, captions=False)
    os.remove(os.fsencode(tmp_path) + b"/c\xff.png")
    (found,) = asked.from_folder(tmp_path, captions=True)
    assert found.text == "2"
    shown = capsys.readouterr().out
    assert "left out 3 that are no pictures: b.heic, more/, without" in shown
    assert "second caption for 1 pictures" in shown


def test_formulas_are_quoted_for_spreadsheets_alone(
    predictor, memes, tmp_path, monkeypatch, run
):
    monkeypatch.setattr(command, "load_predictor", lambda *_, **__: predictor)
    file, out = tmp_path / "in.jsonl", tmp_path / "out.csv"
    ids = ["=cmd|'/c calc'!A1", "+1", "plain"]
    file.write_text(
        "".join(
            json.dumps({"img": memes[0].image, "text": "a", "id": one}) + "\n"
            for one in ids
        )
    )
    arguments = [f"--workdir={run}", f"--input={file}", f"--output={out}"]
    command.main(arguments)
    assert metrics.read_predictions(out)[0] == ids
    command.main([*arguments, "--excel"])
    assert metrics.read_predictions(out)[0] == [f"'{ids[0]}", "'+1", "plain"]


def test_probabilities_that_are_not_finite_are_refused(predictor, memes, capsys):
    broken = dataclasses.replace(
        predictor, apply=lambda *columns: np.full(len(columns[1]), np.nan)
    )
    with pytest.raises(UserError, match="no finite probability"):
        command.predict_memes(broken, memes[:3])
