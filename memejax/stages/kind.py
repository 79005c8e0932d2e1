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
    """A kind of stage: its data, its devices and its function.

    Attributes:
        title: for pages and tables.
        learned: adjective for the resulting network; "" if it trains none.
        run: `(context, previous stage) -> Ended`; does not repeat a finished stage.
        section: of the config that it reads; "" if it has none of its own.
        after: stages that it may follow; () if it has to be the first.
        first: whether it may be a run's first stage, which loads the run's data and
            chooses its devices.
        load: `(config, run's folder) -> data`, for a first stage.
        devices: config -> mesh, for a first stage.
        make: `(config, data, *, seed, mesh) -> Stage`; None if it trains nothing.
        check: `(config, data, *, mesh, before) -> Stage | None`, called before a run's
            folder is claimed, with the stage that it is to follow: builds and traces
            what `run` will run. None: `make`, traced.
        own: sections of the config that no other stage reads.
        folders: patterns of its folders in a seed's; None: its name.
        updates: `(config, data) -> {folder: updates}`, planned for a seed; None if it
            trains nothing.
        together: whether one call of `run` handles all seeds, in the run's folder.
        alone: whether it runs in one process only.
        about: config -> the data and network in words; None: the default words.
        prepare: config -> None, called before any device is used; None: no set-up.
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
    check: Callable[..., Stage | None] | None = None
    own: tuple[str, ...] = ()
    folders: tuple[str, ...] | None = None
    updates: Callable[[ConfigDict, Any], dict[str, int]] | None = None
    together: bool = False
    alone: bool = False
    about: Callable[[ConfigDict], str] | None = None
    prepare: Callable[[ConfigDict], None] | None = None
