"""The page's section on a window in the profiler, from a profile.json made by hand."""

import json
import types

from memejax.report import profiled, render
from memejax.report.blocks import Page

ROW = {
    "primitive": "dot_general",
    "module": "Arms/arms_vit/image_encoder/block0/mlp/up",
    "kind": "matmul",
    "calls": 3.0,
    "kernels": 3.0,
    "seconds": 0.006,
    "flops": 9e9,
    "bytes_in": 1.0,
    "bytes_out": 1.0,
    "share_of_time": 0.75,
    "share_of_flops": 1.0,
    "flops_per_second": 1.5e12,
    "share_of_peak": 0.5,
}
COPY = ROW | {
    "primitive": "transpose",
    "module": "",
    "kind": "copy",
    "seconds": 0.002,
    "flops": 0.0,
    "share_of_time": 0.25,
    "share_of_flops": 0.0,
    "flops_per_second": None,
    "share_of_peak": None,
}


def finished(folder, *stages):
    for stage in stages:
        path = folder / "0" / stage
        path.mkdir(parents=True)
        content = {
            "flops": 9e9,
            "seconds": 0.01,
            "peak": 3e12,
            "peak_dtype": "bfloat16",
            "devices": 1,
            "compile_seconds": 2.5,
            "memory": {"temporaries": 4e6},
            "warm": {"steps": 5, "by_class": [ROW, COPY], "operations": [COPY, ROW]},
        }
        (path / profiled.FILE).write_text(json.dumps(content), "utf-8")
    return types.SimpleNamespace(folder=folder, seeds=["0"])


def html(section):
    """A page of one section, without its style sheet."""
    return render.page(Page("", "", "demo", [], [section])).split("</style>")[1]


def test_tables_of_each_traced_stage(tmp_path):
    said = html(profiled.section(finished(tmp_path, "finetune", "pretrain")))
    assert said.index("pretrain, seed 0") < said.index("finetune, seed 0")
    # 9 GFLOP in 10 ms are 900 GFLOP/s, of 3,000 possible.
    assert "10.0 ms per step over 5 steps, 9.000 GFLOP, 900.0 GFLOP/s: 30.0%" in said
    # The longest first, whatever the order in the file; of a long path the end.
    assert said.index("dot_general …/image_encoder/block0/mlp/up") < said.index(
        "transpose "
    )
    assert "1,500.0" in said
    assert "75.00%" in said
    assert "4.0 MB" in said
    assert 'href="0/pretrain/profile.md"' in said


def test_what_lies_between_the_calls_is_said_where_it_was_measured(tmp_path):
    """A file of earlier has nothing of it, and one without a window of a run None."""
    run = finished(tmp_path, "finetune", "pretrain", "graph")
    for stage, between in (("finetune", 0.25), ("pretrain", None)):
        file = tmp_path / "0" / stage / profiled.FILE
        content = json.loads(file.read_text("utf-8")) | {"between": between}
        file.write_text(json.dumps(content), "utf-8")
    said = html(profiled.section(run))
    assert said.count("Between the calls") == 1
    assert "Between the calls passed 250.0 ms more per step" in said


def test_stages_in_folders_of_their_own(tmp_path):
    finished(tmp_path, "train")
    stages = {"train": "0/train", "baseline": "0/baseline"}
    said = html(profiled.of_stages(tmp_path, stages))
    assert "<h3>train</h3>" in said and "baseline" not in said
    assert 'href="0/train/profile.md"' in said


def test_nothing_is_said_where_nothing_was_traced(tmp_path):
    assert profiled.section(finished(tmp_path)) is None
