"""Prints a command of README.md's first screen: `readme_command.py demo|test`.

They are the first two fenced blocks: the demo's, then the tests'.
"""

import pathlib
import re
import sys

readme = pathlib.Path(__file__).parents[1] / "README.md"
blocks = re.findall(r"^```bash\n(.*?)^```", readme.read_text("utf-8"), re.M | re.S)
demo, test = (block.strip() for block in blocks[:2])
if "memejax.main" not in demo or "pytest" not in test:
    sys.exit("README.md's first two commands are not the demo's and the tests'")
print({"demo": demo, "test": test}[sys.argv[1]])
