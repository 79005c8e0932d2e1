"""The commands that the project's README.md files show, as they show them."""

from __future__ import annotations

import pathlib
import re
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
# First words of a line, or of a span of code, that is a command.
PROGRAMS = (
    "python",
    "python3",
    "memejax",
    "pip",
    "podman",
    "docker",
    "sbatch",
    "srun",
    "bash",
    "for",
)


class Command(NamedTuple):
    """A command or a block of Python, and the README that shows it."""

    file: str
    text: str
    language: str


def files() -> list[pathlib.Path]:
    """Every README.md that git knows."""
    listed = subprocess.run(
        ["git", "ls-files", "*README.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split()]


def commands() -> list[Command]:
    """All commands, in order, each once."""
    found = {}
    for file in files():
        name = str(file.relative_to(ROOT))
        for text, language in _in(file.read_text("utf-8")):
            found.setdefault(text, Command(name, text, language))
    return list(found.values())


def _in(text: str) -> Iterator[tuple[str, str]]:
    parts = re.split(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S)
    for i in range(0, len(parts), 3):
        for span in re.findall(r"`([^`]+)`", parts[i]):
            line = " ".join(span.split())
            if _is_command(line) and " " in line:
                yield line, "bash"
        if i + 2 < len(parts):
            language, block = parts[i + 1 : i + 3]
            if language == "python":
                yield block.strip(), "python"
            elif language in ("", "bash", "sh"):
                yield from ((line, "bash") for line in _lines(block, language))


def _lines(block: str, language: str) -> Iterator[str]:
    """A block's commands; in a block of bash every line has to be one."""
    for line in re.sub(r"\\\n\s*", "", block).splitlines():
        line = re.sub(r"\s+#.*$", "", line).strip()
        if not line or line.startswith("#"):
            continue
        if _is_command(line):
            yield line
        elif language:
            raise SystemExit(f"no command: {line!r}, in a block of {language}")


def _is_command(line: str) -> bool:
    first = line.split()[0] if line.split() else ""
    return first in PROGRAMS or first.startswith(("launch/", ".venv/", "../"))
