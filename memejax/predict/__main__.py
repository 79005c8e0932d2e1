"""The command line of `python -m memejax.predict`."""

from __future__ import annotations

from collections.abc import Sequence

from memejax import command_line
from memejax.errors import reported, user_errors
from memejax.predict.arguments import make_parser


def main(argv: Sequence[str] | None = None) -> None:
    """Predict the memes given by the arguments."""
    parser = make_parser()
    options = parser.parse_args(argv)
    for flag, other in (
        ("text", "image"),
        ("captions", "input"),
        ("strict", "input"),
        ("excel", "output"),
        ("certify", "rule"),
        ("same_words", "known"),
        ("known_decides", "known"),
        ("ray", "input"),
    ):
        if getattr(options, flag) and getattr(options, other) is None:
            flag = flag.replace("_", "-")
            parser.error(f"--{flag} goes with --{other}")
    if options.explain is not None and options.seed == "all":
        parser.error("--explain takes one seed, not all")
    if (options.input is None) != (options.output is None):
        parser.error("--input and --output go together")
    command_line.prepare()
    # Files, folders and names are the user's.
    with reported(), user_errors():
        # Imported here, so that --help and a misspelt flag answer at once.
        from memejax.predict.command import predict

        predict(options)


if __name__ == "__main__":
    main()
