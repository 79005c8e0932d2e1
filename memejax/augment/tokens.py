"""Random views of captions, by token dropout."""

import jax
import jax.numpy as jnp

from memejax.augment.checks import check_probabilities
from memejax.augment.keys import TOKENS, fold, uniform


def token_dropout(
    keys: jax.Array, input_ids: jax.Array, attention_mask: jax.Array, *, rate: float
) -> tuple[jax.Array, jax.Array]:
    """Hide random tokens of captions by clearing their attention mask.

    Each attended token except position 0 ([CLS]) is hidden with probability `rate`. A
    caption never loses all of them: if all are drawn, one, uniformly chosen, is kept.
    ([SEP] is treated like any other token.) Ids and positions are unchanged.

    Args:
        keys: `[b]`; may be those of `random_view`, which draws other numbers.
        input_ids: int `[b, t]`.
        attention_mask: int `[b, t]`, 1 where attended.
        rate: in [0, 1].

    Returns:
        `(input_ids, attention_mask)`, the ids unchanged.

    Raises:
        ValueError: if the shapes do not match or rate is out of range.
    """
    check_probabilities(rate=rate)
    shape = input_ids.shape
    if len(shape) != 2 or attention_mask.shape != shape or keys.shape != shape[:1]:
        raise ValueError(
            f"got keys {keys.shape}, input_ids {shape} and attention_mask "
            f"{attention_mask.shape}, expected [b], [b, t] and [b, t]"
        )
    if not rate:
        return input_ids, attention_mask
    position = jnp.arange(shape[1])[None, :]
    droppable = (attention_mask > 0) & (position > 0)
    draws = jnp.where(droppable, uniform(fold(keys, TOKENS), shape[1]), -1.0)
    # The token with the largest draw is always kept.
    last = position == jnp.argmax(draws, axis=1)[:, None]
    hidden = droppable & (draws < rate) & ~last
    return input_ids, jnp.where(hidden, 0, attention_mask)
