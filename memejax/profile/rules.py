"""FLOPs, bytes and class of an operation.

FLOPs, two for a multiply-add:

| operation | FLOPs |
|---|---|
| `dot_general` | 2 x elements of the result x length of the sum |
| `conv_general_dilated` | 2 x elements of the result x taps x channels in per group |
| elementwise, of floats | elements of the result |
| reduction, cumulation | elements of the operand |
| reduction of windows | elements of the result x elements of a window |
| comparisons, selections, integers, random bits, copies, casts | 0 |

A convolution counts all its taps everywhere, even in the padding, as PyTorch's counters
do. Over a dilated input (the gradient of a strided convolution) it has as many
positions as the input has values: products with the zeros between them do not count.

Classes: a product counts as convolution in a convolution module (`CONVOLUTIONS`): a
convolution of 1 x 1, or one over patches, is written as a product here. Arithmetic in
a normalisation module (`NORMALISATIONS`) is normalisation.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

CLASSES = (
    "convolution",
    "matmul",
    "normalisation",
    "elementwise",
    "reduction",
    "copy",
    "collective",
    "other",
)
# By name: models are not imported here.
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "Patches", "Doubling"})
NORMALISATIONS = frozenset(
    {"BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm"}
)

_ELEMENTWISE = frozenset(
    "abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e "
    "cbrt ceil clamp clz complex conj cos cosh digamma div eq eq_to erf erf_inv erfc "
    "exp exp2 expm1 floor ge gt igamma igammac imag integer_pow is_finite le le_to "
    "lgamma log log1p logistic lt lt_to max min mul ne neg nextafter not or pow real "
    "rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical "
    "population_count sign sin sinh sqrt square sub tan tanh xor".split()
)
_REDUCTIONS = frozenset(
    "argmax argmin cumlogsumexp cummax cummin cumprod cumsum reduce reduce_and "
    "reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor".split()
)
_WINDOWS = frozenset(
    "reduce_window reduce_window_max reduce_window_min reduce_window_sum "
    "select_and_gather_add select_and_scatter select_and_scatter_add".split()
)
_SCATTERS = frozenset(
    "scatter-add scatter-max scatter-min scatter-mul scatter-sub".split()
)
_COPIES = frozenset(
    "after_all bitcast_convert_type broadcast_in_dim concatenate convert_element_type "
    "copy copy_p create_token device_put dynamic_slice dynamic_update_slice empty "
    "empty2 expand_dims gather iota mesh_cast name optimization_barrier pad pcast "
    "platform_index pvary reduce_precision reshape reshard rev scatter "
    "sharding_constraint slice sort split squeeze stack stop_gradient tile top_k "
    "transpose unstack".split()
)
_RANDOM = frozenset(
    "random_bits random_clone random_fold_in random_seed random_split random_unwrap "
    "random_wrap rng_bit_generator rng_uniform threefry2x32".split()
)
_COLLECTIVES = frozenset(
    "all_gather all_gather_invariant all_gather_reduced all_to_all pbroadcast pmax "
    "pmin ppermute psum psum_invariant psum2 psum_scatter ragged_all_to_all "
    "reduce_scatter unreduced_psum unreduced_reduce_scatter".split()
)
# Their result is a part of their first operand.
_PARTS = frozenset({"dynamic_slice", "gather", "slice"})
# Not arithmetic, though their results may be floats.
_CHOICES = frozenset({"select_n", "complex", "conj", "imag", "real"})


def kind(primitive: str, *, module: str) -> str:
    """Class of an operation, one of CLASSES.

    Args:
        primitive: name of the operation in a jaxpr.
        module: class of the innermost module around it.
    """
    if primitive == "conv_general_dilated":
        return "convolution"
    if primitive == "dot_general":
        return "convolution" if module in CONVOLUTIONS else "matmul"
    for names, name in (
        # Random bits are integer arithmetic.
        (_ELEMENTWISE | _RANDOM, "elementwise"),
        (_REDUCTIONS | _WINDOWS | _SCATTERS, "reduction"),
    ):
        if primitive in names:
            return "normalisation" if module in NORMALISATIONS else name
    if primitive in _COPIES:
        return "copy"
    return "collective" if primitive in _COLLECTIVES else "other"


def flops(eqn: Any) -> int | None:
    """FLOPs of an equation of a jaxpr; None if there is no rule.

    Args:
        eqn: an equation without inner jaxprs.
    """
    name = eqn.primitive.name
    if name == "dot_general":
        return _product(eqn)
    if name == "conv_general_dilated":
        return _convolution(eqn)
    result = eqn.outvars[0].aval if eqn.outvars else None
    if name in _COPIES or name in _RANDOM or name in _CHOICES or name in _COLLECTIVES:
        return 0
    if name in _ELEMENTWISE:
        return _elements(result)
    if name in _REDUCTIONS:
        return _elements(eqn.invars[0].aval)
    if name in _SCATTERS:
        return _elements(eqn.invars[2].aval)
    if name in _WINDOWS:
        window = eqn.params["window_dimensions"]
        # For a gradient, the windows are those of the operand.
        source = result if name.startswith("reduce") else eqn.invars[0].aval
        return _elements(source) * math.prod(window)
    return None


def moved(eqn: Any) -> tuple[int, int]:
    """Bytes that an equation reads and writes; 0 for values without a shape."""
    written, given = _size(eqn.outvars), eqn.invars
    if eqn.primitive.name not in _PARTS:
        return _size(given), written
    # Only the part that is taken is read from the array.
    return min(_size(given[:1]), written) + _size(given[1:]), written


def _size(variables: Any) -> int:
    return sum(
        math.prod(v.aval.shape) * v.aval.dtype.itemsize
        for v in variables
        if hasattr(v.aval, "shape") and hasattr(v.aval, "dtype")
    )


def _elements(aval: Any) -> int:
    """Number of elements of a float array; 0 for integers, booleans and keys."""
    return math.prod(aval.shape) if jnp.issubdtype(aval.dtype, jnp.inexact) else 0


def _product(eqn: Any) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    length = math.prod(shape[i] for i in contracted)
    return 2 * math.prod(eqn.outvars[0].aval.shape) * length


def _convolution(eqn: Any) -> int:
    numbers = eqn.params["dimension_numbers"]
    source, kernel = (v.aval.shape for v in eqn.invars[:2])
    out = eqn.outvars[0].aval.shape
    # Batch and features first, then the spatial axes.
    batch, features, *places = numbers.out_spec
    _, _, *given = numbers.lhs_spec
    _, channels, *taps = numbers.rhs_spec
    positions = (
        source[i] if dilation > 1 else out[o]
        for i, o, dilation in zip(
            given, places, eqn.params["lhs_dilation"], strict=True
        )
    )
    each = kernel[channels] * math.prod(kernel[i] for i in taps)
    return 2 * out[batch] * out[features] * math.prod(positions) * each
