"""Rows written as they come, so that an interrupted prediction goes on.

While it runs, rows are in `OUTPUT.part`, one line of JSON each, after a line that says
what made them. At its end they get their form and name. A prediction by the same run
goes on with a part, another one begins again.
"""

from __future__ import annotations

import codecs
import collections
import csv
import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memejax import atomic
from memejax.errors import UserError
from memejax.predict.rows import FIELDS, Row

_NUMBERS = ("proba", "raw_proba")
# Rows of a parquet file that are written at once.
_GROUP = 10_000


def check_output(path: str | os.PathLike[str]) -> None:
    """Check that rows can be written to a file, before the work.

    Raises:
        UserError: if it cannot be written, or is not `.csv`, `.jsonl` or `.parquet`.
    """
    atomic.check_target(path)
    suffix = pathlib.Path(path).suffix
    if suffix.lower() not in _WRITERS:
        raise UserError(
            f"{path} ends with {suffix!r}, expected one of {', '.join(_WRITERS)}"
        )


class RowWriter:
    """A file of rows that is written line by line.

    Attributes:
        ids: of the rows that an interrupted prediction has left, in order.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        made_by: Mapping[str, Any],
        excel: bool = False,
    ):
        """Open the part of a file, and find what it holds already.

        Args:
            path: the file: `.csv`, `.jsonl` or `.parquet`.
            made_by: what the rows depend on, to be written as JSON.
            excel: whether a `'` is put before what a spreadsheet would take for a
                formula.

        Raises:
            UserError: if the file cannot be written, or has another suffix.
        """
        self.path = pathlib.Path(path)
        check_output(path)
        self.part = self.path.with_name(self.path.name + ".part")
        self._excel = excel
        self._header = json.dumps({"made_by": dict(made_by)}, sort_keys=True)
        self.ids = self._resume()

    def _resume(self) -> list[str]:
        """Return the ids of the whole rows of a part that the same run left."""
        if self.part.exists():
            with self.part.open("rb+") as file:
                if file.readline() == self._header.encode() + b"\n":
                    ids, end = [], file.tell()
                    for line in file:
                        if not line.endswith(b"\n"):
                            break
                        ids.append(json.loads(line)["id"])
                        end += len(line)
                    file.truncate(end)
                    return ids
        self.part.write_text(self._header + "\n", "utf-8")
        return []

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows; they outlast the process."""
        lines = [json.dumps(dataclasses.asdict(row)) + "\n" for row in rows]
        with self.part.open("ab") as file:
            file.write("".join(lines).encode())

    def finish(self) -> collections.Counter[str]:
        """Give the file its form and its name; count the rows by decision."""
        counts = collections.Counter(row["decision"] for row in self._rows())
        rows = self._rows()
        if self._excel:
            rows = map(_quoted, rows)
        _WRITERS[self.path.suffix.lower()](self.path, rows)
        self.part.unlink()
        return counts

    def _rows(self) -> Iterator[dict[str, Any]]:
        with self.part.open("rb") as file:
            for line in itertools.islice(file, 1, None):
                yield json.loads(line)


def _write_csv(path: pathlib.Path, rows: Iterator[dict[str, Any]]) -> None:
    with atomic.replacing(path) as file:
        writer = csv.DictWriter(
            codecs.getwriter("utf-8")(file), FIELDS, lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)


def _write_jsonl(path: pathlib.Path, rows: Iterator[dict[str, Any]]) -> None:
    with atomic.replacing(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _write_parquet(path: pathlib.Path, rows: Iterator[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema(
        [
            (name, pyarrow.float64() if name in _NUMBERS else pyarrow.string())
            for name in FIELDS
        ]
    )
    with (
        atomic.replacing(path) as file,
        parquet.ParquetWriter(file, schema) as writer,
    ):
        while group := list(itertools.islice(rows, _GROUP)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema))


_WRITERS = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}


def _quoted(row: dict[str, Any]) -> dict[str, Any]:
    """Put a ' before each text that a spreadsheet would take for a formula."""
    starts = ("=", "+", "-", "@", "\t", "\r")
    return {
        name: f"'{value}"
        if isinstance(value, str) and value.startswith(starts)
        else value
        for name, value in row.items()
    }
