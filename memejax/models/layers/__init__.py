"""Layers shared by the encoders.

Parameters are float32. Products run in `dtype` and accumulate in float32, forward
and backward; everything between them (softmax, normalisation, residual sums, gelu)
is float32.

    products.py       products in a given dtype, with gradients that run in it too
    dense.py          affine maps, and a transformer's MLP with its gelu
    convolution.py    convolutions, as products or sums where that is faster
    normalization.py  BatchNorm, LayerNorm
    attention.py      multi-head self-attention
    dropout.py        dropout, as a function and as a module
    blocks.py         rematerialisation of a block
    shapes.py         checks of images, patches, vectors to broadcast
    kinds.py          type aliases for module fields
"""

from memejax.models.layers.attention import MASKED as MASKED
from memejax.models.layers.attention import Attention as Attention
from memejax.models.layers.blocks import apply_block as apply_block
from memejax.models.layers.convolution import FEW_CHANNELS as FEW_CHANNELS
from memejax.models.layers.convolution import FEW_POSITIONS as FEW_POSITIONS
from memejax.models.layers.convolution import Conv as Conv
from memejax.models.layers.convolution import DepthwiseConv as DepthwiseConv
from memejax.models.layers.convolution import convolve as convolve
from memejax.models.layers.convolution import convolve_by_product as convolve_by_product
from memejax.models.layers.convolution import convolve_by_shifts as convolve_by_shifts
from memejax.models.layers.convolution import pad_same as pad_same
from memejax.models.layers.dense import ACTIVATIONS as ACTIVATIONS
from memejax.models.layers.dense import Dense as Dense
from memejax.models.layers.dense import Mlp as Mlp
from memejax.models.layers.dense import gelu as gelu
from memejax.models.layers.dropout import Dropout as Dropout
from memejax.models.layers.dropout import dropout as dropout
from memejax.models.layers.kinds import Dtype as Dtype
from memejax.models.layers.kinds import Initializer as Initializer
from memejax.models.layers.normalization import BatchNorm as BatchNorm
from memejax.models.layers.normalization import LayerNorm as LayerNorm
from memejax.models.layers.normalization import unit_rows as unit_rows
from memejax.models.layers.products import contract as contract
from memejax.models.layers.products import pointwise as pointwise
from memejax.models.layers.shapes import add_leading_axes as add_leading_axes
from memejax.models.layers.shapes import check_images as check_images
from memejax.models.layers.shapes import extract_patches as extract_patches
