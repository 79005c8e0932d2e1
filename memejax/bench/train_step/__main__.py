"""Training steps: examples/s of ours and of PyTorch with transformers' modules.

    python -m memejax.bench.train_step --case vit text

resnet, vit, text  an encoder, one logit and the binary cross-entropy
cass_mm            multimodal CASS: ResNet-50 and ViT-B/16, each with a DistilBERT
cass               CASS of the same two image encoders
dino               a ViT and its teacher, on two crops of each image
finetune           the arms of cass_mm and the binary cross-entropy of each

`small`, the default, is ResNet-50 at 128 pixels (batch 16), ViT-S/16 at 224 (8),
DistilBERT at 64 tokens (16) and the arms at 224 pixels and 64 tokens (4); `paper` has
384 pixels, 88 tokens and ViT-B/16 throughout, as published, with a batch of 4. For one
GPU with 140 GB:

    python -m memejax.bench.train_step --case cass_mm --size paper --dtype bfloat16
        --batch 64

Both sides train the same sizes (a different number of parameters is an error) from
random weights, on one batch on the device, with AdamW and one learning rate, and
without augmentation. Captions have DistilBERT's dropout of 0.1 on both sides (`tiny`:
none). Ours are the steps that a run compiles, with a donated state; metrics and the
collapse panel at every tenth step are included. The peer has channels last, fused
AdamW, torch.compile and TF32 on a GPU (jax uses TF32 too), autocast if the dtype is
bfloat16 (our heads stay float32), and on a CPU its best number of threads. On a GPU
both hold their memory at the same time.

"share" is speed times the FLOPs of the products and convolutions of a step (forward and
backward, counted once for both) over the rate of a large product in the same dtype, as
XLA computes it here: no peak, and more than 100 % where a library does better. Over the
datasheet's rate, if known, it is the MFU. Without torch and transformers
only our side runs, with a message.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from memejax.bench import pairs, tables
from memejax.bench.command_line import Parser
from memejax.bench.train_step.cases import CASES, DTYPES, SIZES
from memejax.command_line import prepare
from memejax.errors import command

if TYPE_CHECKING:
    from memejax.bench.train_step import problem
    from memejax.bench.train_step.ours import Trainer

DEFAULT = ("resnet", "vit", "text", "cass_mm")
# Dense bfloat16 FLOP/s of the datasheets, for the first name contained in a device's.
DATASHEET = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12}


@command
def main() -> None:
    """Run the benchmark."""
    # Before a backend starts: PyTorch needs memory too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    options = _options()
    prepare()
    if len(options.case) == 1:
        figures = {options.case[0]: measure(options)}
    else:
        # One process per case: peak memory is measured per process, and freed with it.
        figures = {case: _in_subprocess(case) for case in options.case}
    pairs.write("train_step", figures, options.out)
    print(table(figures))


def _options() -> argparse.Namespace:
    parser = Parser("train_step", __doc__, pairs=7)
    parser.names("--case", CASES, default=DEFAULT, text="cases, as listed above")
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="small",
        help="size of networks and examples; tiny is for tests",
    )
    parser.number("--batch", None, text="examples per batch (default: the size's)")
    parser.number(
        "--pixels", None, text="side of an image, in pixels (default: the size's)"
    )
    parser.number("--tokens", None, text="tokens per caption (default: the size's)")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="dtype of the products",
    )
    parser.number("--steps", 5, text="training steps in one run of a side")
    parser.add_argument("--no-peer", action="store_true", help="time only our side")
    parser.add_argument(
        "--operations",
        action="store_true",
        help="where a step's time goes on both sides, by class (CPU)",
    )
    options = parser.parse_args()
    if options.steps < 1 or options.pairs < 1:
        parser.error("--steps and --pairs take at least 1")
    return options


def _in_subprocess(case: str) -> dict[str, Any]:
    """Measure one case in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "figures.json"
        # The last of repeated options counts.
        more = [f"--out={file}", "--case", case]
        command = [sys.executable, "-m", "memejax.bench.train_step", *sys.argv[1:]]
        subprocess.run([*command, *more], check=True)
        return json.loads(file.read_text("utf-8"))[case]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one case.

    Args:
        options: options of the command line, with one case.

    Raises:
        ValueError: if a number is out of range, or the sides differ in size.
    """
    # Imported here to keep --help fast.
    from memejax.bench.train_step import operations, problem
    from memejax.bench.train_step.ours import Trainer

    given = problem.problem(
        options.case[0],
        options.size,
        dtype=options.dtype,
        batch=options.batch,
        pixels=options.pixels,
        tokens=options.tokens,
    )
    why_no_peer = missing_peer(options.no_peer)
    ours = Trainer(given)
    figures: dict[str, Any] = {
        "unit": given.unit,
        **given.shape(),
        "steps": options.steps,
        "parameters": {"ours": ours.parameters},
        "compile seconds": {"ours": ours.compile_seconds},
    }
    sides: dict[str, Any] = {"ours": ours}
    if why_no_peer is not None:
        print(f"{why_no_peer}: timing only our side")
        ours.run(options.steps)
        speeds = {"ours": [ours.run(options.steps) for _ in range(options.pairs)]}
    else:
        peer = sides["peer"] = _peer(given)
        figures["parameters"]["peer"] = peer.parameters
        problem.check_parameters(given.case, figures["parameters"])
        peer.warm_up(options.steps)
        speeds = pairs.in_turn(
            lambda: ours.run(options.steps),
            lambda: peer.run(options.steps),
            pairs=options.pairs,
        )
        # The peer compiles in its first step on a GPU, and not at all on a CPU.
        figures["first step seconds"] = {"peer": peer.first_seconds}
        figures["peer is"] = peer.about()
    if options.operations:
        spent = {"ours": operations.of_ours(ours, steps=options.steps)}
        if "peer" in sides:
            spent["peer"] = operations.of_peer(sides["peer"], steps=options.steps)
        figures["operations, ms"] = spent
        print(tables.text(operations.table_of(spent)))
    figures |= {"loss": {side: trainer.losses for side, trainer in sides.items()}}
    figures["peak memory"] = {side: trainer.memory() for side, trainer in sides.items()}
    return figures | {**utilisation(ours, speeds, given), **speeds}


def missing_peer(no_peer: bool) -> str | None:
    """Reason for having no peer; None if there is one."""
    if no_peer:
        return "--no-peer"
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            return f"{name} cannot be imported"
    import jax
    import torch

    if jax.default_backend() == "gpu" and not torch.cuda.is_available():
        return "torch has no GPU"
    return None


def _peer(given: problem.Problem) -> Any:
    import jax

    from memejax.bench.train_step import peer

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    return peer.Trainer(given, device=device)


def utilisation(
    ours: Trainer, speeds: Mapping[str, Any], given: problem.Problem
) -> dict[str, Any]:
    """FLOPs of a step, and each side's share of the device's rates."""
    from memejax.profile import runner

    kind = ours.device.device_kind
    found = [peak for name, peak in DATASHEET.items() if name in kind]
    peaks = {"product": runner.peak([ours.device], dtype=given.dtype)}
    if found and given.dtype == "bfloat16":
        peaks["datasheet"] = found[0]
    rates = {
        side: float(np.median(speeds[side])) / given.batch * ours.flops
        for side in ("ours", "peer")
        if side in speeds
    }
    return {
        "device": kind,
        "FLOPs a step": ours.flops,
        "FLOP/s of the device": peaks,
        "share": {
            name: {side: rate / peak for side, rate in rates.items()}
            for name, peak in peaks.items()
        },
    }


def table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the cases as a table."""
    head = ("case", "unit", "ours", "peer", "ours : peer", "share ours", "share peer")
    lines: list[tuple[str, ...]] = [head]
    for case, found in figures.items():
        speeds = [
            f"{np.median(found[side]):.4g}" if side in found else "-"
            for side in ("ours", "peer")
        ]
        ratio = "-"
        if "ratio" in found:
            low, high = found["ratio_low"], found["ratio_high"]
            ratio = f"{found['ratio']:.2f} ({low:.2f} to {high:.2f})"
        shares = found["share"]["product"]
        parts = [f"{shares[s]:.0%}" if s in shares else "-" for s in ("ours", "peer")]
        lines.append((case, found["unit"], *speeds, ratio, *parts))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


if __name__ == "__main__":
    main()
