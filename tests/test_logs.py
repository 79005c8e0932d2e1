import json

import numpy as np
import pytest

from memejax import folder, logs


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


def test_claim_writes_config_and_environment(tmp_path):
    path = folder.claim(tmp_path / "run", CONFIG, ("log",))
    assert json.loads((path / "config.json").read_text()) == CONFIG
    environment = json.loads((path / "environment.json").read_text())
    assert environment["devices"] and environment["packages"]["jax"]


def test_claim_compares_identities(tmp_path):
    folder.claim(tmp_path, CONFIG, ("log",))
    folder.claim(tmp_path, CONFIG | {"log": {"every": 9}}, ("log",))
    # Tuples are lists in JSON: the same.
    folder.claim(tmp_path, CONFIG | {"a": {"b": 1, "c": (1, 2)}}, ("log",))
    with pytest.raises(folder.OtherRunError, match=r"a\.b: 1 there, 2 asked for"):
        folder.claim(tmp_path, CONFIG | {"a": {"b": 2, "c": [1, 2]}}, ("log",))
    with pytest.raises(folder.OtherRunError, match=r"a\.d: \(absent\) there, 3"):
        folder.claim(tmp_path, CONFIG | {"a": CONFIG["a"] | {"d": 3}}, ("log",))


def test_json_is_written_whole(tmp_path):
    folder.write_json(tmp_path / "x.json", {"a": 1})
    assert folder.read_json(tmp_path / "x.json") == {"a": 1}
    assert folder.read_json(tmp_path / "y.json") is None
    with pytest.raises(TypeError):
        folder.write_json(tmp_path / "x.json", {"a": object()})
    assert folder.read_json(tmp_path / "x.json") == {"a": 1}
