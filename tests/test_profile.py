"""Names, compiled programs, traces and their table; a step and a stage profiled."""

import ast
import csv
import dataclasses
import json
import types
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROOT

from memejax import profile, steps
from memejax.config import load_config
from memejax.models import layers
from memejax.profile import command, devices, hlo, rules, runner, scopes, table, trace

# Names


@pytest.mark.parametrize(
    ("stack", "path", "module"),
    [
        ("", "", ""),
        ("jit(step)/sin", "", ""),
        ("jit(f)/Net/<Net>/stem/<ConvNorm>/dot_general", "Net/stem", "ConvNorm"),
        ("transpose(jvp(Arms.project))/<Arms>/fc/<Dense>", "Arms/fc", "Dense"),
        # A method that calls another of its module's.
        ("Arm.project/<Arm>/Arm.features/<Arm>/fc/<Dense>", "Arm/fc", "Dense"),
        ("while/body/closed_call/Net/<Net>/jit(relu)/max", "Net", "Net"),
        ("vmap(jvp(<optimizer>))/add", "optimizer", "optimizer"),
        ("Net/<Net>/bnqe,bnke->bnqk/dot_general", "Net", "Net"),
    ],
)
def test_place(stack, path, module):
    assert scopes.place(stack) == (path, module)


# Compiled programs

PROGRAM = """\
HloModule jit_step, is_scheduled=true

%region_0.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b), metadata={op_name="reduce_sum"}
}

%fused_computation (p0: f32[4,8], p1: f32[8,2]) -> f32[4,2] {
  %p0 = f32[4,8]{1,0} parameter(0)
  %p1 = f32[8,2]{1,0} parameter(1)
  %d = f32[4,2]{1,0} dot(%p0, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(step)/Net/<Net>/conv/<Conv>/transpose" stack_frame_id=3}
  ROOT %m = f32[4,2]{1,0} maximum(%d, %d), metadata={op_name="jit(step)/Net/<Net>/max"}
}

%fused_computation.1 (p0.1: f32[4,8]) -> f32[4] {
  %p0.1 = f32[4,8]{1,0} parameter(0)
  %c = f32[] constant(0)
  %e = f32[4,8]{1,0} multiply(%p0.1, %p0.1), metadata={op_name="jit(step)/Net/<Net>/norm/<LayerNorm>/square"}
  ROOT %r = f32[4]{0} reduce(%e, %c), dimensions={1}, to_apply=%region_0.1, metadata={op_name="jit(step)/Net/<Net>/norm/<LayerNorm>/reduce_sum"}
}

%fused_computation.2 (p0.2: f32[4]) -> f32[4,8] {
  %p0.2 = f32[4]{0} parameter(0)
  ROOT %bc = f32[4,8]{1,0} broadcast(%p0.2), dimensions={0}, metadata={op_name="jit(step)/add"}
}

ENTRY %main (x: f32[4,8], w: f32[8,2]) -> (f32[4,2], f32[4]) {
  %x = f32[4,8]{1,0} parameter(0), metadata={op_name="x['a']"}
  %w = f32[8,2]{1,0} parameter(1)
  %copy.1 = f32[4,8]{0,1} copy(%x)
  %dot_fusion = f32[4,2]{1,0} fusion(%x, %w), kind=kCustom, calls=%fused_computation, metadata={op_name="jit(step)/Net/<Net>/max"}
  %reduce_fusion = f32[4]{0} fusion(%x), kind=kLoop, calls=%fused_computation.1
  %broadcast_fusion = f32[4,8]{1,0} fusion(%reduce_fusion), kind=kLoop, calls=%fused_computation.2
  %cublas = (f32[4,2]{1,0}, s8[16]{0}) custom-call(%x, %w), custom_call_target="__cublas$gemm", metadata={op_name="jit(step)/Net/<Net>/head/<Dense>/dot_general"}
  %cudnn = (f32[4,2]{1,0}, u8[0]{0}) custom-call(%x, %w), custom_call_target="__cudnn$convForward", metadata={op_name="jit(step)/Net/<Net>/stem/<Conv>/conv_general_dilated"}
  %svd = (f32[4]{0}, s32[]) custom-call(%x), custom_call_target="lapack_sgesdd_ffi", metadata={op_name="jit(step)/jit(svd)/svd"}
  %tanh.1 = f32[4]{0} tanh(%reduce_fusion), metadata={op_name="jit(step)/tanh"}
  %ar = f32[4]{0} all-reduce(%tanh.1), replica_groups={{0,1}}, to_apply=%region_0.1, metadata={op_name="jit(step)/Net/<Net>/reduce_sum"}
  ROOT %tuple.1 = (f32[4,2]{1,0}, f32[4]{0}) tuple(%dot_fusion, %ar)
}
"""  # noqa: E501


def test_sources_of_a_program():
    assert hlo.program_name(PROGRAM) == "jit_step"
    found = hlo.sources(PROGRAM)
    expected = {
        "copy.1": ("copy", "", "copy"),
        # A fusion is its product, and that a convolution in a module that is one.
        "dot_fusion": ("dot_general", "Net/conv", "convolution"),
        "reduce_fusion": ("reduce_sum", "Net/norm", "normalisation"),
        "broadcast_fusion": ("broadcast", "", "copy"),
        "cublas": ("dot_general", "Net/head", "matmul"),
        "cudnn": ("conv_general_dilated", "Net/stem", "convolution"),
        "svd": ("svd", "", "other"),
        "tanh.1": ("tanh", "", "elementwise"),
        "ar": ("all-reduce", "Net", "collective"),
    }
    assert {name: found[name] for name in expected} == {
        name: hlo.Source(*source) for name, source in expected.items()
    }
    with pytest.raises(ValueError, match="HloModule"):
        hlo.program_name("module @jit_step")


# Traces


def event(name, start, length, **stats):
    return types.SimpleNamespace(
        name=name, start_ns=start, duration_ns=length, stats=list(stats.items())
    )


def operation(name, start, length):
    return event(name, start, length, hlo_op=name, hlo_module="jit_step")


def read_planes(monkeypatch, planes):
    """`trace.read` of planes as {plane: {line: events}}."""
    made = [
        types.SimpleNamespace(
            name=plane,
            lines=[
                types.SimpleNamespace(name=line, events=events)
                for line, events in lines.items()
            ],
        )
        for plane, lines in planes.items()
    ]
    data = types.SimpleNamespace(planes=made)
    reader = types.SimpleNamespace(from_file=lambda _: data)
    monkeypatch.setattr(jax.profiler, "ProfileData", reader)
    return trace.read("file")


def test_read_threads(monkeypatch):
    """Self times on two threads, and the time in which neither has an operation."""
    s = 10**9
    found = read_planes(
        monkeypatch,
        {
            "/host:CPU": {
                "python": [event("PjitFunction(step)", 0, 100 * s)],
                "pool/1": [
                    operation("while", 0, 10 * s),
                    # Out of order, as a file may have them; one inside the other.
                    operation("inner", 4 * s, 1 * s),
                    operation("outer", 2 * s, 6 * s),
                    event("end: while", 9 * s, 1 * s),
                    operation("inner", 20 * s, 3 * s),
                ],
                "pool/2": [operation("outer", 8 * s, 4 * s)],
            },
            "/host:metadata": {"line": [operation("while", 0, 50 * s)]},
        },
    )
    assert found.operations == {
        ("jit_step", "while"): trace.Busy(1, 4.0),
        ("jit_step", "outer"): trace.Busy(2, 5.0 + 4.0),
        ("jit_step", "inner"): trace.Busy(2, 1.0 + 3.0),
    }
    assert (found.seconds, found.idle) == (23.0, 8.0)


def test_read_streams(monkeypatch):
    """A device's summary lines are left out; a copy belongs to no operation."""
    s = 10**9
    found = read_planes(
        monkeypatch,
        {
            "/device:GPU:0": {
                "XLA Ops": [operation("gemm", 0, 9 * s)],
                "Stream #1": [operation("gemm", 0, 2 * s)],
                "Stream #2": [event("MemcpyH2D", 2 * s, 1 * s)],
            },
            # What the host did to start the kernel.
            "/host:CPU": {"python": [operation("gemm", 0, 8 * s)]},
        },
    )
    assert found.operations == {
        ("jit_step", "gemm"): trace.Busy(1, 2.0),
        ("", "MemcpyH2D"): trace.Busy(1, 1.0),
    }
    assert (found.seconds, found.idle) == (3.0, 0.0)


def test_reading_stats_may_warn(monkeypatch):
    """As jaxlib's do on Python 3.13, inside of an extension that no error may leave."""

    class Warns(types.SimpleNamespace):
        @property
        def stats(self):
            warnings.warn("builtin type event_stats", DeprecationWarning, stacklevel=1)
            return [("hlo_op", "gemm"), ("hlo_module", "jit_step")]

    events = [Warns(name="gemm", start_ns=0, duration_ns=10**9)]
    found = read_planes(monkeypatch, {"/host:CPU": {"pool/1": events}})
    assert found.operations == {("jit_step", "gemm"): trace.Busy(1, 1.0)}


def test_read_an_empty_window(monkeypatch):
    found = read_planes(monkeypatch, {"/host:CPU": {"python": []}})
    assert found == trace.Times({}, 0.0, 0.0)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    spans=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), min_size=1),
)
def test_busy_and_idle_make_the_window(spans):
    """On threads of their own, no event is inside another."""
    lines = {
        f"pool/{i}": [operation(f"op{i}", start, length)]
        for i, (start, length) in enumerate(spans)
    }
    with pytest.MonkeyPatch.context() as patch:
        found = read_planes(patch, {"/host:CPU": lines})
    busy = {t for start, length in spans for t in range(start, start + length)}
    window = max(busy) + 1 - min(busy)
    assert found.seconds == pytest.approx(window * 1e-9)
    assert found.idle == pytest.approx((window - len(busy)) * 1e-9, abs=1e-15)
    assert sum(b.seconds for b in found.operations.values()) == pytest.approx(
        sum(length for _, length in spans) * 1e-9
    )


def test_window_writes_what_newest_finds(tmp_path):
    with pytest.raises(ValueError, match="no trace"):
        profile.newest(tmp_path)
    with profile.window(tmp_path):
        jax.block_until_ready(jax.jit(lambda x: x @ x)(jnp.ones((8, 8))))
    found = profile.read(profile.newest(tmp_path))
    assert any(program.startswith("jit_") for program, _ in found.operations)
    assert 0 <= found.idle <= found.seconds


# Tables

COUNTED = profile.Counted(
    (
        profile.Operation("dot_general", "Net/head", "matmul", 2, 600, 40, 20),
        profile.Operation("tanh", "", "elementwise", 4, 200, 16, 16),
    ),
    (),
    {},
)
TIMES = trace.Times(
    {
        ("jit_step", "cublas"): trace.Busy(12, 6.0),
        ("jit_step", "copy.1"): trace.Busy(6, 3.0),
        ("jit_step", "unknown"): trace.Busy(3, 0.3),
        ("jit_other", "cublas"): trace.Busy(3, 0.6),
    },
    10.0,
    0.1,
)


def joined():
    sources = hlo.sources(PROGRAM)
    return table.join(COUNTED, TIMES, sources, program="jit_step", calls=3, steps=2)


def test_join():
    """Three calls of a program of two steps: a step has a half and a sixth."""
    rows = {(row.primitive, row.module): row for row in joined()}
    product = rows["dot_general", "Net/head"]
    assert product == table.Row(
        "dot_general",
        "Net/head",
        "matmul",
        calls=1,
        kernels=2,
        seconds=1,
        flops=300,
        bytes_in=20,
        bytes_out=10,
    )
    assert rows["tanh", ""].seconds == 0
    assert rows["copy", ""].calls == 0
    # What the program does not know; what another program did is in no row.
    rest = rows[table.NOT_ATTRIBUTED, ""]
    assert (rest.kernels, rest.seconds) == (0.5, pytest.approx(0.05))
    assert sum(row.seconds for row in rows.values()) == pytest.approx(9.3 / 6)
    classes = [row.kind for row in table.by_class(joined())]
    assert classes == ["matmul", "elementwise", "copy", table.NOT_ATTRIBUTED]
    with pytest.raises(ValueError, match="0 calls of 2 steps"):
        table.join(COUNTED, TIMES, {}, program="", calls=0, steps=2)


def test_a_transfer_is_attributed_to_no_operation():
    times = trace.Times({("", "MemcpyH2D"): trace.Busy(6, 3.0)}, 10.0, 7.0)
    sources = hlo.sources(PROGRAM)
    rows = table.join(COUNTED, times, sources, program="jit_step", calls=3, steps=2)
    [rest] = [row for row in rows if row.kind == table.NOT_ATTRIBUTED]
    assert (rest.kernels, rest.seconds) == (1, 0.5)


names = st.sampled_from(["", "a", "a/b", "a/b/c", "a/d", "e"])


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "mul"]),
            names,
            st.sampled_from([*rules.CLASSES, table.NOT_ATTRIBUTED]),
            st.integers(0, 9),
        )
    ),
    st.integers(1, 6),
)
def test_every_table_has_the_same_sums(entries, most):
    rows = [
        table.Row(primitive, module, kind, seconds=n, flops=2 * n)
        for primitive, module, kind, n in entries
    ]
    for grouped in (
        table.by_class(rows),
        table.by_operation(rows),
        table.by_module(rows, most=most),
    ):
        assert sum(row.seconds for row in grouped) == sum(n for *_, n in entries)
        assert sum(row.flops for row in grouped) == 2 * sum(n for *_, n in entries)


def test_modules_as_deep_as_there_are_rows_for():
    rows = [table.Row("add", f"a/{x}/{y}", "copy") for x in "bc" for y in "de"]
    assert len(table.by_module(rows, most=4)) == 4
    assert [r.module for r in table.by_module(rows, most=3)] == ["a/b", "a/c"]
    assert [r.module for r in table.by_module(rows, most=1)] == ["a"]


# A step, a stage


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return layers.Dense(16, name="head")(layers.LayerNorm(name="norm")(x))


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """A step of a small network, profiled and written."""
    folder = tmp_path_factory.mktemp("profile")
    x = np.ones((32, 8), np.float32)
    params = Net().init(jax.random.key(0), x)

    def loss(params, x):
        return jnp.square(Net().apply(params, x)).mean()

    def step(params, x):
        value, grads = jax.value_and_grad(loss)(params, x)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), {"loss": value}

    found = profile.measure(
        jax.jit(step, donate_argnums=0),
        params,
        chunks=((1, x) for _ in range(9)),
        folder=folder,
        steps=3,
    )
    files = profile.write(found, folder, title="A step", facts={"batch": 32})
    return found, folder, files


def test_profile_of_a_step(profiled):
    found, folder, _ = profiled
    assert (found.cold.steps, found.warm.steps, found.devices) == (1, 3, 1)
    assert min(found.seconds, found.peak, found.compile_seconds) > 0
    assert found.wait <= found.seconds
    assert found.memory["arguments"] >= 4 * (32 * 8 + 8 * 16)
    products = {
        row.module: row for row in found.warm.rows if row.primitive == "dot_general"
    }
    # Forward and backward of the only product; its input needs a gradient too.
    head = products["Net/head"]
    assert head.flops == 3 * 2 * 32 * 8 * 16
    assert head.kernels >= 1 and head.seconds > 0
    for window in (found.cold, found.warm):
        assert 0 <= window.idle < 1
        assert {row.kind for row in window.rows} >= {"matmul", "normalisation"}
        trace_of = profile.newest(folder / ("cold" if window is found.cold else "warm"))
        times = profile.read(trace_of)
        total = sum(busy.seconds for busy in times.operations.values())
        summed = sum(r.seconds for r in window.rows) + window.others
        assert summed == pytest.approx(total / window.steps)


def test_files_of_a_profile(profiled):
    found, _, (markdown, table_csv, content) = profiled
    text = markdown.read_text("utf-8")
    for part in ("# A step", "batch: 32", "warm (3 steps)", "cold", "Net/head"):
        assert part in text
    tables = [part for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) == 4
    for lines in map(str.splitlines, tables):
        assert {line.count("|") for line in lines} == {lines[0].count("|")}
    # Shares of time and of FLOPs.
    [total] = [line for line in tables[0].splitlines() if "| total |" in line]
    assert total.count("100.00 %") == 2
    with table_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for window in ("cold", "warm"):
        mine = [row for row in rows if row["window"] == window]
        for share in ("share_of_time", "share_of_flops"):
            assert sum(float(row[share]) for row in mine) == pytest.approx(1)
    loaded = json.loads(content.read_text("utf-8"))
    assert loaded["flops"] == found.counted.flops
    assert loaded["facts"] == {"batch": 32}
    [head] = [
        row
        for row in loaded["warm"]["operations"]
        if (row["primitive"], row["module"]) == ("dot_general", "Net/head")
    ]
    assert head["flops_per_second"] == pytest.approx(head["flops"] / head["seconds"])
    assert head["share_of_peak"] == pytest.approx(
        head["flops_per_second"] / loaded["peak"]
    )


def test_a_rate_is_of_all_devices_and_a_time_of_the_traced_ones(profiled, tmp_path):
    """Of two processes of two devices each, the trace of one shows two."""
    found, _, _ = profiled
    row = table.Row("dot_general", "", "matmul", seconds=4.0, flops=12e9)
    window = dataclasses.replace(found.warm, rows=[row], others=0.5)
    many = dataclasses.replace(
        found, warm=window, devices=4, local_devices=2, peak=12e9
    )
    files = profile.write(many, tmp_path, title="A step", facts={})
    content = json.loads(files[2].read_text("utf-8"))
    # The two were at it for two seconds each, as were the two others.
    [shown] = content["warm"]["operations"]
    assert (shown["flops_per_second"], shown["share_of_peak"]) == (6e9, 0.5)
    assert (content["devices"], content["local_devices"]) == (4, 2)
    text = files[0].read_text("utf-8")
    assert "traced: 2 of the 4 devices" in text
    assert "other programs, in no table: 500.0 ms per step" in text


def test_devices_of_this_process_alone():
    here, elsewhere = (types.SimpleNamespace(process_index=i) for i in (0, 1))
    assert devices.local([here, elsewhere]) == [here]


def test_measure_says_what_is_missing(tmp_path):
    def step(state, chunk):
        return state + chunk, {}

    one = jnp.ones(())
    with pytest.raises(ValueError, match="steps=0"):
        profile.measure(step, one, chunks=[], folder=tmp_path, steps=0)
    # The second chunk is of another length.
    with pytest.raises(ValueError, match="too few chunks"):
        profile.measure(step, one, chunks=[(1, one), (2, one)], folder=tmp_path)


def test_peak_counts_all_devices(monkeypatch):
    monkeypatch.setattr(runner, "_SIDE", {"cpu": 8})
    ticks = iter(range(100))
    monkeypatch.setattr(runner.time, "perf_counter", lambda: next(ticks))
    # A second for each try: 2 x 8^3 FLOPs on each of two devices.
    assert runner.peak(jax.local_devices()[:2], dtype="bfloat16") == 2 * 2 * 8**3


def test_profile_of_a_stage(tmp_path, capsys):
    config = load_config(str(ROOT / "configs/curriculum.py"))
    config.seeds = 1
    config.model.perceptron.hidden = (8,)
    config.train.steps = 8
    config.train.eval_every = config.checkpoint.every = config.log.every = 2
    found = command.run(config, tmp_path, steps=2)
    assert found.steps == 2
    assert found.warm.steps == 4
    products = [row for row in found.warm.rows if row.kind == "matmul"]
    # Backward, the first layer has a gradient for its kernel alone.
    inputs, classes = 32 * 32, 3
    assert sum(row.flops for row in products) == 2 * config.train.batch * (
        2 * inputs * 8 + 3 * 8 * classes
    )
    said = capsys.readouterr().out
    assert "Profile of curriculum, preset demo, stage classify" in said
    assert "| matmul |" in said
    assert "By module" not in said
    with pytest.raises(ValueError, match=r"stage 'pretrain', expected .*classify"):
        command.run(config, tmp_path, stage="pretrain")
    with pytest.raises(ValueError, match="steps=0"):
        command.run(config, tmp_path, steps=0)


def test_a_step_says_what_is_of_no_module():
    def apply_fn(variables, made, *, train, **_):
        return {"arm": made["arm"] @ variables["params"]["w"]}, {}

    def views(_, batch, *, train, step_key):
        return {"arm": 2.0 * batch["image"]}

    tx = optax.sgd(0.1)
    step = steps.make_supervised_step(apply_fn, tx, views=views)
    state = steps.init_state({"params": {"w": jnp.ones(3)}}, tx, key=jax.random.key(0))
    batch = {
        "image": jnp.ones((4, 3)),
        "label": jnp.ones(4, int),
        "weight": jnp.ones(4),
    }
    counted = profile.count(step, state, batch)
    found = {operation.module for operation in counted.operations}
    assert {"views", "loss", "optimizer"} <= found


def test_text_and_flag_name_the_same_default_folder():
    file = ROOT / "memejax/profile/__main__.py"
    text = file.read_text("utf-8")
    default = "runs/profile-<config>-<preset>[-<stage>]"
    assert default in (ast.get_docstring(ast.parse(text)) or "")
    assert text.count(default) == 2
