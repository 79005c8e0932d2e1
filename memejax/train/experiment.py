"""One experiment: from a config and a folder to results and a report."""

from __future__ import annotations

import os
import pathlib
import time
from typing import Any

from ml_collections import ConfigDict

from memejax import build, classify, dataset, folder, logs, parallel, report
from memejax.loop import Signals
from memejax.train.about import about_data, about_run
from memejax.train.context import Context
from memejax.train.results import gather, read, show, summary
from memejax.train.stages import check, run_seed
from memejax.train.starts import Starts


def run(config: ConfigDict, workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Runs every stage for every seed, and returns what results.json holds.

    Raises:
      folder.OtherRunError: if the folder holds a run of another config.
      hateful_memes.BadRecordsError: naming every bad record of the data.
      loop.NonFiniteLossError: if a loss is not finite.
      loop.Interrupted: after SIGTERM or SIGINT, when the state is saved.
      parallel.ProcessError: if there are several processes, and the stages are for one.
      ValueError: if the stages are unknown, out of order or do not go together.
    """
    began = time.perf_counter()
    # Before the folder is the run's: it could not be that of the corrected config.
    check(config.stages)
    logs.say(about_run(config))
    config = build.adopt(config, logs.say)
    path = folder.claim(workdir, config.to_dict(), build.RUNTIME)
    done = read(path / "results.json")
    if done is not None:
        logs.say(f"This run is finished; its results, from {path}:")
        show(done)
        return done
    parallel.keep_compiled(path / "compiled")
    with Starts(path, began=began) as starts:
        if "classify" in config.stages:
            return _classify(config, path, starts)
        return _each_seed(config, path, starts)


def _each_seed(
    config: ConfigDict, path: pathlib.Path, starts: Starts
) -> dict[str, Any]:
    """The stages of one seed after the other, and what results.json holds."""
    if "graph" in config.stages:
        # Too small for more than one device.
        mesh, data = parallel.mesh(1), build.graph_data(config)
    else:
        mesh, data = build.mesh(config), _load(config, path)
    logs.say(about_data(data))
    by_seed = {}
    with Signals() as signals:
        for seed in range(config.seed, config.seed + config.seeds):
            context = Context(config, data, mesh, seed, path / str(seed), signals)
            by_seed[str(seed)] = run_seed(context)
            starts.save()
    found = {"dev": data.dev, "seeds": by_seed, "summary": summary(by_seed)}
    results = gather(config, data.facts, found=found, taken=starts.taken())
    if parallel.is_first():
        folder.write_json(path / "results.json", results)
        report.write(path)
    show(results)
    # No process ends before everything is written.
    parallel.sync("written")
    logs.say(
        f"{logs.clock(results['seconds'])} in all, peak memory "
        f"{results['peak_memory_gb']:.2f} GB; results and report in {path}"
    )
    return results


def _classify(config: ConfigDict, path: pathlib.Path, starts: Starts) -> dict[str, Any]:
    """All seeds of a classifier of small pictures, and what results.json holds."""
    data = classify.load(config)
    logs.say(", ".join(f"{name} {value}" for name, value in data.facts.items()))
    with Signals() as signals:
        outcome = classify.run(config, data, path, signals=signals)
    results = gather(config, data.facts, found=outcome, taken=starts.taken())
    folder.write_json(path / "results.json", results)
    classify.write_page(config, path)
    show(results)
    logs.say(f"{logs.clock(results['seconds'])} in all; results and report in {path}")
    return results


def _load(config: ConfigDict, path: pathlib.Path) -> dataset.Data:
    """The data; of several processes the first writes what is to be written."""
    with parallel.first_before_others("data"):
        if not parallel.is_first():
            config = dataset.as_written(config, path)
        return dataset.load(config, path)
