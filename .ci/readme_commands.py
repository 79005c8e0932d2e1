"""Runs every command that a README.md shows, as readme_commands.toml shortens it.

    .venv/bin/python .ci/readme_commands.py [TEXT]     those with TEXT in them only
    .venv/bin/python .ci/readme_commands.py --list     how each is run, nothing run

A command that the table does not know, or a row of the table that no README shows, is
an error. They run in the table's order, in the checkout: a later one reads what an
earlier one wrote.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib

import readme

HERE = readme.ROOT / ".ci"
# run: as it stands, but for `replace` and `more`; flags: parsed, and nothing done;
# extra: whether pyproject.toml has what pip is to install; ci: .ci/run's own; others:
# a program that is not ours.
HOW = ("run", "flags", "extra", "ci", "others")


def main() -> None:
    """Runs them, and exits with 1 if one fails."""
    table = tomllib.loads((HERE / "readme_commands.toml").read_text("utf-8"))
    rows = {" ".join(row["text"].split()): row for row in table["command"]}
    shown = {
        " ".join(found.text.split()): found
        for found in readme.commands()
        if found.language == "bash"
    }
    _compare(set(rows), set(shown))
    if sys.argv[1:] == ["--list"]:
        for text, row in rows.items():
            print(f"{row['how']:<7} {shown[text].file:<12} {text}")
        return
    chosen = sys.argv[1] if sys.argv[1:] else ""
    began, failed = time.perf_counter(), []
    for text, row in rows.items():
        if chosen in text and not _passes(text, row, table["names"]):
            failed.append(text)
    if not chosen and not _python_blocks():
        failed.append("blocks of Python")
    print(f"README commands: {time.perf_counter() - began:.0f} s")
    if failed:
        sys.exit("failed:\n" + "\n".join(failed))


def _compare(known: set[str], shown: set[str]) -> None:
    lost = [
        f"not in .ci/readme_commands.toml: {text}" for text in sorted(shown - known)
    ]
    lost += [f"in no README.md: {text}" for text in sorted(known - shown)]
    if lost:
        sys.exit("\n".join(lost))


def _passes(text: str, row: dict, names: dict[str, str]) -> bool:
    if row["how"] not in HOW:
        sys.exit(f"how={row['how']!r}, expected one of {HOW}: {text}")
    if row["how"] in ("ci", "others"):
        return True
    if row["how"] == "extra":
        return _has_extra(text)
    for name, value in (names | row.get("names", {})).items():
        text = re.sub(rf"(?<![\w.=/-]){name}\b|(?<==){name}\b", value, text)
    for old, new in row.get("replace", {}).items():
        if old not in text:
            sys.exit(f"{old!r} is not in {text!r}")
        text = text.replace(old, new)
    text = " ".join([text, *row.get("more", [])])
    before, then = row.get("before", "true"), row.get("then", "true")
    print(f"+ {text}", flush=True)
    began = time.perf_counter()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{before}\n{text}\n{then}"],
        cwd=readme.ROOT,
        env=_environment(dry=row["how"] == "flags"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(f"  {time.perf_counter() - began:.0f} s", flush=True)
    if done.returncode:
        print(
            f"{done.stdout}\nFAILED with status {done.returncode}: {text}", flush=True
        )
    return done.returncode == 0


def _environment(*, dry: bool) -> dict[str, str]:
    path = os.pathsep.join(
        [str(HERE / "bin")] * dry + [os.path.dirname(sys.executable)]
    )
    return dict(os.environ) | {
        "PATH": f"{path}{os.pathsep}{os.environ['PATH']}",
        "CI_PYTHON": sys.executable,
        "JAX_COMPILATION_CACHE_DIR": str(readme.ROOT / "runs" / "compiled"),
    }


def _has_extra(text: str) -> bool:
    """Of `pip install -e '.[NAME]'` whether there is such an extra."""
    made = tomllib.loads((readme.ROOT / "pyproject.toml").read_text("utf-8"))
    asked = re.findall(r"\[([\w,]+)\]", text)
    return bool(asked) and set(asked[0].split(",")) <= set(
        made["project"]["optional-dependencies"]
    )


def _python_blocks() -> bool:
    """Whether each README's blocks of Python run, one after the other."""
    passes = True
    for file in {found.file for found in readme.commands()}:
        blocks = [
            found.text
            for found in readme.commands()
            if (found.file, found.language) == (file, "python")
        ]
        program = "\n".join(blocks)
        print(f"+ {len(blocks)} blocks of Python in {file}", flush=True)
        done = subprocess.run([sys.executable, "-c", program], cwd=readme.ROOT)
        passes = passes and done.returncode == 0
    return passes


if __name__ == "__main__":
    if shutil.which("bash") is None:
        sys.exit("bash is needed")
    main()
