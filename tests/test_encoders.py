"""What encoders have in common: how they are configured, and what is known of them."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from flax import traverse_util

from memejax import models

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
