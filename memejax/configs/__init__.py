"""The experiment configs, importable from any folder: `memejax.configs.common`.

The files are in the top-level folder `configs` of a checkout, and in this one once
memejax is installed.
"""

import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from configs import common as common

_HERE = pathlib.Path(__file__).parent
if not (_HERE / "common.py").exists():
    __path__.append(str(_HERE.parents[1] / "configs"))
