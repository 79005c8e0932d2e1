"""Predicted scaling of data-parallel training, beside the paper's.

    python -m memejax.bench.scaling_paper

Two tables by the functions of `memejax.bench.scaling_model`. The first is for the
paper's machine, four RTX 8000: from its seconds on one of them, the efficiency of
nn.DataParallel and of a ring over its links, beside the published one. The second
extrapolates one device's step to many, with a fixed batch (strong) and a fixed batch
per device (weak), with no communication hidden and with the backward pass to hide it.

The seconds of the step must be from the same kind of device, or the prediction is too
optimistic: the slower a device, the less its links matter. By default they are the
paper's. `--from` reads the JSON of `memejax.bench.scaling` or `train_step`.
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
from memejax.errors import command

# Batch size -> seconds of an epoch on one RTX 8000 and on four.
MEMES = 6800
EPOCH = {4: (531.0, 304.8), 32: (406.0, 133.0)}
DEVICES = 4
# Two arms with a DistilBERT each, in float32.
GRADIENT_BYTES = 240_000_000 * 4
# Share of a step's arithmetic that follows its first gradient.
BACKWARD = 2 / 3


def paper_rows() -> list[dict[str, Any]]:
    """Efficiencies on the paper's machine, predicted and published.

    It is unpublished whether the batch of 4 was for all devices together (strong
    scaling) or for each (weak): both are here.
    """
    one = paper_steps()
    rows = []
    for batch, kind in ((4, "strong"), (4, "weak"), (32, "weak")):
        # An epoch has the same examples on four devices: "strong", whatever the batch.
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
    """Batch size -> seconds of the paper's step on one device."""
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
    """Predict both kinds of scaling to many devices with rings.

    Args:
        step_seconds: seconds of a step on one device.
        gradient_bytes: bytes of all gradients.
        devices: numbers of devices.
        link: link in a node.
        across: link between nodes.
        node: devices per node.
        fixed_seconds: fixed part of the step, for strong scaling.

    Returns:
        One row per kind and number of devices: seconds, speed-up and efficiency with
        no communication hidden, and, as `hidden`, behind the backward pass.

    Raises:
        ValueError: as in `scaling_model.predicted`.
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
    """Read one device's step from a benchmark's JSON.

    Args:
        path: file of `memejax.bench.scaling` or of `memejax.bench.train_step` with the
            case cass_mm.

    Returns:
        step_seconds, gradient_bytes (in float32), batch, and fixed_seconds (0 unless
        two batch sizes were measured).

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
        help="JSON file with the step (default: the paper's step)",
    )
    parser.add_argument(
        "--step-seconds",
        type=float,
        metavar="S",
        help="seconds of a step on one device, instead of the paper's or the file's",
    )
    parser.number("--batch", None, text="memes per step, for the output")
    parser.add_argument(
        "--fixed-seconds",
        type=float,
        metavar="S",
        help="part of these seconds that does not shrink with the batch (default: "
        "from the paper's or the file's two batches; 0 if only one is known)",
    )
    parser.add_argument(
        "--gradient-bytes",
        type=float,
        metavar="N",
        help="bytes of all gradients (default: the file's, or "
        f"{GRADIENT_BYTES:.3g} for the paper's models)",
    )
    parser.add_argument(
        "--link",
        choices=LINKS,
        default="nvlink4",
        metavar="NAME",
        help="link between devices of a node, one of %(choices)s",
    )
    parser.add_argument(
        "--across",
        choices=LINKS,
        default="infiniband",
        metavar="NAME",
        help="link between nodes, likewise",
    )
    parser.number("--node", 8, text="devices per node")
    parser.number(
        "--devices",
        [1, 2, 4, 8, 16, 64],
        text="numbers of devices to predict for",
        several=True,
    )
    return parser.parse_args()


@command
def main() -> None:
    """Print both tables."""
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
    predictions = rows(
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
        {"step": step, "joined by": joined, "paper": paper, "rows": predictions},
        options.out,
    )
    print(f"\nEfficiency on {DEVICES} RTX 8000, from the seconds on one:")
    print(tables.text(paper))
    print(f"\nFrom a step of {step['step_seconds']:.3f} s, {joined}:")
    print(tables.text(predictions))


if __name__ == "__main__":
    main()
