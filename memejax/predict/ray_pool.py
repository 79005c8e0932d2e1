"""The rows of memes by a pool of Ray actors (the extra `ray`), on one machine or many.

Each actor is a moderator of its own. A batch that dies with its actor is given to
another one, and rows come in the order of the memes: what is written, resumed and
summed up is the same as without Ray. Pictures that are paths have to be readable, under
the same path, on every machine.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from memejax.data.inputs import Item
from memejax.errors import UserError
from memejax.predict.arguments import LOCAL
from memejax.predict.load import load_moderator
from memejax.predict.moderator import batched
from memejax.predict.rows import Row


class Actor:
    """A moderator that turns tables of items into tables of rows."""

    def __init__(self, **arguments: Any):
        """Load the moderator, see `load_moderator`."""
        # Ray's workers do not come from memejax's commands.
        from memejax import command_line

        command_line.prepare()
        # As without Ray, so that the rows are the same.
        self._moderator = load_moderator(**arguments).for_many()

    def __call__(self, table: Any) -> Any:
        """Return the rows of a table of items."""
        rows = self._moderator.rows([_item(one) for one in table.to_pylist()])
        return _table([vars(row) for row in rows], _ROW)


def connect(address: str) -> None:
    """Join a cluster, or start one, before JAX: Ray forks, and JAX has threads.

    Args:
        address: of a cluster, as of `ray.init`; "local" starts one on this machine.

    Raises:
        UserError: if Ray Data is not installed, or there is no cluster.
    """
    if any(importlib.util.find_spec(name) is None for name in ("ray", "pandas")):
        raise UserError("--ray takes Ray Data: pip install 'memejax[ray]'")
    # Its lines on what it starts are of no use here.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == LOCAL:
        options |= {"include_dashboard": False}
    try:
        ray.init(address=address, **options)
    except ConnectionError as error:
        raise UserError(f"no Ray cluster at {address}: {error}") from None


def stream(
    arguments: Mapping[str, Any], items: Iterable[Item], *, actors: int
) -> Iterator[list[Row]]:
    """Yield the rows of items, some at a time, in their order; after `connect`.

    Args:
        arguments: of `load_moderator`, for each actor.
        items: memes; contents of pictures go through Ray's object store.
        actors: size of the pool.
    """
    import ray
    import ray.data

    # Set by its import.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    blocks = [
        ray.put(_table([vars(item) for item in part], _ITEM)) for part in batched(items)
    ]
    if not blocks:
        return
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    found = ray.data.from_arrow_refs(blocks).map_batches(
        Actor,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=actors),
        fn_constructor_kwargs=dict(arguments),
        num_gpus=gpus,
    )
    for table in found.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield [Row(**one) for one in table.to_pylist()]


# Field -> type of a column; `picture` is one of two.
_ITEM = {
    "id": "string",
    "path": "string",
    "content": "binary",
    "caption": "string",
    "error": "string",
    "label": "int64",
}
_ROW = {
    name: "float64" if name in ("proba", "raw_proba") else "string"
    for name in Row.__dataclass_fields__
}


def _table(records: list[dict[str, Any]], fields: Mapping[str, str]) -> Any:
    """Return records as a table whose types do not depend on them."""
    import pyarrow

    if "content" in fields:
        records = [
            one
            | {
                "path": one["picture"] if isinstance(one["picture"], str) else None,
                "content": None if isinstance(one["picture"], str) else one["picture"],
            }
            for one in records
        ]
    types = {"string": pyarrow.string(), "float64": pyarrow.float64()}
    types |= {"binary": pyarrow.binary(), "int64": pyarrow.int64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in fields.items()])
    return pyarrow.Table.from_pylist(records, schema)


def _item(record: Mapping[str, Any]) -> Item:
    picture = record["path"] if record["content"] is None else record["content"]
    return Item(
        record["id"], picture, record["caption"], record["error"], record["label"]
    )
