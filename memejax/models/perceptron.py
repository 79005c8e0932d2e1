"""Multilayer perceptron for classifying small pictures.

Shape suffixes: `b` batch, `h`, `w` height and width, `c` channels, `d` features,
`k` classes.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.layers import Dense, Dtype, check_images, dropout

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "tanh": jnp.tanh,
}


class Perceptron(nn.Module):
    """Hidden layers over the pixels, dropout after the last one, an affine map.

    `trunk` is the part before the dropout and `head` the rest, so that many dropout
    passes cost one trunk. Rng: "dropout".

    Parameters: `hidden<i>`, `out`, each a `Dense`.

    Attributes:
        classes: width of the output.
        hidden: widths of the hidden layers; with three, the network of Bengio et al.
        dropout: rate on the last hidden layer, in [0, 1).
        activation: one of `ACTIVATIONS`.
        dtype: dtype of products.

    References:
        Bengio et al., Curriculum learning, ICML 2009, section 5 (three hidden layers;
        widths and activation are not given there).
    """

    classes: int
    hidden: Sequence[int] = (200, 200, 200)
    dropout: float = 0.0
    activation: str = "relu"
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Create the layers."""
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"unknown activation {self.activation!r}: choose one of "
                f"{sorted(ACTIVATIONS)}"
            )
        init = (
            nn.initializers.he_normal()
            if self.activation == "relu"
            else nn.initializers.xavier_uniform()
        )
        self.layers = [
            Dense(width, dtype=self.dtype, kernel_init=init, name=f"hidden{i}")
            for i, width in enumerate(self.hidden)
        ]
        self.out = Dense(self.classes, dtype=self.dtype)

    def trunk(self, images_bhwc: jax.Array, *, train: bool = False) -> jax.Array:
        """Map `[b, h, w, c]` to `[b, d]`, without dropout."""
        del train  # Training and evaluation do the same.
        check_images(images_bhwc)
        x = images_bhwc.reshape(len(images_bhwc), -1)
        for layer in self.layers:
            x = ACTIVATIONS[self.activation](layer(x))
        return x

    def head(
        self, features_bd: jax.Array, *, train: bool, shared_mask: bool = False
    ) -> jax.Array:
        """Map `[b, d]` to logits `[b, k]`.

        Args:
            features_bd: the output of `trunk`.
            train: whether dropout is active.
            shared_mask: whether the batch shares one mask, for Monte Carlo dropout.
        """
        x = features_bd
        if train and self.dropout:
            x = dropout(
                self.make_rng("dropout"), x, rate=self.dropout, shared=shared_mask
            )
        return self.out(x)

    def __call__(self, images_bhwc: jax.Array, *, train: bool) -> jax.Array:
        """Map `[b, h, w, c]` float to logits `[b, k]` float32."""
        return self.head(self.trunk(images_bhwc, train=train), train=train)
