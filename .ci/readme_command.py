"""Prints a command of README.md's first screen: `readme_command.py demo|test`.

They are its first two commands: the demo's, then the tests'.
"""

import sys

import readme

demo, test = (found.text for found in readme.commands()[:2])
if "memejax.main" not in demo or "pytest" not in test:
    sys.exit("README.md's first two commands are not the demo's and the tests'")
print({"demo": demo, "test": test}[sys.argv[1]])
