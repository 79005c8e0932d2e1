"""Explanations of built-in memes, beside where pattern and keyword truly are.

    python -m memejax.data.synthetic_memes --decoy --concepts=2 FOLDER
    python -m memejax.main --config=configs/cass_mm.py --config.data.root=FOLDER
    python -m memejax.bench.explain --workdir RUN

One meme of each quad, so that no two have a picture or a caption in common. A map finds
the pattern if its largest value, towards the call, lies in the box of the patch that
shows it; the decoy's box, the place of the largest contrast and any constant place are
what it competes with. Words find the keyword if it has the largest value. Deletion
covers cells, or leaves out words, the most important first: the area under P(call) is
compared with that of random orders of the same meme.

A run on graphs has entities in the place of a map: one finds the pattern if it has the
largest value and the pattern's centre lies in it.

With shuffled weights and with the captions of other memes nothing should be found.
"""

from __future__ import annotations

import dataclasses

from memejax.bench import pairs, tables
from memejax.bench.command_line import Parser
from memejax.command_line import prepare
from memejax.errors import command

# Options that are settings of an explainer.
SETTINGS = ("window", "steps", "pixel_steps")


@command
def main() -> None:
    """Run the study."""
    parser = Parser("explain", __doc__)
    parser.add_argument(
        "--workdir", required=True, metavar="RUN", help="a run on memes with a decoy"
    )
    parser.add_argument("--split", default="test_unseen", help="the memes' split")
    parser.number("--memes", 500, text="at most so many memes, one of each quad")
    parser.add_argument(
        "--window",
        type=float,
        metavar="SHARE",
        help="side of a square, in sides of the picture; else that of predict",
    )
    parser.number("--steps", None, text="points of gradients by words, likewise")
    parser.number("--pixel-steps", None, text="and by pixels")
    options = parser.parse_args()
    prepare()
    # Imported here to keep --help fast.
    from memejax.bench.explain import graphs, pixels
    from memejax.data import synthetic_truth
    from memejax.predict.explain.scoring import DEFAULTS
    from memejax.report.finished import Finished
    from memejax.restored import restore

    given = {name: getattr(options, name) for name in SETTINGS}
    settings = dataclasses.replace(
        DEFAULTS, **{name: value for name, value in given.items() if value is not None}
    )
    run = Finished(options.workdir)
    root = run.leaves["data.root"] or run.folder / "memes"
    truth = synthetic_truth.read(root, options.split)
    memes = pixels.distinct(run.memes(options.split).values(), truth, options.memes)
    restored = restore(options.workdir, graphs=True)
    if "graph" in restored.config:
        figures = graphs.study(restored, memes)
    else:
        figures = pixels.study(restored, memes, settings=settings)
        figures |= dataclasses.asdict(settings)
    figures = {"split": options.split, **figures}
    for rows in (figures["found"], figures["deletion"]):
        if rows:
            print(tables.text(rows))
    pairs.write("explain", figures, options.out)


if __name__ == "__main__":
    main()
