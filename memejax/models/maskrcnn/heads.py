"""Region heads: class and box, and mask."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from memejax.models.layers import Dense, Dtype, contract
from memejax.models.maskrcnn.layers import BiasedConv, Doubling


class BoxHead(nn.Module):
    """Two affine maps, then class logits and box deltas for each class.

    Parameters: `fc6` (`kernel` rows in the order height, width, channel; PyTorch's
    are channel, height, width), `fc7`, `logits`, `deltas`, each a `Dense`.
    """

    classes: int
    hidden: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, regions: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Map regions `[..., 7, 7, c]` to features, class logits and box deltas.

        Returns:
            fc7's features `[..., hidden]`, logits `[..., classes]` and deltas
            `[..., classes, 4]`, float32.
        """
        leading = regions.shape[:-3]
        x = regions.reshape(*leading, -1)
        x = nn.relu(Dense(self.hidden, dtype=self.dtype, name="fc6")(x))
        features = nn.relu(Dense(self.hidden, dtype=self.dtype, name="fc7")(x))
        logits = Dense(self.classes, dtype=self.dtype, name="logits")(features)
        deltas = Dense(4 * self.classes, dtype=self.dtype, name="deltas")(features)
        return features, logits, deltas.reshape(*leading, self.classes, 4)


class MaskHead(nn.Module):
    """Four convolutions, doubled resolution, and one mask for a given class.

    Parameters: `conv0` to `conv3` (3x3), a `BiasedConv` each; `up`, a `Doubling`;
    `logits`, a `Dense` over the channels.

    References:
        He et al. 2017, arXiv:1703.06870, figure 4 (right).
    """

    classes: int
    channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, regions_rhwc: jax.Array, labels_r: jax.Array) -> jax.Array:
        """Map regions `[r, h, w, c]` and classes `[r]` to logits `[r, 2 h, 2 w]`."""
        x = regions_rhwc
        for i in range(4):
            x = nn.relu(BiasedConv(self.channels, 3, self.dtype, name=f"conv{i}")(x))
        x = nn.relu(Doubling(self.channels, self.dtype, name="up")(x))
        kernel, bias = ClassMaps(self.classes, self.channels, name="logits")()
        # Only the map of the region's own class: one product instead of 91.
        logits = contract("rhwi,ri->rhw", x, b=kernel.T[labels_r], dtype=self.dtype)
        return logits + bias[labels_r][:, None, None]


class ClassMaps(nn.Module):
    """`kernel` `[channels, classes]` and `bias` `[classes]` of the masks' logits."""

    classes: int
    channels: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        """Return the two parameters."""
        shape = (self.channels, self.classes)
        kernel = self.param("kernel", nn.initializers.xavier_uniform(), shape)
        return kernel, self.param("bias", nn.initializers.zeros, (self.classes,))
