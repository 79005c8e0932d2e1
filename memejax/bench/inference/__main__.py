"""Whole inference: from files and captions to features or probabilities, memes/s.

    python -m memejax.bench.inference

text      captions to features of DistilBERT
resnet    pictures and captions to features of ResNet-50 and DistilBERT, as
          `python -m memejax.extract` computes them
vit       likewise of ViT-B/16 and DistilBERT
predict   pictures and captions to P(hateful) of both arms, each with a DistilBERT, as
          `python -m memejax.predict`
evaluate  the same as the stage `evaluate` of a run does

Both sides read the same JPEGs of 400 to 800 pixels, decode and resize them with Pillow
to 224 pixels, tokenise the same captions (11 words in the median, 64 tokens at most) by
the same tokenizer and have networks of the same sizes with random weights. The peer is
transformers on PyTorch in inference mode behind a DataLoader, with captions padded to
the longest of a batch and channels last, eager and by `torch.compile`, at eager's best
numbers of worker processes and threads. Without torch only our side runs.
"""

from __future__ import annotations

import importlib.util
import pathlib
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np

from memejax.bench import pairs, tables
from memejax.bench.command_line import Parser
from memejax.bench.inference.cases import CASES
from memejax.bench.train_step.cases import DTYPES, SIZES
from memejax.command_line import prepare
from memejax.errors import command

if TYPE_CHECKING:
    from memejax.bench.inference import problem


@command
def main() -> None:
    """Run the benchmark."""
    parser = Parser("inference", __doc__, pairs=3)
    parser.names(
        "--case",
        CASES,
        default=tuple(CASES),
        text="cases, as listed above",
    )
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="small",
        help="size of networks and pictures; tiny is for tests",
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="dtype of the products"
    )
    parser.number("--memes", 32, text="memes in one run of a side")
    parser.number("--batch", 16, text="memes per batch")
    parser.add_argument(
        "--eager", action="store_true", help="do not compile the peer as well"
    )
    options = parser.parse_args()
    prepare()
    # Imported here to keep --help fast.
    from memejax.bench.inference import problem

    figures, rows = {}, []
    for case in options.case:
        with tempfile.TemporaryDirectory() as folder:
            given = problem.make(
                case,
                options.size,
                pathlib.Path(folder),
                count=options.memes,
                batch=options.batch,
                dtype=options.dtype,
            )
            figures[case] = measure(given, pairs_=options.pairs, eager=options.eager)
        rows += _rows(case, figures[case])
    pairs.write("inference", figures, options.out)
    print(tables.text(rows))


def measure(given: problem.Problem, *, pairs_: int, eager: bool) -> dict[str, Any]:
    """Measure one case against the peers that there are.

    Args:
        given: the case.
        pairs_: timed runs of each side.
        eager: whether PyTorch is not compiled as well.

    Raises:
        ValueError: if the sides differ in size.
    """
    from memejax.bench.inference import problem
    from memejax.bench.inference.ours import Runner
    from memejax.bench.train_step.problem import check_parameters

    ours = Runner(given)
    figures: dict[str, Any] = problem.shape(given) | {"parameters": ours.parameters}
    names = ("torch", "transformers")
    if any(importlib.util.find_spec(name) is None for name in names):
        ours.run()
        return figures | {"ours": [ours.run() for _ in range(pairs_)]}
    from memejax.bench.inference import peer

    chosen = None
    for kind in ("eager",) if eager else ("eager", "compiled"):
        other = peer.Runner(given, compiled=kind == "compiled")
        check_parameters(
            given.case, {"ours": ours.parameters, "peer": other.parameters}
        )
        if chosen is None:
            chosen = other.choose()
        other.use(*chosen)
        found = pairs.in_turn(ours.run, other.run, pairs=pairs_)
        figures[kind] = found | {"workers": chosen[0], "threads": chosen[1]}
        print(f"{given.case}, {kind}: {found['ratio']:.2f}", flush=True)
        del other
    return figures


def _rows(case: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a case as rows of a table."""
    kinds = [kind for kind in ("eager", "compiled") if kind in found]
    if not kinds:
        return [{"case": case, "ours": f"{found['ours'][-1]:.3g} {found['unit']}"}]
    rows = []
    for kind in kinds:
        own = found[kind]
        rows.append(
            {
                "case": case,
                "peer": kind,
                "ours": f"{np.median(own['ours']):.3g}",
                "theirs": f"{np.median(own['peer']):.3g}",
                **{
                    name: f"{own[key]:.2f}"
                    for name, key in (
                        ("ratio", "ratio"),
                        ("low", "ratio_low"),
                        ("high", "ratio_high"),
                    )
                },
            }
        )
    return rows


if __name__ == "__main__":
    main()
