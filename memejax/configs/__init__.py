"""The experiments, importable from wherever one is run: `memejax.configs.common`.

The files lie in the top folder `configs` of a checkout, and in this one once memejax is
installed.
"""

import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from configs import common as common

_HERE = pathlib.Path(__file__).parent
if not (_HERE / "common.py").exists():
    __path__.append(str(_HERE.parents[1] / "configs"))
