"""Type aliases for module fields: dtypes and initializers."""

from collections.abc import Callable
from typing import Any

import jax

Dtype = Any
Initializer = Callable[..., jax.Array]
