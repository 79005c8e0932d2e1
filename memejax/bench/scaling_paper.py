"""Data-parallel training on paper: what more devices would give, and gave.

    python -m memejax.bench.scaling_paper

Two tables by the functions of `memejax.bench.scaling_model`. The first is the paper's
machine, four RTX 8000: from its own seconds on one of them, what nn.DataParallel and a
ring would give over its links, beside what it printed. The second goes from one
device's step to many, with a fixed batch (strong) and a fixed batch a device (weak),
with nothing of the communication hidden and with the backward pass to hide it behind.

The step's seconds are those of the device that it is predicted for, or the prediction
is too good: the slower a device, the less its links matter. By default they are the
paper's. `--from` takes the JSON of `memejax.bench.scaling` or `train_step`.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from memejax.bench import pairs, tables
from memejax.bench.command_line import Parser
from memejax.bench.scaling_model import (
    KINDS,
    LINKS,
    METHODS,
    Link,
    efficiency,
    fixed_part,
    predicted,
)

# An epoch's seconds on one RTX 8000 and on four, by batch.
MEMES = 6800
EPOCH = {4: (531.0, 304.8), 32: (406.0, 133.0)}
DEVICES = 4
# Two arms with a DistilBERT each, in float32.
GRADIENT_BYTES = 240_000_000 * 4
# Share of a step's arithmetic that follows its first gradient.
BACKWARD = 2 / 3


def paper_rows() -> list[dict[str, Any]]:
    """Efficiencies on the paper's machine, ours on paper beside the ones it printed.

    It does not say whether its batch of 4 was of all devices together (strong
    scaling) or of each (weak): both are here.
    """
    one = paper_steps()
    rows = []
    for batch, kind in ((4, "strong"), (4, "weak"), (32, "weak")):
        # An epoch on four devices is an epoch: its speed-up needs no batch.
        alone, together = EPOCH[batch]
        row: dict[str, Any] = {
            "batch": batch,
            "kind": kind,
            "paper": efficiency(alone, together, devices=DEVICES, kind="strong"),
        }
        for method in METHODS:
            for link in ("pcie3", "nvlink2"):
                then = predicted(
                    one[batch],
                    GRADIENT_BYTES,
                    devices=DEVICES,
                    link=LINKS[link],
                    kind=kind,
                    fixed_seconds=fixed_part(one),
                    method=method,
                )
                row[f"{method}, {link}"] = efficiency(
                    one[batch], then, devices=DEVICES, kind=kind
                )
        rows.append(row)
    return rows


def paper_steps() -> dict[int, float]:
    """Seconds of the paper's step on one device, by batch."""
    return {batch: alone * batch / MEMES for batch, (alone, _) in EPOCH.items()}


def rows(
    step_seconds: float,
    gradient_bytes: float,
    *,
    devices: Sequence[int],
    link: Link,
    across: Link,
    node: int = 8,
    fixed_seconds: float = 0.0,
) -> list[dict[str, Any]]:
    """Both kinds of scaling to many devices by rings.

    Args:
        step_seconds: on one device.
        gradient_bytes: of all gradients.
        devices: how many.
        link: in a node.
        across: between nodes.
        node: devices of one.
        fixed_seconds: of the step, for strong scaling.

    Returns:
        A row a kind and number of devices: seconds, speed-up and efficiency with
        nothing hidden, and, as `hidden`, behind the backward pass.

    Raises:
        ValueError: as of `scaling_model.predicted`.
    """
    found = []
    for kind in KINDS:
        for count in devices:
            row: dict[str, Any] = {"kind": kind, "devices": count}
            for name, overlap in (("", 0.0), ("hidden ", BACKWARD)):
                then = predicted(
                    step_seconds,
                    gradient_bytes,
                    devices=count,
                    link=link,
                    across=across,
                    node=node,
                    kind=kind,
                    fixed_seconds=fixed_seconds,
                    overlap=overlap,
                )
                share = efficiency(step_seconds, then, devices=count, kind=kind)
                row[f"{name}seconds"] = then
                row[f"{name}speed-up"] = count * share
                row[f"{name}efficiency"] = share
            found.append(row)
    return found


def read_step(path: str) -> dict[str, Any]:
    """One device's step in a benchmark's JSON.

    Args:
        path: of `memejax.bench.scaling` or of `memejax.bench.train_step` with the case
            cass_mm.

    Returns:
        step_seconds, gradient_bytes (of float32), batch, and fixed_seconds where two
        batches were measured.

    Raises:
        ValueError: if the file has no such step.
    """
    found, parameters = json.loads(pathlib.Path(path).read_text("utf-8")), 0
    if found["benchmark"] == "scaling":
        alone = {
            row["batch"]: float(np.median(row["seconds"]))
            for row in found["cases"]
            if row["devices"] == 1 and row["input"] == "synthetic"
        }
        parameters = found["parameters"]
    else:
        alone, case = {}, found.get("cass_mm")
        if case is not None:
            alone[case["batch"]] = case["batch"] / float(np.median(case["ours"]))
            parameters = case["parameters"]["ours"]
    if not alone:
        raise ValueError(
            f"{path}: got the benchmark {found['benchmark']!r} without a step of "
            "multimodal CASS on one device, expected one"
        )
    batch = max(alone)
    return {
        "batch": batch,
        "step_seconds": alone[batch],
        "gradient_bytes": 4 * parameters,
        "fixed_seconds": fixed_part(alone) if len(alone) == 2 else 0.0,
    }


def _options() -> argparse.Namespace:
    parser = Parser("scaling_paper", __doc__)
    parser.add_argument(
        "--from",
        dest="file",
        metavar="FILE",
        help="JSON that has the step (default: the paper's step)",
    )
    parser.add_argument(
        "--step-seconds",
        type=float,
        metavar="S",
        help="seconds of a step on one device, instead of the paper's or the file's",
    )
    parser.number("--batch", None, text="memes of that step, to be printed")
    parser.add_argument(
        "--fixed-seconds",
        type=float,
        metavar="S",
        help="of these seconds, those that do not shrink with the batch (default: "
        "from the paper's or the file's two batches; 0 where one alone is known)",
    )
    parser.add_argument(
        "--gradient-bytes",
        type=float,
        metavar="N",
        help="bytes of all gradients (default: the file's, or "
        f"{GRADIENT_BYTES:.3g} as of the paper's models)",
    )
    parser.add_argument(
        "--link",
        choices=LINKS,
        default="nvlink4",
        metavar="NAME",
        help="between devices of a node, of %(choices)s",
    )
    parser.add_argument(
        "--across",
        choices=LINKS,
        default="infiniband",
        metavar="NAME",
        help="between nodes, likewise",
    )
    parser.number("--node", 8, text="devices of a node")
    parser.number(
        "--devices",
        [1, 2, 4, 8, 16, 64],
        text="numbers of devices to predict for",
        several=True,
    )
    return parser.parse_args()


def main() -> None:
    """The command line."""
    options = _options()
    one = paper_steps()
    step = {
        "batch": 32,
        "step_seconds": one[32],
        "gradient_bytes": GRADIENT_BYTES,
        "fixed_seconds": fixed_part(one),
    }
    if options.file is not None:
        step = read_step(options.file)
    elif options.step_seconds is not None:
        step |= {"batch": None, "fixed_seconds": 0.0}
    step |= {
        name: value for name in step if (value := getattr(options, name)) is not None
    }
    paper = paper_rows()
    ahead = rows(
        step["step_seconds"],
        step["gradient_bytes"],
        devices=options.devices,
        link=LINKS[options.link],
        across=LINKS[options.across],
        node=options.node,
        fixed_seconds=step["fixed_seconds"],
    )
    joined = f"{options.link} in nodes of {options.node}, {options.across} between"
    pairs.write(
        "scaling on paper",
        {"step": step, "joined by": joined, "paper": paper, "rows": ahead},
        options.out,
    )
    print(f"\nEfficiency on {DEVICES} RTX 8000, from the seconds on one:")
    print(tables.text(paper))
    print(f"\nFrom a step of {step['step_seconds']:.3f} s, {joined}:")
    print(tables.text(ahead))


if __name__ == "__main__":
    main()
