"""What arguments have to be: each check raises ValueError before anything is traced."""

import jax
import jax.numpy as jnp

Range = tuple[float, float]


def check(keys: jax.Array, images: jax.Array, **probabilities: float) -> None:
    """Keys `[b]`, float images `[b, h, w, 3]` and probabilities, or ValueError."""
    check_probabilities(**probabilities)
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"got keys of dtype {keys.dtype}, expected typed keys (jax.random.key)"
        )
    if (
        images.ndim != 4
        or images.shape[-1] != 3
        or keys.shape != images.shape[:1]
        or not jnp.issubdtype(images.dtype, jnp.floating)
    ):
        raise ValueError(
            f"got {keys.shape} keys and {images.dtype} images {images.shape}, expected "
            "[b] keys and float images [b, h, w, 3]"
        )


def check_probabilities(**probabilities: float) -> None:
    """Each in [0, 1], or ValueError by its name."""
    for name, value in probabilities.items():
        if not 0 <= value <= 1:
            raise ValueError(f"got {name} {value}, expected a probability in [0, 1]")


def check_range(name: str, value: Range, *, high: float) -> None:
    """`0 < value[0] <= value[1] <= high`, or ValueError."""
    if len(value) != 2 or not 0 < value[0] <= value[1] <= high:
        raise ValueError(
            f"got {name} {value}, expected (low, high) with 0 < low <= high <= {high}"
        )
