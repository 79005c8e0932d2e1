"""The command line: `python -m memejax.profile --config=configs/cass_mm.py`.

    python -m memejax.profile --config=FILE.py[:TEXT] [--config.LEAF=VALUE ...]
      [--stage=pretrain|finetune|graph|classify] [--steps=5] [--out=DIR]

Builds the stage as in a run, compiles its step, and traces the first call and a window
of warm ones. DIR (default `runs/profile-<config>-<preset>[-<stage>]`, with the stage
if --stage is given) gets the traces for TensorBoard, and profile.md, profile.csv and
profile.json, which need no plugin: time, FLOPs and bytes of every operation and module.
"""

from __future__ import annotations

from absl import flags

from memejax import command_line

_CONFIG = command_line.define_config()
_STAGE = flags.DEFINE_string(
    "stage", None, "pretrain, finetune, graph or classify; default: the config's first"
)
_STEPS = flags.DEFINE_integer("steps", 5, "warm steps in the traced window")
_OUT = flags.DEFINE_string(
    "out", None, "folder; default runs/profile-<config>-<preset>[-<stage>]"
)


def main() -> None:
    """Profile the stage that the flags select."""
    # Imported here, so that --help and errors in flags are immediate.
    from memejax import stages
    from memejax.profile import command

    config = _CONFIG.value
    stages.prepare(config)
    parts = ["profile", config.name, config.preset, _STAGE.value]
    out = _OUT.value or f"runs/{'-'.join(part for part in parts if part)}"
    command.run(config, out, stage=_STAGE.value, steps=_STEPS.value)


def run() -> None:
    """Run the command line."""
    command_line.run(main, required=["config"])


if __name__ == "__main__":
    run()
