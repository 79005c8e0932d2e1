"""The command line: `python -m memejax.reproduce table1`.

    python -m memejax.reproduce table1|table2|table3|table8 ...
      [--preset=demo|full|paper] [--workdir=runs/tables-demo] [--seeds=5]
      [--shard=i/n] [--root=FOLDER] [--set=LEAF=VALUE ...] [--table-only]
      table3 also: [--features=STORE] [--run=RUN]
    python -m memejax.reproduce table4|table5|table6|table7|figure4 ...
      [--preset=demo|full|paper] [--workdir=runs/tables-demo] [--root=FOLDER]
      table4, table5: [--devices=4]; table6: [--with=OTHER.json];
      table7: [--set weights.detector=MASKRCNN]
    python -m memejax.reproduce heads --features=STORE [--workdir=runs/heads]
      [--preset=demo|full] [--seeds=20] [--arms HEAD ...] [--table-only]
    python -m memejax.reproduce curriculum --data=geoshapes|mnist|cifar10
      [--only-primary] [--arms NAME ...] [--seeds=10] [...]

Several tables in one call are made one after another.

Tables of scores: each row and seed is a run in `<workdir>/<row>/seed<i>`. Finished runs
are skipped, interrupted ones resume, and `<workdir>/<table>.md`, `.csv` and `.html` are
updated after every run. Tables in one workdir share their runs, so do
not run two calls there at the same time; table8 has the rows of all other tables, and
runs those of tables 1 and 2. table3 trains on stored features; its demo makes them.

Tables of performance are measured on the devices that there are, on a CPU on fake ones,
and again by every call; `<table>.json` has what is behind the text.

Heads on stored features and linear baselines are compared in one protocol; the scores
of every head are kept, and only missing ones are measured.

For curricula, each arm is one run of all seeds, and the files are study.md, .csv and
.html.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from memejax.errors import UserError, reported, user_errors


def main(argv: list[str] | None = None) -> None:
    """Reproduce the table or study that the arguments select."""
    options = _parser().parse_args(argv)
    # Imported here, so that --help and errors in options are immediate.
    from memejax import command_line

    command_line.prepare()
    with reported():
        alone = {"curriculum": _study, "heads": _heads}
        named = [name for name in options.table if name in alone]
        if not named:
            _tables(options)
        elif len(options.table) > 1:
            raise UserError(f"{named[0]} is made alone, not with tables")
        else:
            alone[named[0]](options)


def _tables(options: argparse.Namespace) -> None:
    """Check all tables, then make one after another."""
    from memejax.reproduce.performance import TABLES

    with user_errors():
        for option, given, takers in (
            ("--devices", options.devices, ("table4", "table5")),
            ("--with", options.other, ("table6",)),
        ):
            if given is not None and not set(takers) & set(options.table):
                raise UserError(f"{option} is for {' and '.join(takers)}")
        plans = [
            (_plan_performance if name in TABLES else _plan_scores)(options, name)
            for name in dict.fromkeys(options.table)
        ]
    for plan in plans:
        plan()


def _plan_scores(options: argparse.Namespace, name: str) -> Callable[[], None]:
    """Plan a table of scores; the result makes it."""
    from memejax.report import paper_table
    from memejax.reproduce import command

    arguments = dict(
        preset=options.preset,
        workdir=options.workdir,
        seeds=5 if options.seeds is None else options.seeds,
        shard=options.shard,
        root=options.root,
        features=options.features if name == "table3" else None,
        run=options.run if name == "table3" else None,
        leaves=dict(options.leaves),
        table_only=options.table_only,
    )
    command.prepare(name, **arguments)

    def make() -> None:
        with user_errors():
            # Again: a table before may have run some of its runs.
            plan = command.prepare(name, **arguments)
        made = command.perform(plan)
        files = [f"{plan.workdir / name}.{suffix}" for suffix in command.FORMATS]
        _show(paper_table.to_markdown(made), files)

    return make


def _plan_performance(options: argparse.Namespace, name: str) -> Callable[[], None]:
    """Plan a table of performance; the result measures it."""
    from memejax.reproduce.performance import command, parts

    _refuse(options, name, "seeds", "features", "run", "table_only")
    leaves = dict(options.leaves)
    detector = leaves.pop("weights.detector", None) if name == "table7" else None
    if leaves or options.shard != (0, 1):
        given = sorted(leaves) or ["--shard"]
        raise UserError(f"{name} measures fixed settings, and does not take {given}")
    plan = command.prepare(
        name,
        preset=options.preset,
        workdir=options.workdir,
        root=options.root,
        devices=options.devices if name in ("table4", "table5") else None,
        detector=detector,
        other=options.other if name == "table6" else None,
    )

    def make() -> None:
        with user_errors():
            made = command.perform(plan)
        suffixes = (*command.FORMATS, "json")
        files = [f"{plan.workdir / name}.{suffix}" for suffix in suffixes]
        _show(parts.to_markdown(made), files)

    return make


def _refuse(options: argparse.Namespace, name: str, *unused: str) -> None:
    """Raise UserError for options that no table of this call takes."""
    from memejax.reproduce.performance import TABLES

    mixed = len({table in TABLES for table in options.table}) > 1
    given = [option for option in unused if getattr(options, option)]
    if given and not mixed:
        shown = [f"--{option.replace('_', '-')}" for option in given]
        raise UserError(f"{name} does not take {', '.join(shown)}")


def _show(text: str, files: list[str]) -> None:
    """Print a table in Markdown, and the names of its files."""
    from memejax import logs

    encoding = sys.stdout.encoding or "ascii"
    if not encoding.lower().startswith("utf"):
        text = text.replace("±", "+-").encode(encoding, "replace").decode(encoding)
    logs.say(f"\n{text}")
    for file in files:
        logs.say(file)


def _heads(options: argparse.Namespace) -> None:
    """Compare heads on stored features."""
    from memejax import parallel
    from memejax.reproduce.heads import command
    from memejax.reproduce.performance import parts

    if options.shard != (0, 1) or options.leaves or options.root or options.run:
        raise UserError(
            "heads takes --features, --preset, --workdir, --seeds and --arms"
        )
    parallel.device_per_core()
    with user_errors():
        plan = command.prepare(
            features=options.features,
            preset=options.preset,
            workdir=options.workdir,
            seeds=20 if options.seeds is None else options.seeds,
            names=options.arms,
            table_only=options.table_only,
        )
        made = command.perform(plan)
    suffixes = (*command.FORMATS, "json")
    files = [f"{plan.workdir / command.NAME}.{suffix}" for suffix in suffixes]
    _show(parts.to_markdown(made), files)


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
            names=options.arms,
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
        description="Makes the tables and figures of the papers. Of tables of scores, "
        "finished runs are skipped and interrupted ones resume.",
    )
    parser.add_argument(
        "table",
        nargs="+",
        help="table1, table2, table3, table8 (scores), table4, table5, table6, table7, "
        "figure4 (performance), heads, or curriculum",
    )
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
        "--arms",
        nargs="+",
        default=[],
        metavar="NAME",
        help="for curriculum: these arms, or in addition to the primary family; * "
        "stands for any part of a name; for heads: these heads",
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
        help="number of seeds per row, from 0 (default: 5, curriculum 10, heads 20)",
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
        "--features", metavar="STORE", help="for table3 and heads: stored features"
    )
    parser.add_argument(
        "--run", help="for table3's demo: a finished run whose encoders give features"
    )
    parser.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="for table4 and table5: number of the several devices (default: 4, or all "
        "if there are fewer); on a CPU they are fake ones",
    )
    parser.add_argument(
        "--with",
        dest="other",
        metavar="OTHER.json",
        help="for table6: table6.json of another machine",
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
