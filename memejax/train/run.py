"""One experiment: from a config and a folder to results and a report."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import folder, lock, logs, parallel, profile, report, stages
from memejax.errors import UserError, user_errors
from memejax.loop import LoopOptions
from memejax.signals import Signals
from memejax.stage import Stage
from memejax.stages import STAGES, Context
from memejax.stages.parts.choices import RUNTIME
from memejax.stages.parts.pretrained import adopt, check_start
from memejax.train import announcement
from memejax.train.results import gather
from memejax.train.starts import Starts


def run(config: ConfigDict, workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Run every stage for every seed, and return the contents of results.json.

    Raises:
        folder.OtherRunError: if the folder holds a run of another config.
        lock.LockedError: if another start writes to the folder.
        hateful_memes.BadRecordsError: naming every bad record of the data.
        loop.NonFiniteLossError: if a loss is not finite.
        signals.Interrupted: after SIGTERM or SIGINT, when the state is saved.
        parallel.ProcessError: if there are several processes, and the stages are for
            one.
        UserError: if the config, the data, the devices or what they are together cannot
            run; nothing is left in a new folder.
    """
    began = time.perf_counter()
    # Before the folder is the run's: it could not be that of the corrected config.
    stages.check_config(config)
    logs.say(announcement.experiment(config))
    with user_errors():
        check_start(config)
        config = adopt(config, logs.say)
    with _locked(workdir):
        path = pathlib.Path(workdir).absolute()
        finished = parallel.from_first((path / "results.json").exists())
        parallel.keep_compiled()
        with folder.claim(
            workdir,
            config.to_dict(),
            runtime=RUNTIME,
            unread=functools.partial(stages.unread, config.stages),
        ):
            inputs = None if finished else _inputs(config, path)
        if inputs is None:
            return _again(path)
        with Starts(path, began=began) as starts:
            return _run(config, path, starts, *inputs)


def _inputs(
    config: ConfigDict, path: pathlib.Path
) -> tuple[Any, Mesh, dict[str, Stage]]:
    """Load the data, choose the devices, and check all stages on them.

    Raises:
        UserError: if the data cannot be read, or a stage cannot run on them.
    """
    try:
        return _checked_inputs(config, path)
    except UserError as error:
        changes = announcement.changes(config)
        # A kind of error that says all by itself, or one of the config.
        if not changes or type(error) is not UserError:
            raise
        raise UserError(f"{error}{changes}") from error


def _checked_inputs(
    config: ConfigDict, path: pathlib.Path
) -> tuple[Any, Mesh, dict[str, Stage]]:
    first = STAGES[config.stages[0]]
    with user_errors():
        mesh = first.devices(config)
        took = announcement.duration(config)
        logs.say(announcement.machine(mesh) + (took and f"; {took}"))
        data = first.load(config, path)
        if "certify" in config.data:
            data = data.hold_back(config.data.certify, seed=config.seed)
    logs.say(data.describe())
    with user_errors():
        logs.say(announcement.plan(config, data))
    # Several processes compile together, at the step itself.
    ahead = parallel.count() == 1 and not _first_ended(config, path)
    return data, mesh, stages.check_runs(config, data, mesh=mesh, ahead=ahead)


def _first_ended(config: ConfigDict, path: pathlib.Path) -> bool:
    """Whether the first stage of the first seed has ended in an earlier start."""
    return (path / str(config.seed) / config.stages[0] / "outcome.json").exists()


def _again(path: pathlib.Path) -> dict[str, Any]:
    """Print and return the results of a finished run; write a missing page."""
    done = parallel.from_first(folder.read_json(path / "results.json"))
    if parallel.is_first() and not (path / "report.html").exists():
        # It was killed between the two.
        report.write(path)
    logs.say(f"This run is finished; its results, from {path}:")
    _show(done)
    return done


@contextlib.contextmanager
def _locked(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the run's folder; of several processes the first holds it for all."""
    with contextlib.ExitStack() as held:
        problem = None
        if parallel.is_first():
            try:
                with user_errors():
                    held.enter_context(lock.lock(workdir, warn=logs.say))
            except UserError as error:
                problem = str(error)
        problem = parallel.from_first(problem)
        if problem is not None:
            raise lock.LockedError(problem)
        try:
            yield
        except BaseException:
            if parallel.is_first():
                lock.remove_unused(workdir)
            raise


def _run(
    config: ConfigDict,
    path: pathlib.Path,
    starts: Starts,
    data: Any,
    mesh: Mesh,
    made: dict[str, Stage],
) -> dict[str, Any]:
    """Run the stages of every seed and write the results."""
    first = STAGES[config.stages[0]]
    seeds = range(config.seed, config.seed + config.seeds)
    folders = {str(seed): path / str(seed) for seed in seeds}
    if first.together:
        folders = {str(config.seed): path}
    by_seed = {}
    with Signals() as signals:
        for seed, own in folders.items():
            context = Context(
                config=config,
                data=data,
                mesh=mesh,
                seed=int(seed),
                folder=own,
                signals=signals,
                options=_options(config),
                made=made,
            )
            by_seed[seed] = run_seed(context)
            starts.save()
    results = gather(
        config, data, by_seed=by_seed, together=first.together, taken=starts.taken()
    )
    if parallel.is_first():
        folder.write_json(path / "results.json", results)
        with logs.say_if_slow("writing the report"):
            report.write(path)
    _show(results)
    # No process ends before everything is written.
    parallel.sync("written")
    logs.say(
        f"{logs.clock(results['seconds'])} in all, peak memory "
        f"{results['peak_memory_gb']:.2f} GB; results and report in {path}"
    )
    return results


def run_seed(context: Context) -> dict[str, Any]:
    """Run the stages of one seed, in order, and return their outcomes."""
    outcomes, ended = {}, None
    for name in context.config.stages:
        ended = STAGES[name].run(context, ended)
        outcomes |= ended.outcomes
    return outcomes


def _options(config: ConfigDict) -> LoopOptions:
    """Return the loop's options of the runtime sections of a config."""
    traced = config.profile.start and parallel.is_first()
    return LoopOptions(
        save_every=config.checkpoint.every,
        keep=config.checkpoint.keep,
        log_every=config.log.every,
        recorder=functools.partial(_recorder, config) if traced else None,
    )


def _recorder(config: ConfigDict, run_chunk: Any, path: pathlib.Path) -> Any:
    """Make the recorder of a window; its trace goes beside the TensorBoard events."""
    return profile.Recorder(
        run_chunk,
        path,
        start=config.profile.start,
        steps=config.profile.steps,
        dtype=config.model.dtype,
        title=f"{config.name}, preset {config.preset}, {path.name}",
    )


def _show(results: dict[str, Any]) -> None:
    """Print results on the console of the first process."""
    if parallel.is_first():
        report.console(results)
