"""Convolutions: the layers, and two ways to compute each.

Shape suffixes: `b` batch, `h`, `w` height and width, `d`, `i` features (in).
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from memejax.models.layers.kinds import Dtype, Initializer
from memejax.models.layers.products import pointwise
from memejax.models.layers.shapes import extract_patches

# Up to so many input channels a CPU convolves by a product; at 64 the library is
# faster.
FEW_CHANNELS = 32
# And up to so many output positions, of all examples, per output channel; at 4 both
# ways are equally fast.
FEW_POSITIONS = 4


class Conv(nn.Module):
    """Convolution without bias, with PyTorch's symmetric padding, computed in `dtype`.

    A 1x1 convolution is a matrix product, on a sliced input if it has a stride:
    on a CPU its weight gradient is twice as fast as the convolution's. A patch
    convolution (stride = size, no padding) is a matrix product over patches.

    Parameters: `kernel` `[size, size, in, out]` (PyTorch's `weight` `[out, in, size,
    size]`, transposed).
    """

    features: int
    size: int
    stride: int = 1
    padding: int = 0
    dtype: Dtype = jnp.float32
    kernel_init: Initializer = nn.initializers.variance_scaling(
        2.0, "fan_out", "normal"
    )

    @nn.compact
    def __call__(self, x_bhwd: jax.Array) -> jax.Array:
        """Map `[b, h, w, in]` to `[b, h', w', features]` in `dtype`."""
        size, stride = self.size, self.stride
        shape = (size, size, x_bhwd.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        if size == 1 and self.padding == 0:
            x = x_bhwd[:, ::stride, ::stride]
            out = pointwise(x, kernel[0, 0], dtype=self.dtype)
        elif size == stride and self.padding == 0:
            kernel = kernel.reshape(-1, self.features)
            out = pointwise(extract_patches(x_bhwd, size), kernel, dtype=self.dtype)
        else:
            # Both factors in `dtype`: the transpose of a convolution does not accept
            # a result of another dtype. The libraries accumulate in float32.
            x, kernel = x_bhwd.astype(self.dtype), kernel.astype(self.dtype)
            options = dict(stride=stride, padding=self.padding)
            library = functools.partial(convolve, **options)
            product = functools.partial(convolve_by_product, **options)
            by_product = self.dtype == jnp.float32 and _is_faster_by_product(
                x, kernel, **options
            )
            out = (
                lax.platform_dependent(x, kernel, cpu=product, default=library)
                if by_product
                else library(x, kernel)
            )
        return out.astype(self.dtype)


class DepthwiseConv(nn.Module):
    """Convolution of every channel by itself, without bias, computed in `dtype`.

    The padding is that of `pad_same`. On a CPU the products of the kernel's taps with
    shifted inputs are summed up: for 8 pictures of 56 x 56 x 144 the library takes
    50 times as long, and 3 times with the gradients.

    Parameters: `kernel` `[size, size, 1, features]` (PyTorch's `weight` `[features, 1,
    size, size]`, transposed).
    """

    size: int
    stride: int = 1
    dtype: Dtype = jnp.float32
    # Fan-in and fan-out of a channel are those of its own kernel.
    kernel_init: Initializer = nn.initializers.variance_scaling(2.0, "fan_in", "normal")

    @nn.compact
    def __call__(self, x_bhwd: jax.Array) -> jax.Array:
        """Map `[b, h, w, d]` to `[b, ceil(h / stride), ceil(w / stride), d]`."""
        shape = (self.size, self.size, 1, x_bhwd.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x, kernel = x_bhwd.astype(self.dtype), kernel.astype(self.dtype)
        x = pad_same(x, size=self.size, stride=self.stride)
        return lax.platform_dependent(
            x,
            kernel,
            cpu=functools.partial(convolve_by_shifts, stride=self.stride),
            default=functools.partial(
                convolve, stride=self.stride, padding=0, groups=x.shape[-1]
            ),
        )


def _is_faster_by_product(x, kernel, *, stride, padding) -> bool:
    """Whether a CPU convolves faster by a product, as measured in float32."""
    if x.shape[-1] <= FEW_CHANNELS and stride == 1:
        return True
    batch = x.shape[0]
    if not isinstance(batch, int):
        # An exported program has a symbolic batch size.
        return False
    sides = [(n + 2 * padding - len(kernel)) // stride + 1 for n in x.shape[1:3]]
    return batch * math.prod(sides) <= FEW_POSITIONS * kernel.shape[-1]


def pad_same(x_bhwd: jax.Array, *, size: int, stride: int) -> jax.Array:
    """Pad images with zeros as TensorFlow's "SAME" convolutions do.

    A convolution then has ceil(side / stride) outputs. With an odd number of zeros, the
    bottom and the right get one more than the top and the left.

    Args:
        x_bhwd: `[b, h, w, d]`.
        size: side of the kernel.
        stride: stride in both directions.

    Returns:
        `[b, h + p, w + q, d]`, p and q at most size - 1.
    """
    zeros = (
        max((-(-side // stride) - 1) * stride + size - side, 0)
        for side in x_bhwd.shape[1:3]
    )
    edges = [(p // 2, p - p // 2, 0) for p in zeros]
    zero = jnp.zeros((), x_bhwd.dtype)
    return lax.pad(x_bhwd, zero, ((0, 0, 0), *edges, (0, 0, 0)))


def convolve(
    x_bhwi: jax.Array, kernel: jax.Array, *, stride: int, padding: int, groups: int = 1
) -> jax.Array:
    """Convolve with the backend's library.

    Args:
        x_bhwi: `[b, h, w, in]`.
        kernel: `[size, size, in / groups, out]` of the same dtype.
        stride: stride in both directions.
        padding: zeros on each side.
        groups: number of groups of channels that are convolved separately.

    Returns:
        `[b, h', w', out]`.
    """
    return lax.conv_general_dilated(
        x_bhwi,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def convolve_by_product(
    x_bhwi: jax.Array, kernel: jax.Array, *, stride: int, padding: int
) -> jax.Array:
    """Convolve by one matrix product over the windows.

    With few input channels, a CPU computes its gradients faster than the library's (a
    step of the MNIST network takes 0.7 of the time). So it does with few positions and
    many channels, where the library's flipped copy of the kernel for the gradient of x
    takes half as long again as the sums. Otherwise the windows are too large.

    Args and result are those of `convolve`.
    """
    size, _, _, out = kernel.shape
    edge = (padding, padding, 0)
    x = lax.pad(x_bhwi, jnp.zeros((), x_bhwi.dtype), ((0, 0, 0), edge, edge, (0, 0, 0)))
    h, w = ((n - size) // stride + 1 for n in x.shape[1:3])
    windows = jnp.concatenate(
        [
            x[:, i : i + (h - 1) * stride + 1 : stride][
                :, :, j : j + (w - 1) * stride + 1 : stride
            ]
            for i in range(size)
            for j in range(size)
        ],
        axis=-1,
    )
    rows = windows.reshape(-1, windows.shape[-1]) @ kernel.reshape(-1, out)
    return rows.reshape(*windows.shape[:3], out)


def convolve_by_shifts(
    x_bhwd: jax.Array, kernel: jax.Array, *, stride: int
) -> jax.Array:
    """Convolve every channel by itself, as a sum of shifted images.

    Sums are float32.

    Args:
        x_bhwd: `[b, h, w, d]`, padded.
        kernel: `[size, size, 1, d]` of the same dtype.
        stride: stride in both directions.

    Returns:
        `[b, h', w', d]` of the same dtype.
    """
    size = len(kernel)
    x, kernel = x_bhwd.astype(jnp.float32), kernel.astype(jnp.float32)
    h, w = ((n - size) // stride * stride + 1 for n in x.shape[1:3])
    taps = [
        x[:, i : i + h : stride, j : j + w : stride] * kernel[i, j][None, None]
        for i in range(size)
        for j in range(size)
    ]
    return functools.reduce(jnp.add, taps).astype(x_bhwd.dtype)
