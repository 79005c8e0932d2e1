"""Write launch/constraints.txt: the versions with which the tests passed.

    python launch/write_constraints.py PYTHON [PYTHON ...]

Each PYTHON belongs to a fresh virtual environment in which README.md's second command
installed memejax and the tests passed. A version common to all has no marker; any other
one has a marker for its Python.
"""

import pathlib
import subprocess
import sys

HEADER = """\
# The versions with which the tests passed, on Python {pythons}; written by
# launch/write_constraints.py. For `pip install -c launch/constraints.txt`.
"""
# Not dependencies of memejax.
APART = {"memejax", "pip", "setuptools", "wheel"}


def installed(python: str) -> tuple[str, dict[str, str]]:
    """Return an environment's Python version, and package -> version."""
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = subprocess.check_output([python, "-c", ask], text=True).strip()
    command = [python, "-m", "pip", "list", "--format=freeze"]
    listed = subprocess.check_output(
        [*command, "--disable-pip-version-check"], text=True
    )
    pairs = (line.split("==") for line in listed.split())
    return version, {name: found for name, found in pairs if name not in APART}


def constraints(environments: dict[str, dict[str, str]]) -> str:
    """Return the file's text from Python version -> package -> version."""
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
