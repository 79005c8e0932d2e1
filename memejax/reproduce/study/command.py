"""Runs the arms of a study one after another, and writes its tables and its page."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

import jax
from ml_collections import ConfigDict

from memejax import logs, parallel, train
from memejax.config import load_config
from memejax.report import study as pages
from memejax.reproduce import runs
from memejax.reproduce.study.arms import REFERENCE, SETUPS, ArmSpec, arms
from memejax.reproduce.study.collect import collect

CONFIG = "configs/curriculum.py"
# Leaves that make an arm what it is, or that have an argument of their own.
OWN = ("name", "preset", "seed", "seeds", "data.name", "data.root", "baseline")


def study(
    data: str,
    *,
    preset: str = "demo",
    workdir: str | os.PathLike[str] | None = None,
    seeds: int = 10,
    root: str | None = None,
    only_primary: bool = False,
    leaves: Mapping[str, str] | None = None,
    table_only: bool = False,
) -> pages.Study:
    """Runs what a study still needs, and writes it as Markdown, CSV and HTML.

    An arm is a run in a folder of its own, all seeds at once. What is finished is not
    run again, what was interrupted resumes; the tables are written again after every
    arm, the page at the end.

    Args:
      data: one of `arms.SETUPS`.
      preset: of configs/curriculum.py.
      workdir: default `runs/curriculum-<data>-<preset>`.
      seeds: of every arm, from 0.
      root: folder of the data's files, where it has any.
      only_primary: whether to run only the primary family and its controls.
      leaves: dotted leaf -> value as written on a command line, for every arm.
      table_only: whether to run nothing.

    Raises:
      ValueError: if an argument is not as above.
      folder.OtherRunError: if an arm's folder holds a run of another config.
      loop.Interrupted: after SIGTERM or SIGINT, when the state is saved.
    """
    where = pathlib.Path(workdir or f"runs/curriculum-{data}-{preset}")
    base = _base(data, preset, seeds, root, leaves or {})
    specs = arms(data, steps=base.train.steps, only_primary=only_primary)
    made = [(spec, where / spec.name, _config(base, spec, where)) for spec in specs]
    for _, path, config in made:
        runs.check_folder(path, config)
    todo = [m for m in made if not (m[1] / "results.json").exists()]
    logs.say(
        f"curricula on {data}, preset {preset}: {len(made)} arms of {seeds} seeds, "
        f"{len(made) - len(todo)} finished"
    )
    # The arms of a network are nearly one program.
    parallel.keep_compiled(where / "compiled")
    for spec, path, config in () if table_only else todo:
        logs.say(f"\n{spec.name}: {spec.title}")
        try:
            train.run(config, path)
        except Exception as error:
            error.add_note(f"this was the arm in {path}")
            raise
        # The next arm has functions of its own: what was compiled is of no more use.
        jax.clear_caches()
        write(specs, where, data=data, config=base, page=False)
    return write(specs, where, data=data, config=base, page=True)


def write(
    specs: Sequence[ArmSpec],
    where: pathlib.Path,
    *,
    data: str,
    config: ConfigDict,
    page: bool,
) -> pages.Study:
    """Writes study.md and study.csv from what is finished, and study.html if asked."""
    found = collect(specs, where, data=data, config=config, pictures=page)
    texts = {"md": pages.study_markdown(found), "csv": pages.study_csv(found)}
    if page:
        texts["html"] = pages.study_html(found)
    for suffix, text in texts.items():
        part = where / f"study.{suffix}.part"
        part.write_text(text, "utf-8")
        part.replace(where / f"study.{suffix}")
    return found


def _base(
    data: str, preset: str, seeds: int, root: str | None, leaves: Mapping[str, str]
) -> ConfigDict:
    """The config of the reference."""
    if data not in SETUPS:
        raise ValueError(f"unknown data {data!r}: choose one of {sorted(SETUPS)}")
    if set(OWN) & leaves.keys():
        raise ValueError(f"the study itself sets {sorted(set(OWN) & leaves.keys())}")
    config = load_config(f"{CONFIG}:{preset}")
    values = {"data.name": data, "seeds": seeds}
    if preset == "demo":
        values |= SETUPS[data].overrides
    if root is not None:
        values["data.root"] = root
    for leaf, value in values.items():
        runs.set_leaf(config, leaf, value)
    for leaf, text in leaves.items():
        if leaf not in runs.leaves_of(config):
            raise ValueError(f"{CONFIG} has no leaf {leaf}")
        runs.set_text(config, leaf, text)
    return config


def _config(base: ConfigDict, spec: ArmSpec, where: pathlib.Path) -> ConfigDict:
    """The config of an arm."""
    config = base.copy_and_resolve_references()
    for leaf, value in spec.overrides.items():
        runs.set_leaf(config, leaf, value)
    if config.curriculum.kind == "bac" and config.curriculum.favour != "random":
        config.baseline = str(where / REFERENCE)
    return config
