"""Layers that the encoders share: products, normalisation, attention, MLP.

Parameters are float32. Products run in `dtype` and accumulate in float32, forward
and backward; everything between them (softmax, normalisation, residual sums, gelu)
is float32.

Shape suffixes: `b` batch, `h`, `w` height and width, `t` tokens, `d` features,
`n` heads, `e` features of a head, `q` and `k` query and key tokens.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Dtype = Any
Initializer = Callable[..., jax.Array]

# What the lowest logit is replaced with under a mask. A row with no visible key
# then averages its values, where -inf would give NaN.
MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)


def contract(equation: str, a: jax.Array, *, b: jax.Array, dtype: Dtype) -> jax.Array:
    """Product of two arrays in `dtype`, accumulated and returned in float32.

    Gradients are products in `dtype` with float32 accumulation too. Left to itself,
    the transpose of a bfloat16 product with a float32 result multiplies float32 by
    bfloat16, at the speed of float32.

    Args:
        equation: einsum of two operands, without ellipsis and without an index
            that stands in one operand only and not in the result.
        a: first operand, any float dtype.
        b: second operand, any float dtype.
        dtype: dtype in which the factors enter the product.

    Returns:
        float32 array.
    """
    if jnp.dtype(dtype) == jnp.float32:
        # The plain form, which has forward-mode derivatives as well.
        return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return _contract(equation, jnp.dtype(dtype), a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _contract(equation: str, dtype: Dtype, a: jax.Array, b: jax.Array) -> jax.Array:
    return _contract_forward(equation, dtype, a, b)[0]


def _contract_forward(equation, dtype, a, b):
    a, b = a.astype(dtype), b.astype(dtype)
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32), (a, b)


def _contract_backward(equation, dtype, factors, cotangent):
    a, b = factors
    operands, out = equation.split("->")
    first, second = operands.split(",")
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    cotangent = cotangent.astype(dtype)
    return (
        product(f"{out},{second}->{first}", cotangent, b),
        product(f"{first},{out}->{second}", a, cotangent),
    )


_contract.defvjp(_contract_forward, _contract_backward)


def pointwise(x: jax.Array, kernel: jax.Array, *, dtype: Dtype) -> jax.Array:
    """Product of the last axis with a matrix, as one product of two matrices.

    On a CPU the gradient of `kernel` is up to three times as fast so as where the sum
    in it goes over several axes.

    Args:
        x: `[..., in]`.
        kernel: `[in, out]`.
        dtype: as `contract` takes it.

    Returns:
        float32 `[..., out]`.
    """
    rows = x.reshape(-1, x.shape[-1])
    out = contract("ri,io->ro", rows, b=kernel, dtype=dtype)
    return out.reshape(*x.shape[:-1], kernel.shape[-1])


def gelu(x: jax.Array) -> jax.Array:
    """Exact gelu: x / 2 * (1 + erf(x / sqrt(2))).

    On a CPU the erf takes a third of the time of the erfc in `jax.nn.gelu`.
    """
    return 0.5 * x * (1.0 + lax.erf(x * math.sqrt(0.5)))


def along_last(vector: jax.Array, ndim: int) -> jax.Array:
    """A vector `[d]` as `[1, ..., 1, d]` of `ndim` axes, to broadcast explicitly."""
    return vector.reshape((1,) * (ndim - 1) + (-1,))


def check_images(images_bhwc: jax.Array) -> None:
    """Raise ValueError unless images are `[b, h, w, c]` of a float dtype."""
    if images_bhwc.ndim != 4 or not jnp.issubdtype(images_bhwc.dtype, jnp.floating):
        raise ValueError(
            f"got images {images_bhwc.dtype}{list(images_bhwc.shape)}, expected "
            "normalised float images [b, h, w, c]"
        )


def dropout(
    key: jax.Array, x: jax.Array, *, rate: float, shared: bool = False
) -> jax.Array:
    """Dropout: each value is 0 with probability `rate`, else x / (1 - rate).

    Args:
        key: PRNG key.
        x: `[b, ...]`.
        rate: in [0, 1).
        shared: whether the batch shares one mask, so that what becomes of an example
            does not depend on the others beside it.

    References:
        Srivastava et al., Dropout, JMLR 15 (2014).
    """
    shape = (1, *x.shape[1:]) if shared else x.shape
    kept = jax.random.bernoulli(key, 1.0 - rate, shape)
    return jnp.where(jnp.broadcast_to(kept, x.shape), x / (1.0 - rate), 0.0)


def apply_block(
    block: nn.Module, x: jax.Array, *, train: bool, remat: bool, **arrays: jax.Array
) -> jax.Array:
    """`block(x, **arrays, train=train)`, whose inside may be forgotten.

    Args:
        block: a module of the module that calls this.
        x: the block's input.
        train: as the block takes it.
        remat: whether only the inputs are kept for the backward pass, which then
            computes the block once more. Values and gradients stay the same, and so
            do the parameters' names.
        **arrays: what else the block takes.

    References:
        Chen et al., Training deep nets with sublinear memory cost, arXiv:1604.06174.
    """

    def call(block: Any, x: jax.Array, arrays: dict[str, jax.Array]) -> jax.Array:
        return block(x, **arrays, train=train)

    return (nn.remat(call) if remat else call)(block, x, arrays)


class Dropout(nn.Module):
    """Dropout of every value by itself, from 16 random bits each.

    `nn.Dropout` takes a word of random bits for every value; here two share one, with
    which a GraphSAGE on a CPU takes 0.8 of the time. `rate` is met to 1 / 65536.

    References:
        Srivastava et al., Dropout, JMLR 15 (2014).
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """Zero values of `[..., d]` with probability `rate`, divide others by the rest.

        Args:
            x: `[..., d]`.
            deterministic: whether nothing is dropped; else the rng "dropout" is used.

        Raises:
            ValueError: if the rate is not in [0, 1).
        """
        if not 0 <= self.rate < 1:
            raise ValueError(f"got a dropout of {self.rate}, expected it in [0, 1)")
        if deterministic or self.rate == 0:
            return x
        # Along the last axis, so that an array that is split over devices stays so.
        words = (*x.shape[:-1], -(-x.shape[-1] // 2))
        bits = jax.random.bits(self.make_rng("dropout"), words, jnp.uint32)
        halves = lax.bitcast_convert_type(bits, jnp.uint16)
        halves = halves.reshape(*words[:-1], -1)[..., : x.shape[-1]]
        dropped = halves < round(self.rate * 2**16)
        return jnp.where(dropped, 0.0, x / (1.0 - self.rate))


# Channels in up to which a CPU convolves by a product; at 64 the library is faster.
FEW_CHANNELS = 32


class Dense(nn.Module):
    """Affine map of the last axis: x W + b, float32 out.

    Parameters: `kernel` `[in, out]` (PyTorch's `weight`, transposed), `bias` `[out]`.
    """

    features: int
    use_bias: bool = True
    dtype: Dtype = jnp.float32
    # Where nothing is loaded: the references' normal(0.02) is made for a width of 768
    # and hardly moves a narrow network.
    kernel_init: Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `[..., in]` to `[..., features]` float32."""
        kernel = self.param(
            "kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32
        )
        out = pointwise(x, kernel, dtype=self.dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            out = out + along_last(bias, out.ndim)
        return out


class Conv(nn.Module):
    """Convolution without bias, PyTorch's symmetric padding, in and out in `dtype`.

    A 1x1 convolution is a matrix product, on a sliced input where it has a stride:
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
            # Both factors in `dtype`: the transpose of a convolution does not take
            # a result of another dtype. The libraries accumulate in float32.
            x, kernel = x_bhwd.astype(self.dtype), kernel.astype(self.dtype)
            ways = dict(stride=stride, padding=self.padding)
            library = functools.partial(convolve, **ways)
            product = functools.partial(convolve_by_product, **ways)
            few = x.shape[-1] <= FEW_CHANNELS and stride == 1
            out = (
                lax.platform_dependent(x, kernel, cpu=product, default=library)
                if few and self.dtype == jnp.float32
                else library(x, kernel)
            )
        return out.astype(self.dtype)


def convolve(
    x_bhwi: jax.Array, kernel: jax.Array, *, stride: int, padding: int
) -> jax.Array:
    """The convolution of the backend's library.

    Args:
        x_bhwi: `[b, h, w, in]`.
        kernel: `[size, size, in, out]` of the same dtype.
        stride: in both directions.
        padding: zeros on each side.

    Returns:
        `[b, h', w', out]`.
    """
    return lax.conv_general_dilated(
        x_bhwi,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def convolve_by_product(
    x_bhwi: jax.Array, kernel: jax.Array, *, stride: int, padding: int
) -> jax.Array:
    """The same convolution as one matrix product over the windows.

    With few channels in, a CPU has its gradients sooner than the library's (a step of
    the network for MNIST takes 0.7 of the time); with many, windows are too large.

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


def extract_patches(images_bhwd: jax.Array, size: int) -> jax.Array:
    """Cut images into squares: `[b, h, w, c]` to `[b, h/size, w/size, size*size*c]`.

    Args:
        images_bhwd: `[b, h, w, c]`.
        size: side of a patch.

    Returns:
        Patches with their pixels in the order (row, column, channel).

    Raises:
        ValueError: if a side is not a multiple of `size`.
    """
    b, h, w, c = images_bhwd.shape
    if h % size or w % size:
        raise ValueError(
            f"got images of {h} x {w} pixels, expected sides that are multiples of "
            f"the patch of {size}"
        )
    x = images_bhwd.reshape(b, h // size, size, w // size, size, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // size, w // size, -1)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, as one multiply-add.

    y = x * scale / sqrt(var + eps) + (bias - mean * scale / sqrt(var + eps))

    Training normalises with the biased variance of the (global) batch and updates
    the running variance with the unbiased one, n / (n - 1) times as large, as
    PyTorch does. `momentum` is what the running statistics keep (0.9 here is 0.1 in
    PyTorch).

    Parameters: `scale`, `bias` `[d]` (PyTorch's `weight`, `bias`); collection
    "batch_stats": `mean`, `var` `[d]` (`running_mean`, `running_var`).

    References:
        Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1.
    """

    momentum: float = 0.9
    eps: float = 1e-5
    axis_name: str | None = None
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise `[..., d]` of any float dtype into float32."""
        d = x.shape[-1]
        scale = self.param("scale", self.scale_init, (d,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (d,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (d,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (d,))

        x = x.astype(jnp.float32)
        if not train:
            mean, var = running_mean.value, running_var.value
        else:
            mean, var, n = self._batch_statistics(x)
            if not self.is_initializing():
                keep, new = self.momentum, 1.0 - self.momentum
                unbiased = var * (n / (n - 1))
                running_mean.value = keep * running_mean.value + new * mean
                running_var.value = keep * running_var.value + new * unbiased

        multiplier = scale * lax.rsqrt(var + self.eps)
        shift = bias - mean * multiplier
        return x * along_last(multiplier, x.ndim) + along_last(shift, x.ndim)

    def _batch_statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array, int]:
        axes = tuple(range(x.ndim - 1))
        n = math.prod(x.shape[:-1])
        # Both moments in one pass over x, and one collective for the two.
        moments = jnp.mean(x, axes), jnp.mean(jnp.square(x), axes)
        if self.axis_name is not None and not self.is_initializing():
            moments = lax.pmean(moments, self.axis_name)
            n = n * lax.axis_size(self.axis_name)
        if n < 2 and not self.is_initializing():
            raise ValueError(
                "got one value a channel, expected at least 2 to normalise a batch"
            )
        mean, mean_of_squares = moments
        # Rounding can take the difference below zero for a constant channel.
        var = jnp.maximum(mean_of_squares - jnp.square(mean), 0.0)
        return mean, var, n


class LayerNorm(nn.Module):
    """Layer normalisation of the last axis, in float32.

    Parameters: `scale`, `bias` `[d]` (PyTorch's `weight`, `bias`).

    References:
        Ba et al. 2016, arXiv:1607.06450.
    """

    eps: float = 1e-12

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise `[..., d]` into float32."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x = x.astype(jnp.float32)
        # Two passes: the residual stream of a ViT has features whose mean is many
        # times their deviation, where E[x^2] - E[x]^2 loses digits.
        centred = x - jnp.mean(x, -1, keepdims=True)
        var = jnp.mean(jnp.square(centred), -1, keepdims=True)
        out = centred * lax.rsqrt(var + self.eps) * along_last(scale, x.ndim)
        return out + along_last(bias, x.ndim)


class Attention(nn.Module):
    """Multi-head self-attention: softmax(Q K^T / sqrt(e)) V, then one affine map.

    Parameters: `query`, `key`, `value`, `out`, each a `Dense`. Collection
    "intermediates", where mutable: `attention`, a tuple of one array a call, the
    weights before dropout, float32 `[b, heads, t, t]`.

    References:
        Vaswani et al. 2017, arXiv:1706.03762, equation 1.
    """

    heads: int
    dropout: float = 0.0
    qkv_bias: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x_btd: jax.Array, *, where: jax.Array | None = None, train: bool
    ) -> jax.Array:
        """Attend from every token to every visible one.

        Args:
            x_btd: `[b, t, d]` tokens.
            where: `[b, t]`, nonzero where a token may be attended to; None for all.
            train: whether attention weights are dropped (rng "dropout").

        Returns:
            `[b, t, d]` float32.

        Raises:
            ValueError: if the features do not divide into the heads.
        """
        b, t, d = x_btd.shape
        if d % self.heads:
            raise ValueError(
                f"got {d} features, expected a multiple of the {self.heads} heads"
            )

        def project(name: str) -> jax.Array:
            dense = Dense(d, use_bias=self.qkv_bias, dtype=self.dtype, name=name)
            # Heads first: XLA's CPU backend has no bfloat16 product with a float32
            # result where the batch axes of the factors do not lead.
            heads = dense(x_btd).reshape(b, t, self.heads, d // self.heads)
            return heads.transpose(0, 2, 1, 3)

        # Scaled on the queries: t * d multiplications instead of t * t * n.
        query = project("query") * (d // self.heads) ** -0.5
        key, value = project("key"), project("value")
        logits = contract("bnqe,bnke->bnqk", query, b=key, dtype=self.dtype)
        if where is not None:
            logits = jnp.where(where[:, None, None, :] != 0, logits, MASKED)
        weights = nn.softmax(logits, axis=-1)
        # Kept only where the caller makes "intermediates" mutable; `init` does not.
        self.sow("intermediates", "attention", weights)
        weights = Dropout(self.dropout)(weights, deterministic=not train)
        out = contract("bnqk,bnke->bnqe", weights, b=value, dtype=self.dtype)
        out = out.transpose(0, 2, 1, 3).reshape(b, t, d)
        return Dense(d, dtype=self.dtype, name="out")(out)


class Mlp(nn.Module):
    """Two affine maps with an exact gelu between them.

    Parameters: `up` `[d, width]`, `down` `[width, d]`, each a `Dense`.
    """

    width: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> jax.Array:
        """Map `[b, t, d]` to `[b, t, d]` float32."""
        hidden = gelu(Dense(self.width, dtype=self.dtype, name="up")(x_btd))
        return Dense(x_btd.shape[-1], dtype=self.dtype, name="down")(hidden)
