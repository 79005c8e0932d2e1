"""Cases of a part, and their table."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any


@dataclasses.dataclass
class Cases:
    """Outcomes of the cases of one part.

    Attributes:
        part: its name.
        counts: outcome in words -> number of cases.
        wrong: description of every case that did not end as it should.
    """

    part: str
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    wrong: list[str] = dataclasses.field(default_factory=list)

    def add(self, outcome: str, *, wrong: str | None = None) -> None:
        """Count a case; `wrong` describes it if it did not end as it should."""
        self.counts[outcome] += 1
        if wrong is not None:
            self.wrong.append(wrong)
            print(f"{self.part}: WRONG: {wrong}", flush=True)

    def as_json(self) -> dict[str, Any]:
        """Return the part, its counts and its wrong cases."""
        return {
            "part": self.part,
            "cases": sum(self.counts.values()),
            "outcomes": dict(sorted(self.counts.items())),
            "wrong": self.wrong,
        }


def table(parts: list[dict[str, Any]]) -> str:
    """Return a Markdown table with a row per part."""
    lines = ["| part | cases | outcomes | wrong |", "|---|---|---|---|"]
    for part in parts:
        outcomes = ", ".join(f"{n} {name}" for name, n in part["outcomes"].items())
        lines.append(
            f"| {part['part']} | {part['cases']} | {outcomes} | {len(part['wrong'])} |"
        )
    return "\n".join(lines)
