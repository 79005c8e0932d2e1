"""The command line: `python -m memejax.main --config=configs/cass_mm.py`."""

from __future__ import annotations

from absl import flags

from memejax import command_line, process_flags

_CONFIG = command_line.define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "the run's folder; default runs/<config>-<preset>"
)


def main() -> None:
    """Run the experiment given by the flags."""
    with process_flags.joined():
        # Imported here to keep --help and a misspelt flag fast.
        from memejax import stages, train

        config = _CONFIG.value
        stages.prepare(config)
        train.run(config, _WORKDIR.value or f"runs/{config.name}-{config.preset}")


def run() -> None:
    """Parse the flags and run `main`."""
    command_line.run(main, required=["config"])


if __name__ == "__main__":
    run()
