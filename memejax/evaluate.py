"""Probe the checkpoints of a finished run.

    python -m memejax.evaluate --workdir=RUN [--split=NAME] [--k=20] [--examples=10000]

probes the last checkpoint of every stage of a run, compares it with the same network
untrained and with the raw pixels, and adds the result to the run's results.json and
report.html. A run with the stage `probe` does this for its pretraining by itself.
"""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

from memejax import command_line
from memejax.errors import UserError, reported, user_errors


def main() -> None:
    """Parse the command line and probe the run."""
    parser = argparse.ArgumentParser(
        prog="python -m memejax.evaluate",
        description="Probe the checkpoints of a run's stages by nearest neighbours and "
        "a linear probe, and add the result to results.json and report.html.",
    )
    parser.add_argument(
        "--workdir", required=True, metavar="RUN", help="the run's folder"
    )
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="split to classify (default: the last one with labels)",
    )
    parser.add_argument("--k", type=int, metavar="N", help="neighbours (default: 20)")
    parser.add_argument(
        "--examples",
        type=int,
        metavar="N",
        help="maximum per split (default: 10000)",
    )
    options = vars(parser.parse_args())
    path = pathlib.Path(options.pop("workdir"))
    command_line.prepare()
    with reported():
        results = run(path, **{k: v for k, v in options.items() if v is not None})
    from memejax import logs, report

    report.console(results)
    logs.say(f"added to {path / 'results.json'} and {path / 'report.html'}")


def run(path: pathlib.Path, **options: Any) -> dict[str, Any]:
    """Probe every stage of every seed of a run, and return the updated results.

    Args:
        path: the run's folder.
        options: split, k or examples of `probe.compare`, which override the section
            `probe` of the run's config, if it has one.

    Raises:
        ValueError: if the folder holds no finished run.
    """
    # Imported here, so that --help and a misspelt flag answer at once.
    from ml_collections import ConfigDict

    from memejax import folder, parallel, report
    from memejax.checkpoint import Checkpoints
    from memejax.stages import STAGES, probe

    parallel.keep_compiled()
    saved = folder.read_config(path)
    results = folder.read_json(path / "results.json")
    if saved is None or results is None:
        raise UserError(f"{path} holds no finished run (config.json, results.json)")
    config = ConfigDict(saved)
    if "probe" in config:
        options = {**config.probe, **options}
    first = STAGES[config.stages[0]]
    with user_errors():
        mesh, data = first.devices(config), first.load(config, path)
    for seed in results["seeds"]:
        for name, kind in STAGES.items():
            checkpoints = path / seed / name / "checkpoints"
            if kind.make is None or not checkpoints.exists():
                continue
            stage = kind.make(config, data, seed=int(seed), mesh=mesh)
            if stage.embed is None:
                continue
            with Checkpoints(checkpoints, keep=config.checkpoint.keep) as saves:
                trained = saves.restore(stage.abstract, step=saves.latest)
            target = path / seed / probe.folder_of(name)
            outcome = probe.compare(
                config,
                data,
                stage,
                trained=trained.state.weights(),
                untrained=stage.init().weights(),
                path=target,
                **options,
            )
            folder.write_json(target / "outcome.json", outcome)
            results["seeds"][seed][target.name] = outcome
    folder.write_json(path / "results.json", results)
    report.write(path)
    return results


if __name__ == "__main__":
    main()
