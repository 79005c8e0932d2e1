import contextlib
import io
import json
import re
import sys
import time

import numpy as np
import pytest
from rich.console import Console

from memejax import folder, logs, parallel


def test_averages_leave_nan_out_and_go_on_from_their_state():
    averages = logs.Averages()
    averages.add({"loss": 0.1, "panel": float("nan")})
    averages.add({"loss": 0.2, "panel": 4.0})
    assert averages.means() == {"loss": (0.1 + 0.2) / 2, "panel": 4.0}
    # The state goes through JSON with the checkpoint.
    again = logs.Averages(json.loads(json.dumps(averages.state())))
    for one in (averages, again):
        one.add({"loss": 0.7})
    assert again.means() == averages.means()
    averages.clear()
    assert averages.means() == {}
    assert again.means()["loss"] == pytest.approx(1 / 3)


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path):
    logger = logs.Logger(tmp_path, title="t", total=9)
    for step in (2, 4, 6):
        logger.metrics(step, "train", {"loss": 1.0 / step}, seconds=step)
    logger.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "spl')  # a kill cuts a line off
    logs.Logger(tmp_path, title="t", total=9, start=4).close()
    lines = logs.read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [2, 4]
    assert lines[1] == {
        "step": 4,
        "split": "train",
        "loss": 0.25,
        "clock": {"seconds": 4},
    }


def test_progress_line(tmp_path, capsys):
    logger = logs.Logger(tmp_path, title="finetune", total=100)
    logger.progress(25, 8, {"loss": 0.5, "lr/cnn": 1e-3, "grad_norm": 2.0})
    logger.histogram(25, "dev/scores", np.linspace(0, 1, 9))
    logger.close()
    out = capsys.readouterr().out
    assert out.startswith("finetune  25/100   25%  loss 0.5 ")
    assert "steps/s" in out and "images/s" in out and "ETA" in out
    assert "lr/cnn" not in out
    (line,) = logs.read_metrics(tmp_path / "metrics.jsonl")
    clock = line["clock"]
    assert clock["images_per_second"] == pytest.approx(
        8 * clock["steps_per_second"], rel=1e-2
    )
    assert line["lr/cnn"] == 1e-3


def test_the_compiling_update_is_in_no_later_rate(tmp_path):
    logger = logs.Logger(tmp_path, title="t", total=100)
    time.sleep(0.2)
    logger.advance(1, 8, 0.5)
    time.sleep(0.02)
    logger.progress(11, 8, {"loss": 0.5})
    logger.close()
    (line,) = logs.read_metrics(tmp_path / "metrics.jsonl")
    # 11 updates in 0.22 seconds are 50 a second.
    assert 100 < line["clock"]["steps_per_second"] <= 500


def on_terminal(tmp_path, use, width=100):
    """What a terminal shows of a logger that `use` works with: raw and as text."""
    file = io.StringIO()
    console = Console(
        file=file,
        force_terminal=True,
        width=width,
        color_system=None,
        # A terminal of its own: a dumb one, such as a build server's, shows no bar.
        _environ={"TERM": "xterm"},
    )
    logger = logs.Logger(tmp_path, title="finetune", total=20, console=console)
    try:
        use(logger)
    finally:
        logger.close()
    raw = file.getvalue()
    return raw, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw).replace("\r", "\n")


@pytest.mark.parametrize("width", [80, 140])
def test_a_terminal_has_one_live_bar(tmp_path, capsys, width):
    def use(logger):
        for step in range(1, 21):
            time.sleep(0.005)
            logger.advance(step, 32, 1 / step)
            if step % 5 == 0:
                logger.progress(step, 32, {"loss": 1 / step})
            if step == 10:
                time.sleep(0.5)
                logs.say("  dev at step 10: auroc/[cnn] 0.5" + 100 * "x")

    raw, text = on_terminal(tmp_path, use, width)
    # The line stands whole and alone: nothing is markup, nothing is wrapped.
    assert "  dev at step 10: auroc/[cnn] 0.5" + 100 * "x" in text.split("\n")
    last = [line for line in text.split("\n") if line.strip()][-1]
    shown = re.fullmatch(
        r"finetune ━+ 20/20  ([\d.]+) updates/s  ([\d,.]+) images/s  in 0:01  "
        r"loss 0\.05000\s*",
        last,
    )
    assert shown and len(last) <= width
    rate, images = (float(figure.replace(",", "")) for figure in shown.groups())
    assert images == pytest.approx(32 * rate, rel=0.01)
    # It showed the time left while the stage ran.
    assert re.search(r"10/20 .* \d:\d\d left  loss 0\.1000", text)
    # The cursor is there again, and no line was printed beside the bar.
    assert raw.rindex("\x1b[?25h") > raw.rindex("20/20")
    assert capsys.readouterr().out == ""
    lines = logs.read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    logs.say("after it")
    assert capsys.readouterr().out == "after it\n"


def test_the_bar_begins_with_the_first_update_and_ends_with_an_error(tmp_path, capsys):
    def use(logger):
        logs.say("compiling")
        assert capsys.readouterr().out == "compiling\n"
        logger.advance(3, 8, 0.5)
        raise FloatingPointError

    with pytest.raises(FloatingPointError):
        on_terminal(tmp_path, use)
    logs.say("after it")
    assert capsys.readouterr().out == "after it\n"


def test_output_to_a_file_has_no_bar(tmp_path, capsys, monkeypatch):
    # CI services set it, and rich alone would take it for a terminal.
    monkeypatch.setenv("FORCE_COLOR", "1")
    logger = logs.Logger(tmp_path, title="finetune", total=20)
    logger.advance(1, 8, 0.5)
    logger.progress(5, 8, {"loss": 0.5})
    logger.close()
    out = capsys.readouterr().out
    assert out.startswith("finetune  5/20   25%  loss 0.5 ") and "\x1b" not in out


def test_a_terminal_is_found(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert logs.terminal() is None
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert logs.terminal() is not None
    monkeypatch.setenv("TERM", "dumb")
    assert logs.terminal() is None


def test_only_the_first_process_prints(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(parallel, "is_first", lambda: False)

    def use(logger):
        logger.advance(1, 8, 0.5)
        logger.progress(5, 8, {"loss": 0.5})
        logs.say("something")

    raw, _ = on_terminal(tmp_path / "second", use)
    assert raw == capsys.readouterr().out == ""
    assert not (tmp_path / "second").exists()


def test_a_line_for_what_is_slow(capsys):
    with logs.say_if_slow("decoding", after=0.05):
        time.sleep(0.2)
    with logs.say_if_slow("reading", after=0.05):
        pass
    time.sleep(0.1)
    assert capsys.readouterr().out == "decoding\n"


@pytest.mark.parametrize(
    "seconds, text", [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3723, "1:02:03")]
)
def test_clock(seconds, text):
    assert logs.clock(seconds) == text


def test_peak_memory_grows_with_what_is_used():
    before, blocks = logs.peak_memory(), []
    # What was used before and is free again does not count: at most all of it.
    while logs.peak_memory() < before + 0.3 and len(blocks) <= 10 * (before + 0.4):
        blocks.append(np.ones(100_000_000, np.uint8))
    assert before + 0.3 <= logs.peak_memory() <= before + 0.1 * len(blocks) + 0.1


CONFIG = {"a": {"b": 1, "c": [1, 2]}, "log": {"every": 5}}


def claim(path, config):
    with folder.claim(path, config, runtime=("log",)) as claimed:
        return claimed


def test_claim_writes_config_and_environment(tmp_path):
    path = claim(tmp_path / "run", CONFIG)
    assert json.loads((path / "config.json").read_text()) == CONFIG
    environment = json.loads((path / "environment.json").read_text())
    assert environment["devices"] and environment["packages"]["jax"]


def test_claim_compares_identities(tmp_path):
    claim(tmp_path, CONFIG)
    claim(tmp_path, CONFIG | {"log": {"every": 9}})
    # Tuples are lists in JSON: the same.
    claim(tmp_path, CONFIG | {"a": {"b": 1, "c": (1, 2)}})
    # From its first checkpoint on a folder is this run's.
    (tmp_path / "0/finetune/checkpoints/4").mkdir(parents=True)
    with pytest.raises(folder.OtherRunError, match=r"a\.b: 1 there, 2 asked for"):
        claim(tmp_path, CONFIG | {"a": {"b": 2, "c": [1, 2]}})
    with pytest.raises(folder.OtherRunError, match=r"a\.d: \(absent\) there, 3"):
        claim(tmp_path, CONFIG | {"a": CONFIG["a"] | {"d": 3}})


def test_json_is_written_whole(tmp_path):
    folder.write_json(tmp_path / "x.json", {"a": 1})
    assert folder.read_json(tmp_path / "x.json") == {"a": 1}
    assert folder.read_json(tmp_path / "y.json") is None
    with pytest.raises(TypeError):
        folder.write_json(tmp_path / "x.json", {"a": object()})
    assert folder.read_json(tmp_path / "x.json") == {"a": 1}


def test_a_plan_that_is_drawn_again_has_one_line(tmp_path):
    """It is drawn after the checkpoint of its step, so that resuming draws it again."""
    for _ in range(3):
        with contextlib.closing(
            logs.Logger(tmp_path, title="train", total=8, start=4)
        ) as logger:
            logger.metrics(4, logs.DRAWN, {"ess_share": 0.5})
    lines = logs.read_metrics(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["split"]) for line in lines] == [(4, "curriculum")]
    with contextlib.closing(logs.Logger(tmp_path, title="train", total=8, start=6)):
        pass
    # Once past it, it stays.
    assert len(logs.read_metrics(tmp_path / "metrics.jsonl")) == 1
