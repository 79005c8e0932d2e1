"""The list of commands, and `memejax COMMAND` for `python -m memejax.COMMAND`.

python -m memejax                     the commands, with a line each
memejax COMMAND [ARGUMENTS]           the same as python -m memejax.COMMAND
memejax train --config=FILE.py        another name of `main`
"""

from __future__ import annotations

import difflib
import runpy
import sys

# Written here, as importing a command to read its docstring takes seconds.
COMMANDS = {
    "main": "train and evaluate what a config describes",
    "predict": "print the probability that a meme is hateful",
    "decide": "find the threshold of a run that keeps a rule",
    "known": "keep a list of known memes, and find them again",
    "evaluate": "probe the features of a finished run's checkpoints",
    "extract": "store features of memes for graph networks",
    "export": "write a finished run as a program and checkpoints",
    "report": "write the page of a finished run again",
    "reproduce": "repeat the tables and the studies of the two papers",
    "profile": "measure time and FLOPs of a training step",
    "data.hateful_memes": "check a folder of memes, and list its bad records",
    "data.synthetic_memes": "write the built-in memes to a folder",
    "weights.inspect": "describe a checkpoint: format, architecture, parameters",
    "bench.checkpoint": "time checkpoints with and without digests",
    "bench.curriculum": "time curricula: seeds together and one by one",
    "bench.detector": "time Mask R-CNN beside torchvision's",
    "bench.encoders": "time CLIP's towers beside transformers",
    "bench.explain": "study explanations where the truth is known",
    "bench.faults": "inject faults and see what becomes of them",
    "bench.gpu": "measure all that needs a GPU, within eight minutes",
    "bench.graphs": "time graph networks beside PyTorch Geometric",
    "bench.heads": "time heads on features: seeds together, and mining",
    "bench.inference": "time encoding and scoring of memes beside PyTorch",
    "bench.input_pipeline": "time the input pipeline beside PyTorch's DataLoader",
    "bench.input_study": "study input by threads, workers and caches",
    "bench.known": "measure matching of known memes: recall, speed",
    "bench.loop": "time the whole loop beside its bare training step",
    "bench.ocr": "compare captions read off pictures with given ones",
    "bench.promise": "count how often the promises of decide are kept",
    "bench.scaling": "measure training over several devices",
    "bench.scaling_paper": "predict scaling at the size of the paper",
    "bench.start": "time the start of a program up to its first update",
    "bench.train_step": "time training steps beside PyTorch",
    "bench.weights": "time the loading of checkpoints",
}
ALIASES = {"train": "main"}


def usage() -> str:
    """Return the list of commands with a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {line}" for name, line in COMMANDS.items()]
    return "\n".join(
        [
            "usage: memejax COMMAND [ARGUMENTS]",
            "       python -m memejax.COMMAND [ARGUMENTS]",
            "",
            *lines,
            "",
            "memejax COMMAND --help lists the arguments of a command; train is main.",
        ]
    )


def run(arguments: list[str] | None = None) -> None:
    """Run the command that the arguments name as `python -m` would.

    Args:
        arguments: command and its arguments; None takes those of this process.

    Raises:
        SystemExit: for an unknown command, and as the command does.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return
    name = ALIASES.get(given[0], given[0]).removeprefix("memejax.")
    if name not in COMMANDS:
        print(f"error: {_unknown(given[0])}", file=sys.stderr)
        raise SystemExit(2)
    # runpy replaces the first by the module's file, as python -m has it.
    sys.argv = [name, *given[1:]]
    runpy.run_module(f"memejax.{name}", run_name="__main__", alter_sys=True)


def _unknown(name: str) -> str:
    """Name the commands that an unknown one may stand for."""
    names = [*COMMANDS, *ALIASES]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    # A last part, as `inspect` of `weights.inspect`.
    near += [one for one in names if one.rpartition(".")[2] == name and one not in near]
    hint = f"; the nearest: {', '.join(near)}" if near else ""
    return f"unknown command {name!r}{hint}; python -m memejax lists all"


if __name__ == "__main__":
    run()
