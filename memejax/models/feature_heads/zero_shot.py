"""Zero-shot classification by prompts, with CLIP or SigLIP and nothing trained.

Shape suffixes: `t` templates, `b` batch, `c` classes, `d` features of the space that
pictures and captions share.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from memejax.models.layers import unit_rows


def zero_shot_logits(
    image_projected_bd: jax.Array,
    class_text_projected_cd: jax.Array,
    *,
    hateful: Sequence[bool],
    logit_scale: float | jax.Array,
) -> jax.Array:
    """Compute the log odds of the hateful prompts against the benign ones.

        z_bc = exp(logit_scale) cos(v_b, t_c)
        logit_b = log sum_{c hateful} exp z_bc - log sum_{c benign} exp z_bc

    For CLIP this is the log odds of the summed softmax probabilities. SigLIP gives each
    prompt its own sigmoid of `z + logit_bias`. With one prompt per side, the difference
    of their log odds is the same formula, and the bias cancels. The hateful prompt's
    own log odds are not used: the bias (-10 at the start of training) is that of one
    caption among thousands, so that hardly a meme would pass a threshold of 0, and a
    prompt that fits every meme would not be corrected by its counterpart.

    Args:
        image_projected_bd: projected features of pictures, float `[b, d]`, of any
            length; a zero vector has the cosine 0 to all prompts.
        class_text_projected_cd: projected features of prompts, float `[c, d]`; for
            several templates per class see `ensemble_prompts`.
        hateful: whether each of the c prompts stands for "hateful"; both kinds occur.
        logit_scale: the checkpoint's `logit_scale`, the logarithm of the factor.

    Returns:
        float32 `[b]`.

    Raises:
        ValueError: if the shapes do not fit, or all prompts are of one kind.

    References:
        Radford et al., CLIP, arXiv 2103.00020, 3.1; Zhai et al., SigLIP,
        arXiv 2303.15343.
    """
    shapes = image_projected_bd.shape, class_text_projected_cd.shape
    if [len(s) for s in shapes] != [2, 2] or shapes[0][1] != shapes[1][1]:
        raise ValueError(
            f"got images {list(shapes[0])} and prompts {list(shapes[1])}, expected "
            "[b, d] and [c, d]"
        )
    kinds = [bool(kind) for kind in hateful]
    if len(kinds) != shapes[1][0] or len(set(kinds)) != 2:
        raise ValueError(
            f"got hateful {kinds} for {shapes[1][0]} prompts, expected one value per "
            "prompt, and both kinds"
        )
    images = unit_rows(jnp.asarray(image_projected_bd, jnp.float32))
    prompts = unit_rows(jnp.asarray(class_text_projected_cd, jnp.float32))
    # Full float32: exp(4.6) = 100 times TF32's error of 1e-3 would be a tenth.
    cosines = jnp.matmul(images, prompts.T, precision=lax.Precision.HIGHEST)
    logits_bc = jnp.exp(jnp.asarray(logit_scale, jnp.float32)) * cosines
    sides = [
        jax.nn.logsumexp(logits_bc[:, [i for i, k in enumerate(kinds) if k is kind]], 1)
        for kind in (True, False)
    ]
    return sides[0] - sides[1]


def ensemble_prompts(text_projected_tcd: jax.Array) -> jax.Array:
    """Average the embeddings of several templates per class.

    `e_c = u(mean_t u(x_tc))` with u(x) = x / |x|.

    Args:
        text_projected_tcd: projected features of each class in each template, float
            `[t, c, d]`, t >= 1.

    Returns:
        float32 `[c, d]` of unit length, or zero if the templates cancel.

    Raises:
        ValueError: if the shape does not fit.

    References:
        Radford et al., CLIP, arXiv 2103.00020, 3.1.4.
    """
    if text_projected_tcd.ndim != 3 or not len(text_projected_tcd):
        raise ValueError(
            f"got features {list(text_projected_tcd.shape)}, expected [t, c, d], t >= 1"
        )
    units_tcd = unit_rows(jnp.asarray(text_projected_tcd, jnp.float32))
    return unit_rows(jnp.mean(units_tcd, axis=0))
