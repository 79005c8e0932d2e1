"""Overhead of the loop: steps/s through the whole loop and with the bare jitted step.

    python -m memejax.bench.loop

Both sides run the demo's pretraining for `--steps` steps, by default as many as in the
demo, on the demo's data, already decoded. The loop's side includes everything that a
run does around the step: the plan, the pipeline, transfers, metrics, progress,
metrics.jsonl, TensorBoard, checkpoints. The bare side calls the compiled step on one
batch on the device, and waits at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pathlib
import tempfile
import time

from memejax.bench import pairs
from memejax.bench.command_line import Parser
from memejax.command_line import prepare
from memejax.config import load_config
from memejax.errors import command


@command
def main() -> None:
    """Run the benchmark."""
    parser = Parser("loop", __doc__, pairs=3)
    parser.number("--steps", 200, text="training steps in one run of a side")
    options = parser.parse_args()
    prepare()
    # Imported here to keep --help fast.
    import jax

    from memejax import datasets
    from memejax.loop import LoopOptions, loop
    from memejax.signals import Signals
    from memejax.stages import pretrain
    from memejax.stages.parts.training import devices

    config = load_config("configs/cass_mm.py:demo")
    config.pretrain.steps = options.steps
    config.pretrain.optimizer.warmup = 0
    with tempfile.TemporaryDirectory() as folder, Signals() as signals:
        path = pathlib.Path(folder)
        data = datasets.load(config, path)
        mesh = devices(config)
        stage = pretrain.make(config, data, seed=0, mesh=mesh)
        _, batch = next(iter(stage.feeder.chunks(0)))
        runs = iter(range(1000))
        saving = LoopOptions(
            config.checkpoint.every, config.checkpoint.keep, config.log.every
        )

        def through_the_loop() -> float:
            start = stage.init()
            fresh = dataclasses.replace(stage, init=lambda: start)
            began = time.perf_counter()
            # Progress lines are part of the loop's cost, but are not shown here.
            with contextlib.redirect_stdout(io.StringIO()):
                loop(fresh, saving, path / f"run{next(runs)}", signals)
            return options.steps / (time.perf_counter() - began)

        def bare() -> float:
            state = stage.init()
            began = time.perf_counter()
            for _ in range(options.steps):
                state, metrics = stage.run_chunk(state, batch)
            jax.block_until_ready((state, metrics))
            return options.steps / (time.perf_counter() - began)

        figures = pairs.in_turn(through_the_loop, bare, pairs=options.pairs)
    pairs.write(
        "loop",
        {
            "unit": "steps/s",
            "ours is": "the whole loop",
            "peer is": "the bare jitted step",
            "steps": options.steps,
            "batch": config.pretrain.batch,
            **figures,
        },
        options.out,
    )


if __name__ == "__main__":
    main()
