"""Writes launch/constraints.txt: the versions with which the tests passed.

    python launch/write_constraints.py PYTHON [PYTHON ...]

Each PYTHON is that of a fresh virtual environment into which README.md's second command
installed memejax, and in which it passed. A version that all have in common stands
without a marker, another one with that of its Python.
"""

import pathlib
import subprocess
import sys

HEADER = """\
# The versions with which the tests passed, on Python {pythons}; written by
# launch/write_constraints.py. For `pip install -c launch/constraints.txt`.
"""
# Not of the packages that memejax needs.
APART = {"memejax", "pip", "setuptools", "wheel"}


def installed(python: str) -> tuple[str, dict[str, str]]:
    """An environment's version of Python, and package -> version."""
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = subprocess.check_output([python, "-c", ask], text=True).strip()
    command = [python, "-m", "pip", "list", "--format=freeze"]
    listed = subprocess.check_output(
        [*command, "--disable-pip-version-check"], text=True
    )
    pairs = (line.split("==") for line in listed.split())
    return version, {name: found for name, found in pairs if name not in APART}


def constraints(environments: dict[str, dict[str, str]]) -> str:
    """The file's text, of Python's version -> package -> version."""
    lines = []
    for name in sorted(set().union(*environments.values()), key=str.lower):
        versions = {
            python: packages[name]
            for python, packages in environments.items()
            if name in packages
        }
        if len(versions) == len(environments) and len(set(versions.values())) == 1:
            lines.append(f"{name}=={next(iter(versions.values()))}")
        else:
            lines += [
                f'{name}=={version}; python_version == "{python}"'
                for python, version in versions.items()
            ]
    return HEADER.format(pythons=", ".join(environments)) + "\n".join(lines) + "\n"


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    text = constraints(dict(map(installed, sys.argv[1:])))
    path = pathlib.Path(__file__).parent / "constraints.txt"
    path.write_text(text, "utf-8")
    print(f"{path.name}: {len(text.splitlines()) - 2} lines")
