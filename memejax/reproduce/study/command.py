"""Running the arms of a study one after another, and writing its tables and page."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from memejax import atomic, logs, parallel, train
from memejax.config import load_config
from memejax.report import study as pages
from memejax.reproduce import runs
from memejax.reproduce.study.arms import REFERENCE, SETUPS, ArmSpec, arms
from memejax.reproduce.study.collect import collect
from memejax.stages.parts.curricula import needs_baseline

CONFIG = "configs/curriculum.py"
# Leaves that define an arm, or that have an argument of their own.
RESERVED = ("name", "preset", "seed", "seeds", "data.name", "data.root", "baseline")


@dataclasses.dataclass(frozen=True)
class Plan:
    """The checked runs of a study.

    Attributes:
        data: one of `arms.SETUPS`.
        workdir: folder of the arms' folders and of the study's files.
        base: config of the reference.
        specs: every arm, the reference first.
        todo: the arms to run, with their folders and configs.
        summary: readable description.
    """

    data: str
    workdir: pathlib.Path
    base: ConfigDict
    specs: Sequence[ArmSpec]
    todo: Sequence[tuple[ArmSpec, pathlib.Path, ConfigDict]]
    summary: str


def study(data: str, **options: Any) -> pages.Study:
    """Run the missing arms of a study, and write it as Markdown, CSV and HTML.

    Equivalent to `perform(prepare(data, **options))`, with the same errors.
    """
    return perform(prepare(data, **options))


def prepare(
    data: str,
    *,
    preset: str = "demo",
    workdir: str | os.PathLike[str] | None = None,
    seeds: int = 10,
    root: str | None = None,
    only_primary: bool = False,
    names: Sequence[str] = (),
    leaves: Mapping[str, str] | None = None,
    table_only: bool = False,
) -> Plan:
    """Plan the arms of a study, and check that they can be run.

    Args:
        data: one of `arms.SETUPS`.
        preset: preset of configs/curriculum.py.
        workdir: default `runs/curriculum-<data>-<preset>`.
        seeds: number of seeds per arm, from 0.
        root: folder of the data's files, if it has any.
        only_primary: whether to run only the primary family and its controls.
        names: patterns of arms' names; see `arms.arms`.
        leaves: dotted leaf -> value as written on a command line, for every arm.
        table_only: whether to run nothing.

    Raises:
        ValueError: if an argument is not as above, or if table_only is set and the
            reference is not finished.
        folder.OtherRunError: if an arm's folder holds a run of another config.
    """
    base = base_config(data, preset=preset, seeds=seeds, root=root, leaves=leaves or {})
    path = pathlib.Path(workdir or f"runs/curriculum-{data}-{preset}")
    specs = arms(
        data,
        steps=base.train.steps,
        preset=preset,
        only_primary=only_primary,
        names=names,
    )
    made = [(spec, path / spec.name, arm_config(base, spec, path)) for spec in specs]
    for _, arm_path, config in made:
        runs.check_folder(arm_path, config)
    todo = [m for m in made if not (m[1] / "results.json").exists()]
    if table_only and not (path / REFERENCE / "results.json").exists():
        raise ValueError(f"{path}: the arm {REFERENCE} is not finished: no table yet")
    summary = (
        f"curricula on {data}, preset {preset}: {len(made)} arms of {seeds} seeds, "
        f"{len(made) - len(todo)} finished"
    )
    return Plan(data, path, base, specs, [] if table_only else todo, summary)


def perform(plan: Plan) -> pages.Study:
    """Run the unfinished arms one after another, and write the study's files.

    An arm is one run of all seeds, in its own folder; call this again to resume an
    interrupted one. The tables are written after every arm, the page at the end.

    Raises:
        loop.Interrupted: after SIGTERM or SIGINT, when the state is saved.
    """
    logs.say(plan.summary)
    # The arms of a network share most of their programs.
    parallel.keep_compiled()
    for spec, path, config in plan.todo:
        logs.say(f"\n{spec.name}: {spec.title}")
        try:
            train.run(config, path)
        except Exception as error:
            error.add_note(f"this was the arm in {path}")
            raise
        # The next arm compiles its own functions: these are of no more use.
        jax.clear_caches()
        write(plan, page=False)
    return write(plan, page=True)


def write(plan: Plan, *, page: bool) -> pages.Study:
    """Write study.md and study.csv from the finished arms, and study.html if `page`."""
    found = collect(
        plan.specs, plan.workdir, data=plan.data, config=plan.base, pictures=page
    )
    texts = {"md": pages.study_markdown(found), "csv": pages.study_csv(found)}
    if page:
        texts["html"] = pages.study_html(found)
    for suffix, text in texts.items():
        atomic.write_text(plan.workdir / f"study.{suffix}", text)
    return found


def base_config(
    data: str,
    *,
    preset: str = "demo",
    seeds: int = 10,
    root: str | None = None,
    leaves: Mapping[str, str],
) -> ConfigDict:
    """Config of the reference; arguments and errors as in `prepare`."""
    if data not in SETUPS:
        raise ValueError(f"unknown data {data!r}: choose one of {sorted(SETUPS)}")
    if SETUPS[data].files != (root is not None):
        needs = "needs --root=FOLDER" if SETUPS[data].files else "takes no --root"
        raise ValueError(f"{data} {needs}, the folder of its files")
    reserved = set(RESERVED) & leaves.keys()
    if reserved:
        raise ValueError(f"the study itself sets {sorted(reserved)}")
    leaves, setup = dict(leaves), SETUPS[data]
    network = leaves.pop("model.network", setup.network)
    config = load_config(f"{CONFIG}:{preset},network={network}")
    # Model sizes only apply to the data set's own network.
    own = setup.overrides if preset == "demo" else setup.full
    values = {"data.name": data, "seeds": seeds} | {
        leaf: value
        for leaf, value in own.items()
        if network == setup.network or not leaf.startswith("model.")
    }
    if root is not None:
        values["data.root"] = root
    for leaf, value in values.items():
        runs.set_leaf(config, leaf, value)
    for leaf, text in leaves.items():
        if leaf not in runs.leaves_of(config):
            raise ValueError(f"{CONFIG} has no leaf {leaf}")
        runs.set_text(config, leaf, text)
    return config


def arm_config(base: ConfigDict, spec: ArmSpec, workdir: pathlib.Path) -> ConfigDict:
    """Config of an arm, from that of the reference."""
    config = base.copy_and_resolve_references()
    for leaf, value in spec.overrides.items():
        runs.set_leaf(config, leaf, value)
    if needs_baseline(config.curriculum):
        config.baseline = str(workdir / REFERENCE)
    return config
