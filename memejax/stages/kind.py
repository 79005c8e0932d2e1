"""An entry of the table of stages."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax.stage import Stage
from memejax.stages.context import Context, Ended


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of stage: how it loads its data, on which devices and how it is run.

    Attributes:
        title: for pages and tables.
        learned: adjective of networks that ended it; "" if it trains none.
        run: `(context, stage before) -> Ended`; what ended before is not run again.
        section: of a config, which it reads; "" if it reads none of its own.
        after: stages that it may stand behind; () if it has to be the first.
        first: whether it may be the first of a run, whose data and devices are then
            its.
        load: `(config, run's folder) -> data`, of a first stage.
        devices: config -> mesh, of a first stage.
        make: `(config, data, *, seed, mesh) -> Stage`; None if it trains nothing.
        updates: `(config, data) -> {folder: updates}`, planned for a seed; None if it
            trains nothing.
        together: whether all seeds of a run are one call of `run`, in the run's folder.
        alone: whether it runs in one process only.
        about: config -> the data and network in words; None for the usual words.
        prepare: config -> None, called before any device is used; None if it needs
            none.
    """

    title: str
    learned: str
    run: Callable[[Context, Ended | None], Ended]
    section: str = ""
    after: tuple[str, ...] = ()
    first: bool = True
    load: Callable[[ConfigDict, pathlib.Path], Any] = lambda *_: None
    devices: Callable[[ConfigDict], Mesh | None] = lambda _: None
    make: Callable[..., Stage] | None = None
    updates: Callable[[ConfigDict, Any], dict[str, int]] | None = None
    together: bool = False
    alone: bool = False
    about: Callable[[ConfigDict], str] | None = None
    prepare: Callable[[ConfigDict], None] | None = None
