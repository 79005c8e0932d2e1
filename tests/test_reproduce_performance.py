"""The tables of performance: measured on a CPU, and made from figures by hand."""

import dataclasses
import json

import pytest
from support import refused

from memejax.bench import input_study
from memejax.reproduce import __main__ as program
from memejax.reproduce.performance import command, epochs, forward, graphs, parts
from memejax.reproduce.performance import published as p

GPU = {
    "batch": 4,
    "workers": 0,
    "mode": "jit",
    "steps": 100,
    "device": "H200",
    "platform": "gpu",
    "devices": 1,
    "device bytes": [25.0],
    "epoch seconds": [20.0, 10.0, 12.0],
    "core utilisation": 0.5,
    "memory utilisation": 0.1,
    # nvidia-smi sees what JAX reserved.
    "gpus": [{"utilisation": 0.9, "bytes": 75.0, "total": 100.0}] * 2,
}
SETTINGS = dataclasses.asdict(epochs.Settings("demo"))
MACHINE = {"processor": "another CPU", "cores": 8, "packages": {"jax": "0.10"}}


def cells_of(table, row):
    """Cells of a row by column."""
    return dict(zip(table.columns, row, strict=True))


@pytest.mark.parametrize("table", ["table4", "table5"])
def test_published_figures_agree_with_each_other(table):
    """Speed-up and efficiency follow from the times, but for their rounding."""
    one, four = p.EPOCHS[table][1, "jit"], p.EPOCHS[table][4, "jit"]
    assert four.speed_up == pytest.approx(one.seconds / four.seconds, abs=6e-3)
    assert four.efficiency == pytest.approx(four.speed_up / 4, abs=2e-3)


def test_rows_of_epochs_by_hand():
    four = GPU | {
        "devices": 4,
        "device bytes": [10.0, 11.0, 12.0, 13.0],
        "epoch seconds": [4.0],
        "gpus": [
            {"utilisation": 0.1 * i, "bytes": 75.0, "total": 100.0} for i in range(1, 5)
        ],
    }
    figures = {"settings": SETTINGS | {"preset": "full"}, "cells": [GPU, four]}
    table = epochs.tabulate("table4", figures)
    one, several = (cells_of(table, row) for row in table.rows)
    # The median of its epochs.
    assert one["epoch"] == "12 s" and one["memes/s per device"] == "33.3"
    assert (one["speed-up"], one["efficiency"]) == ("-", "-")
    # Of the one device that it ran on, and by the allocator.
    assert one["cores, each device"] == "90.00 %"
    assert one["memory, each device"] == "25.00 %"
    assert several["speed-up"] == "3.00" and several["efficiency"] == "75.00 %"
    assert several["memes/s per device"] == "25.0"
    assert several["cores, each device"] == "10.00 %, 20.00 %, 30.00 %, 40.00 %"
    assert several["memory, each device"] == "10.00 %, 11.00 %, 12.00 %, 13.00 %"
    assert several["published epoch"] == "5 min 4.8 s"
    assert several["published efficiency"] == "43.47 %"
    assert any("peak of JAX's allocator" in note for note in table.notes)
    assert not any("fake" in note for note in table.notes)


def test_what_means_nothing_on_a_cpu_is_said():
    here = GPU | {
        "platform": "cpu",
        "device": "cpu",
        "gpus": [],
        "device bytes": [None],
    }
    four = here | {"devices": 4, "device bytes": [None] * 4, "batch": 128}
    figures = {"settings": SETTINGS, "cells": [here, four]}
    table = epochs.tabulate("table5", figures)
    notes = " ".join(table.notes)
    assert "4 devices are fake ones" in notes and "mean nothing here" in notes
    assert "not comparable with the published figures" in notes
    row = cells_of(table, table.rows[0])
    assert row["cores, each device"] == "50.00 % of the machine"
    text = parts.to_markdown(table)
    assert text.startswith("## Table 5, epochs in batches of 32: preset demo, multimod")
    assert "6 min 46.0 s" in text and "| 1 cpu | jit |" in text
    page = parts.to_html(table)
    assert "4 RTX 8000" in page and "<script" not in page
    assert parts.to_csv(table).splitlines()[1].startswith("table5,demo,1 cpu,jit,4,")


def test_cases_are_those_of_the_tables():
    settings = epochs.Settings("paper", root="F", threads=3)
    four = epochs.cases("table4", settings, several=4)
    assert [(c.devices, c.mode, c.batch, c.workers) for c in four] == [
        (1, "jit", 4, 0),
        (1, "pmap", 4, 0),
        (4, "jit", 4, 0),
        (4, "pmap", 4, 0),
    ]
    # Each device its own 32, and 14 readers.
    five = epochs.cases("table5", settings, several=4)
    assert [(c.devices, c.batch) for c in five[::2]] == [(1, 32), (4, 128)]
    assert {c.workers for c in five} == {14} and {c.size for c in five} == {"paper"}
    (six,) = epochs.cases("table6", settings, several=4)
    assert (six.devices, six.batch, six.workers, six.dtype) == (1, 32, 14, "float32")
    (full,) = epochs.cases("table6", epochs.Settings("full"), several=1)
    assert full.dtype == "bfloat16"


def test_two_machines(tmp_path, capsys, monkeypatch):
    """Measured here, merged with another machine's JSON, refused if that differs."""
    monkeypatch.setitem(epochs._MEMES, "demo", 64)
    program.main(["table6", f"--workdir={tmp_path}"])
    assert "1 V100" in capsys.readouterr().out
    found = json.loads((tmp_path / "table6.json").read_text())
    assert found["cells"][0]["steps"] == 2 and found["machine"]["cores"] >= 1
    other = tmp_path / "other.json"
    other.write_text(json.dumps(found | {"machine": MACHINE}))
    plan = command.prepare("table6", other=other)
    made = epochs.tabulate(
        "table6",
        {"settings": found["settings"], "cells": found["cells"]},
        other=plan.other,
    )
    first, second = (cells_of(made, row) for row in made.rows)
    assert (first["devices"], first["published on"]) == ("this machine", "1 V100")
    assert (second["devices"], second["published on"]) == ("another CPU", "1 RTX 8000")
    assert first["epoch"] == second["epoch"]
    for change, message in (
        ({"table": "table5"}, "is of table5, expected table6"),
        ({"settings": SETTINGS | {"preset": "paper"}}, "preset 'paper' there, 'demo'"),
        ({"settings": SETTINGS | {"root": "F"}}, "memes of a folder on one"),
    ):
        other.write_text(json.dumps(found | change))
        with refused(capsys, f"does not match.*{message}|{message}"):
            program.main(["table6", f"--with={other}", f"--workdir={tmp_path}"])
    other.write_text('{"rows": []}')
    with refused(capsys, "is no table6.json"):
        program.main(["table6", f"--with={other}"])
    with refused(capsys, "cannot be read"):
        program.main(["table6", f"--with={tmp_path / 'none.json'}"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["table4", "--seeds=3"], "table4 does not take --seeds"),
        (["figure4", "--table-only"], "figure4 does not take --table-only"),
        (["table4", "--with=x.json"], "--with is for table6"),
        (["table1", "--devices=2"], "--devices is for table4 and table5"),
        (["table6", "--devices=2"], "--devices is for table4 and table5"),
        (["table7", "--set", "graph.width=3"], r"does not take \['graph.width'\]"),
        (["table4", "--devices=3"], "a batch of 4, and 3 devices cannot"),
        (["table5", "--devices=0"], "got --devices=0, expected at least 1"),
        (["table5", "--preset=tiny"], "unknown preset 'tiny'"),
        (["table9", "table4"], "unknown table 'table9'"),
        (["curriculum", "table4"], "curriculum is made alone"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_measured(argv, message, capsys):
    with refused(capsys, message):
        program.main(argv)


def test_a_case_that_fails(capfd):
    case = input_study.Case("tiny", 32, memes=8)
    with pytest.raises(ValueError, match="could not be measured: see the error above"):
        input_study.in_subprocess(case, compiled="")
    assert "8 memes in batches of 32" in capfd.readouterr().err


def test_figure_4_of_small_models(tmp_path, capsys):
    program.main(["figure4", f"--workdir={tmp_path}"])
    out = capsys.readouterr().out
    assert "80.43 %" in out and "16.44 %" in out
    figures = json.loads((tmp_path / "figure4.json").read_text())
    table = forward.tabulate(figures)
    rows = {row[0]: cells_of(table, row) for row in table.rows}
    # The patch embedding and the residual network's own.
    assert int(rows["convolution"]["calls"]) >= 4
    for column in ("share of FLOPs", "share of time, cold", "share of time, warm"):
        shares = [float(row[column].rstrip(" %")) for row in rows.values()]
        assert sum(shares[:-1]) == pytest.approx(shares[-1], abs=0.05)
    assert figures["seconds"]["cold"] > figures["seconds"]["warm"] > 0
    assert any("A cold pass took" in note for note in table.notes)


def test_table_7_by_hand(monkeypatch, tmp_path):
    monkeypatch.setattr(graphs, "_detector_seconds", lambda *_: 0.5)
    monkeypatch.setitem(graphs._TIMED, "demo", (1, 4, 128))
    figures = graphs.measure("demo")
    assert set(figures["networks"]) == {"gcn", "gat", "sage"}
    assert figures["encoder seconds per meme"] > 0
    for one in figures["networks"].values():
        assert one["batch"] == 64 and one["seconds per meme"] > 0
        one["seconds per meme"] = 0.001
    figures["encoder seconds per meme"] = 0.1
    table = graphs.tabulate(figures)
    row = cells_of(table, table.rows[0])
    assert row["network"] == "GCN" and row["published 20 epochs"] == "5 h 48 min"
    # 8,500 memes: 4,250 s, 850 s and 8.5 s; 5,100 + 20 x 8.5; 20 x 5,108.5.
    assert row["detector, once"] == "1 h 10 min"
    assert row["encoders, once"] == "14 min 10.0 s"
    assert row["network, per epoch"] == "8.5 s"
    assert row["20 epochs on stored features"] == "1 h 27 min"
    assert row["20 epochs, features computed in each"] == "28 h 22 min"
    assert any("random weights" in note for note in table.notes)
