"""`parse_flags.py -m MODULE ...`: parses a command's flags as it does, and ends there.

In place of `python` for commands that need a cluster, a hub, a GPU or days.
"""

import argparse
import runpy
import sys

from absl import app, flags


def main() -> None:
    """Runs the module up to where its flags are parsed."""
    if len(sys.argv) < 3 or sys.argv[1] != "-m":
        sys.exit(f"expected -m MODULE, got {sys.argv[1:]}")
    module, sys.argv = sys.argv[2], sys.argv[2:]
    parse = argparse.ArgumentParser.parse_args

    def parse_args(self, *args, **more):
        parse(self, *args, **more)
        _end(module)

    def run(main, argv=None, **_):
        # An unknown flag, or a leaf that the config lacks, raises.
        rest = flags.FLAGS(argv or sys.argv)
        if rest[1:]:
            sys.exit(f"unexpected arguments: {rest[1:]}")
        _end(module)

    argparse.ArgumentParser.parse_args = parse_args
    app.run = run
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit(f"{module} ended without parsing its flags")


def _end(module: str) -> None:
    print(f"{module}: flags parsed")
    sys.exit(0)


if __name__ == "__main__":
    main()
