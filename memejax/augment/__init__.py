"""Random augmentation on the device, as pure functions of (keys, images).

Images are float32 `[b, h, w, 3]` in [0, 1], before and after. Keys are typed PRNG keys
`[b]`, one per example (`example_keys`): a view depends only on its own key and image,
so it is the same in any batch and on any device. Strengths are Python numbers: an
operation without effect is omitted when the function is traced.
Axes: b examples, h rows, w columns, c channels; y rows and x columns of a crop or a
warp; v the crops of an example.

    keys.py      per-example keys and random numbers
    geometry.py  crop, shift, flip, perspective, affine
    warp.py      the sampling behind the last two
    color.py     jitter, grayscale, noise, blur, solarize; conversion, normalisation
    tokens.py    token dropout for captions
    view.py      a complete view of an image
    crops.py     DINO's multi-crop
"""

from memejax.augment.color import color_jitter as color_jitter
from memejax.augment.color import gaussian_blur as gaussian_blur
from memejax.augment.color import gaussian_noise as gaussian_noise
from memejax.augment.color import normalize as normalize
from memejax.augment.color import random_grayscale as random_grayscale
from memejax.augment.color import solarize as solarize
from memejax.augment.color import to_float as to_float
from memejax.augment.crops import multi_crop as multi_crop
from memejax.augment.geometry import random_affine as random_affine
from memejax.augment.geometry import random_flip as random_flip
from memejax.augment.geometry import random_perspective as random_perspective
from memejax.augment.geometry import random_resized_crop as random_resized_crop
from memejax.augment.geometry import random_shift as random_shift
from memejax.augment.keys import example_keys as example_keys
from memejax.augment.tokens import token_dropout as token_dropout
from memejax.augment.view import cass_view as cass_view
from memejax.augment.view import random_view as random_view
from memejax.augment.warp import affine_matrix as affine_matrix
from memejax.augment.warp import perspective_matrix as perspective_matrix
from memejax.augment.warp import warp as warp
