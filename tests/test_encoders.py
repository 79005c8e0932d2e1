"""What encoders have in common: how they are configured, and what is known of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from memejax import models
from memejax.data.text import shorten

VIT = models.ViT(hidden=8, layers=3, heads=2, mlp=8, patch=4, dropout=0.1)
RESNET = models.ResNet(stage_sizes=(3, 2), bottleneck=False, width=4)
LITE = models.EfficientNetLite(
    stage_sizes=(3, 2, 1, 1, 1, 1, 1),
    widths=(2, 3, 4, 5, 6, 7, 8),
    stem_width=2,
    features=9,
)
BERT = models.DistilBert(vocab_size=9, hidden=8, layers=3, heads=2, mlp=8)
WORDS = models.AveragedWords(vocab_size=9, hidden=4)
CLIP = dict(hidden=8, layers=3, heads=2, mlp=8, projection=6)
CLIP_VISION = models.ClipVision(patch=4, **CLIP)
CLIP_TEXT = models.ClipText(vocab_size=9, **CLIP)
ENCODERS = [VIT, RESNET, LITE, BERT, WORDS, CLIP_VISION, CLIP_TEXT]


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: e.family)
def test_all_are_made_with_the_same_names(encoder):
    names = {"dtype", "remat"}
    if isinstance(encoder, models.ImageEncoder):
        names |= {"axis_name"}
        assert encoder.explained_by in ("attention", "probe_attention", "grad_cam")
    fields = {field.name for field in dataclasses.fields(encoder)}
    assert names <= fields
    # What is known of a class is no parameter of it.
    assert not {"family", "explained_by", "distinct_blocks"} & fields


def shapes(encoder):
    def init(*inputs):
        return encoder.init(jax.random.key(0), *inputs, train=False)

    return traverse_util.flatten_dict(
        jax.eval_shape(init, *encoder.smallest_inputs()), sep="/"
    )


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: e.family)
def test_blocks_are_where_they_are_said_to_be(encoder):
    """Names by `block_counts`; all from the last distinct one on are alike."""
    found = shapes(encoder)
    blocks = {name.split("/")[1] for name in found if "block" in name.split("/")[1]}
    counts = encoder.block_counts()
    assert blocks == {f"{stage}{i}" for stage, n in counts.items() for i in range(n)}

    def of_block(name):
        return {
            path.split("/", 2)[2]: leaf.shape
            for path, leaf in found.items()
            if path.split("/")[1] == name
        }

    last = encoder.distinct_blocks - 1
    for stage, n in counts.items():
        for i in range(last + 1, n):
            assert of_block(f"{stage}{i}") == of_block(f"{stage}{last}")
    few = shapes(encoder.with_blocks(1))
    kept = {f"{stage}0" for stage in counts}
    assert {name.split("/")[1] for name in few if "block" in name} == kept
    assert few == {
        name: leaf
        for name, leaf in found.items()
        if name.split("/")[1] in kept or name.split("/")[1] not in blocks
    }


def test_a_vit_is_for_images_of_a_size():
    assert VIT.for_images(24) == VIT.clone(grid=6)
    with pytest.raises(ValueError, match="images of 30 pixels .* patches of 4"):
        VIT.for_images(30)
    assert RESNET.for_images(30) == RESNET
    assert LITE.for_images(30) == LITE


def test_what_a_student_drops_a_teacher_does_not():
    student, teacher = VIT.with_drop_path(0.2), VIT.without_dropout()
    assert student == VIT.clone(drop_path=0.2)
    assert teacher == VIT.clone(drop_path=0.0, dropout=0.0)
    assert student.without_dropout() == teacher
    assert RESNET.with_drop_path(0.2).without_dropout() == RESNET
    assert LITE.with_drop_path(0.2) == LITE.clone(drop_path=0.2)
    assert LITE.clone(drop_path=0.2, dropout=0.1).without_dropout() == LITE


def test_attributes_without_a_use_change_nothing():
    """Neither outputs nor the program: an axis that no one maps is never looked up."""
    images = jnp.linspace(-1, 1, 2 * 8 * 8 * 3).reshape(2, 8, 8, 3)
    ids = jnp.arange(6).reshape(2, 3)
    for module, other, inputs in (
        (VIT, VIT.clone(axis_name="nowhere"), (images,)),
        (WORDS, WORDS.clone(remat=True), (ids, jnp.ones_like(ids))),
    ):
        variables = module.init(jax.random.key(0), *inputs, train=False)
        programs = [
            str(jax.make_jaxpr(lambda v, m=m, x=inputs: m.apply(v, *x, train=False))(v))
            for m, v in ((module, variables), (other, variables))
        ]
        assert programs[0] == programs[1]


def test_the_base_knows_no_inputs():
    class Unknown(models.Encoder):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.Dense(1)(x)

    with pytest.raises(NotImplementedError):
        Unknown().smallest_inputs()
    assert Unknown().block_counts() == {}


@pytest.mark.parametrize("encoder", [BERT, CLIP_TEXT], ids=lambda e: e.family)
def test_captions_with_less_padding_have_the_same_features(encoder):
    assert encoder.gains_by_shortening()
    encoder = encoder.clone(max_length=40)
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 9, (2, 40)).astype(np.int32)
    mask = (np.arange(40) < np.array([[9], [16]])).astype(np.int32)
    variables = encoder.init(jax.random.key(0), ids, mask, train=False)

    def pooled(ids, mask, pooling):
        tokens = encoder.apply(variables, ids, mask, train=False)
        return encoder.pool(tokens, mask, pooling=pooling)

    for pooling in ("cls", "mean"):
        np.testing.assert_allclose(
            pooled(*shorten(ids, mask), pooling),
            pooled(ids, mask, pooling),
            rtol=1e-5,
            atol=1e-6,
        )


def test_captions_of_others_keep_their_padding():
    """SigLIP reads it, and word vectors are as quick with it."""
    siglip = models.SiglipText(vocab_size=9, **CLIP)
    assert not siglip.gains_by_shortening() and not WORDS.gains_by_shortening()
