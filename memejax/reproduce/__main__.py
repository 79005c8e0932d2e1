"""The command line: `python -m memejax.reproduce table1`.

    python -m memejax.reproduce table1|table2|table3|table8 [--preset=demo|full|paper]
      [--workdir=runs/tables-demo] [--seeds=5] [--shard=i/n] [--root=FOLDER]
      [--set=LEAF=VALUE ...] [--table-only]
      table3 also: [--features=STORE] [--run=RUN]
    python -m memejax.reproduce curriculum --data=geoshapes|mnist|cifar10
      [--only-primary] [--seeds=10] [...]

Each row and seed is a run in its own folder, `<workdir>/<row>/seed<i>`. Finished runs
are skipped, interrupted ones resume, and `<workdir>/<table>.md`, `.csv` and `.html` are
updated after every run. Tables in one workdir share their runs, so do not run two
tables there at the same time; table8 has the rows of all other tables, and runs those
of tables 1 and 2. table3 trains on stored features; its demo makes them. For curricula,
each arm is one run of all seeds, and the files are study.md, .csv and .html.
"""

from __future__ import annotations

import argparse
import sys

from memejax.errors import UserError, reported, user_errors


def main(argv: list[str] | None = None) -> None:
    """Reproduce the table or study that the arguments select."""
    options = _parser().parse_args(argv)
    # Imported here, so that --help and errors in options are immediate.
    from memejax import command_line

    command_line.prepare()
    with reported():
        if options.table == "curriculum":
            _study(options)
        else:
            _table(options)


def _table(options: argparse.Namespace) -> None:
    """Reproduce a table."""
    from memejax import logs
    from memejax.report import paper_table
    from memejax.reproduce import command

    with user_errors():
        plan = command.prepare(
            options.table,
            preset=options.preset,
            workdir=options.workdir,
            seeds=5 if options.seeds is None else options.seeds,
            shard=options.shard,
            root=options.root,
            features=options.features,
            run=options.run,
            leaves=dict(options.leaves),
            table_only=options.table_only,
        )
    table = command.perform(plan)
    text = paper_table.to_markdown(table)
    encoding = sys.stdout.encoding or "ascii"
    if not encoding.lower().startswith("utf"):
        text = text.replace("±", "+-").encode(encoding, "replace").decode(encoding)
    logs.say(f"\n{text}")
    for suffix in command.FORMATS:
        logs.say(f"{plan.workdir / plan.table}.{suffix}")


def _study(options: argparse.Namespace) -> None:
    """Run a study of curricula."""
    from memejax import logs, parallel
    from memejax.report.study import study_markdown
    from memejax.reproduce.study import command

    if options.shard != (0, 1):
        raise UserError("--shard is for tables; the seeds of a study are one program")
    parallel.device_per_core()
    with user_errors():
        plan = command.prepare(
            options.data,
            preset=options.preset,
            workdir=options.workdir,
            seeds=10 if options.seeds is None else options.seeds,
            root=options.root,
            only_primary=options.only_primary,
            leaves=dict(options.leaves),
            table_only=options.table_only,
        )
    made = command.perform(plan)
    logs.say(f"\n{study_markdown(made)}")
    for suffix in ("md", "csv", "html"):
        logs.say(f"{plan.workdir}/study.{suffix}")


def _parser() -> argparse.ArgumentParser:
    # Names of tables and presets are checked where they are defined.
    parser = argparse.ArgumentParser(
        prog="python -m memejax.reproduce",
        description="Runs the missing runs of a paper's table, and writes the table. "
        "Interrupted runs resume; finished ones are skipped.",
    )
    parser.add_argument("table", help="table1, table2, table3, table8 or curriculum")
    parser.add_argument(
        "--data",
        default="geoshapes",
        metavar="NAME",
        help="for curriculum: geoshapes, mnist or cifar10 (default: %(default)s)",
    )
    parser.add_argument(
        "--only-primary",
        action="store_true",
        help="for curriculum: only the primary family of arms and its controls",
    )
    parser.add_argument(
        "--preset",
        default="demo",
        metavar="NAME",
        help="demo, full or paper (default: %(default)s)",
    )
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        help="folder of the runs and the table (default: runs/tables-<preset>, for "
        "curriculum runs/curriculum-<data>-<preset>)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="number of seeds per row, from 0 (default: 5, for curriculum 10)",
    )
    parser.add_argument(
        "--shard",
        type=_shard,
        default=(0, 1),
        metavar="I/N",
        help="run only the runs j with j %% N == I, I from 0 to N - 1",
    )
    parser.add_argument(
        "--root", metavar="FOLDER", help="folder of the data; full and paper need it"
    )
    parser.add_argument(
        "--features", metavar="STORE", help="for table3: stored features of the memes"
    )
    parser.add_argument(
        "--run", help="for table3's demo: a finished run whose encoders give features"
    )
    parser.add_argument(
        "--set",
        dest="leaves",
        type=_leaf,
        action="extend",
        nargs="+",
        default=[],
        metavar="LEAF=VALUE",
        help="override a leaf in every config that has it: data.tokenizer=FOLDER",
    )
    parser.add_argument(
        "--table-only", action="store_true", help="write the table, run nothing"
    )
    return parser


def _shard(text: str) -> tuple[int, int]:
    index, slash, many = text.partition("/")
    if not (slash and index.isdecimal() and many.isdecimal()):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected I/N as in 0/8")
    return int(index), int(many)


def _leaf(text: str) -> tuple[str, str]:
    leaf, equals, value = text.partition("=")
    if not equals or not leaf:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected LEAF=VALUE as in pretrain.batch=64"
        )
    return leaf.removeprefix("config."), value


if __name__ == "__main__":
    main()
