"""Checks of arguments, which raise ValueError before anything is traced."""

import jax
import jax.numpy as jnp

Range = tuple[float, float]


def check(
    keys: jax.Array,
    images: jax.Array,
    *,
    any_channels: bool = False,
    **probabilities: float,
) -> None:
    """Raise ValueError unless keys, images and probabilities are valid.

    Args:
        keys: typed PRNG keys `[b]`.
        images: float `[b, h, w, 3]`.
        any_channels: whether another number of channels is allowed.
        **probabilities: in [0, 1].
    """
    check_probabilities(**probabilities)
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"got keys of dtype {keys.dtype}, expected typed keys (jax.random.key)"
        )
    if (
        images.ndim != 4
        or not (any_channels or images.shape[-1] == 3)
        or keys.shape != images.shape[:1]
        or not jnp.issubdtype(images.dtype, jnp.floating)
    ):
        raise ValueError(
            f"got {keys.shape} keys and {images.dtype} images {images.shape}, expected "
            f"[b] keys and float images [b, h, w, {'c' if any_channels else 3}]"
        )


def check_probabilities(**probabilities: float) -> None:
    """Raise ValueError unless each probability is in [0, 1]."""
    for name, value in probabilities.items():
        if not 0 <= value <= 1:
            raise ValueError(f"got {name} {value}, expected a probability in [0, 1]")


def check_range(name: str, value: Range, *, high: float) -> None:
    """Raise ValueError unless `0 < value[0] <= value[1] <= high`."""
    if len(value) != 2 or not 0 < value[0] <= value[1] <= high:
        raise ValueError(
            f"got {name} {value}, expected (low, high) with 0 < low <= high <= {high}"
        )
