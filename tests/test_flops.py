"""The analytic counter: by hand, against PyTorch's counter, and the paper's figure."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import PartitionSpec

from memejax import parallel, profile
from memejax.models import distilbert, fusion, layers, resnet, vit
from memejax.models.maskrcnn import MaskRCNN

FLOAT, INT = jnp.float32, jnp.int32


def array(*shape, dtype=FLOAT):
    return jax.ShapeDtypeStruct(shape, dtype)


def convolve(x, kernel, *, stride=1, padding=0, groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def flops(fn, *args, **more):
    return profile.count(fn, *args, **more).flops


def test_product():
    counted = profile.count(jnp.matmul, array(3, 4), array(4, 5))
    [operation] = counted.operations
    assert operation == profile.Operation(
        "dot_general",
        module="",
        kind="matmul",
        calls=1,
        flops=2 * 3 * 4 * 5,
        bytes_in=4 * (3 * 4 + 4 * 5),
        bytes_out=4 * 3 * 5,
    )
    # 7 products of [3, 4] with [4, 5].
    assert flops(jnp.matmul, array(7, 3, 4), array(7, 4, 5)) == 7 * 120


def test_half_the_bytes():
    x = array(8, 8, dtype=jnp.bfloat16)
    [operation] = profile.count(lambda x: x @ x, x).operations
    assert (operation.bytes_in, operation.bytes_out) == (2 * 2 * 64, 2 * 64)


@pytest.mark.parametrize(
    ("fn", "expected", "kind"),
    [
        (jnp.exp, 12, "elementwise"),
        (lambda x: x + x, 12, "elementwise"),
        (lambda x: x > 0, 0, "elementwise"),
        (lambda x: x.sum(axis=0), 12, "reduction"),
        (lambda x: lax.cumsum(x), 12, "reduction"),
        (lambda x: x.astype(jnp.bfloat16), 0, "copy"),
        (lambda x: x.T, 0, "copy"),
        (lambda x: x[1:], 0, "copy"),
        # Windows of 2 x 2 at 2 x 3 places.
        (
            lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 1), "VALID"),
            24,
            "reduction",
        ),
        # Two rows of four are added to rows of another array.
        (
            lambda x: jnp.zeros((9, 4)).at[jnp.array([1, 1])].add(x[:2]),
            8,
            None,
        ),
    ],
)
def test_one_operation(fn, expected, kind):
    counted = profile.count(fn, array(3, 4))
    assert counted.flops == expected
    assert kind is None or list(counted.by_class()) == [kind]


def test_integers_are_no_floating_point_operations():
    assert flops(lambda x: x * x + x, array(5, dtype=INT)) == 0
    key = jax.eval_shape(jax.random.key, 0)
    counted = profile.count(lambda key: jax.random.bits(key, (10,)), key)
    assert counted.flops == 0
    assert not counted.uncounted


def test_a_slice_reads_what_it_takes():
    counted = profile.count(lambda x: x[:10], array(1000))
    [operation] = counted.operations
    assert (operation.bytes_in, operation.bytes_out) == (40, 40)


def test_strided_padded_convolution():
    # 9 pixels, padding 1, taps 3, stride 2: 5 places, with every tap at all of them.
    x, kernel = array(2, 9, 9, 3), array(3, 3, 3, 8)
    counted = profile.count(functools.partial(convolve, stride=2, padding=1), x, kernel)
    assert counted.by_class()["convolution"].flops == 2 * 2 * 5 * 5 * 8 * 3 * 3 * 3


def test_grouped_convolution():
    x, kernel = array(2, 8, 8, 12), array(3, 3, 4, 6)
    fn = functools.partial(convolve, padding=1, groups=3)
    # A value of the result sums over the 4 channels of its group.
    assert flops(fn, x, kernel) == 2 * 2 * 8 * 8 * 6 * 4 * 3 * 3


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    side=st.integers(3, 12),
    half=st.integers(0, 2),
    stride=st.integers(1, 3),
    groups=st.integers(1, 3),
    channels=st.integers(1, 3),
)
def test_gradient_of_a_convolution_is_twice_its_forward(
    side, half, stride, groups, channels
):
    taps = 2 * half + 1
    x = array(2, side, side, groups * channels)
    kernel = array(taps, taps, channels, groups * 2)
    fn = functools.partial(convolve, stride=stride, padding=half, groups=groups)
    places = (side - 1) // stride + 1
    forward = 2 * 2 * places**2 * groups * 2 * channels * taps**2

    def loss(x, kernel):
        return fn(x, kernel)[0, 0, 0, 0]

    grad = profile.count(jax.value_and_grad(loss, argnums=(0, 1)), x, kernel)
    assert grad.by_class()["convolution"].flops == 3 * forward


def test_gradient_of_a_chain_of_products_is_three_times_its_forward():
    x, a, b = array(16, 8), array(8, 32), array(32, 4)

    def loss(x, a, b):
        return (x @ a @ b)[0, 0]

    forward = 2 * 16 * 8 * 32 + 2 * 16 * 32 * 4
    grad = profile.count(jax.value_and_grad(loss, argnums=(0, 1, 2)), x, a, b)
    assert grad.by_class()["matmul"].flops == 3 * forward


def test_rematerialised_work_is_counted():
    x, a = array(4, 4), array(4, 4)

    @jax.checkpoint
    def block(x, a):
        return jnp.sin(x @ a)

    grad = jax.value_and_grad(lambda x, a: block(x, a).sum(), argnums=(0, 1))
    # Forward, forward again, and two backward.
    assert profile.count(grad, x, a).by_class()["matmul"].flops == 4 * 2 * 4**3


def test_scan_is_counted_as_often_as_it_runs():
    def step(carry, w):
        return jnp.tanh(carry @ w), None

    def fn(x, ws):
        return lax.scan(step, x, ws)[0]

    counted = profile.count(fn, array(2, 3), array(7, 3, 3))
    assert counted.flops == 7 * (2 * 2 * 3 * 3 + 2 * 3)
    assert counted.by_primitive()["dot_general"].calls == 7
    nested = profile.count(
        lambda x, ws: lax.map(lambda x: fn(x, ws), x), array(5, 2, 3), array(7, 3, 3)
    )
    assert nested.flops == 5 * counted.flops
    assert not nested.loops


def test_while_is_counted_once_and_named():
    def fn(x):
        return lax.while_loop(lambda x: x[0, 0] < 3.0, lambda x: x @ x, x)

    counted = profile.count(fn, array(4, 4))
    assert counted.by_class()["matmul"].flops == 2 * 4**3
    assert counted.loops == ("(no module)",)


def test_cond_has_its_largest_branch():
    def fn(flag, x):
        return lax.cond(flag, lambda x: x @ x @ x, lambda x: jnp.sin(x @ x), x)

    assert flops(fn, array(dtype=bool), array(4, 4)) == 2 * 2 * 4**3


def test_nested_calls_are_followed():
    @jax.custom_vjp
    def square(x):
        return x @ x

    square.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x.T + x.T @ g,))

    @jax.jit
    def inner(x):
        return nn.relu(square(x))

    # relu is a custom_jvp: 16 comparisons that keep floats.
    assert flops(jax.jit(lambda x: inner(x)), array(4, 4)) == 2 * 4**3 + 16
    both = jax.value_and_grad(lambda x: square(x)[0, 0])
    assert profile.count(both, array(4, 4)).by_class()["matmul"].flops == 3 * 2 * 4**3


def test_what_nobody_reads_is_left_out():
    @jax.jit
    def both(x):
        return x @ x, x @ x @ x

    def fn(x):
        jnp.sin(x)
        return both(x)[0]

    assert flops(fn, array(4, 4)) == 2 * 4**3

    # In a loop, what one turn does not read the next one may.
    def step(carry, _):
        a, b = carry
        return (b, a @ a), None

    def loop(x):
        return lax.scan(step, (x, x), None, length=3)[0][0]

    assert flops(loop, array(4, 4)) == 3 * 2 * 4**3


def test_a_gradient_that_nobody_reads():
    """In bfloat16 the gradient rule of a product is the layers' own."""

    def loss(w, x):
        return layers.contract("ri,io->ro", x, b=w, dtype=jnp.bfloat16)[0, 0]

    counted = profile.count(jax.value_and_grad(loss), array(8, 2), array(4, 8))
    assert counted.by_class()["matmul"].flops == 2 * 2 * 4 * 8 * 2


def test_what_has_no_rule_is_named():
    counted = profile.count(lambda x: jnp.linalg.svd(x, compute_uv=False), array(4, 4))
    assert counted.uncounted == {"svd": 1}
    assert counted.by_class()["other"].flops == 0


def test_all_devices_of_a_shard_map_count():
    mesh = parallel.mesh(4)
    split, whole = PartitionSpec("data"), PartitionSpec()

    def fn(x, w):
        return lax.psum((x @ w).sum(axis=0), "data")

    mapped = jax.shard_map(fn, mesh=mesh, in_specs=(split, whole), out_specs=whole)
    counted = profile.count(mapped, array(8, 4), array(4, 6))
    assert counted.by_class()["matmul"].flops == 2 * 8 * 4 * 6
    assert counted.by_class()["collective"].calls == 4


class Net(nn.Module):
    """A normalisation, a convolution by a product, and a head in a method."""

    def setup(self):
        self.norm = layers.LayerNorm()
        self.conv = layers.Conv(4, size=1)
        self.head = layers.Dense(2)

    def classify(self, x):
        return self.head(x)

    def __call__(self, x):
        return self.classify(jnp.exp(self.conv(self.norm(x))).mean(axis=(1, 2)))


def counted_net(fn):
    x = array(2, 5, 5, 3)
    variables = jax.eval_shape(Net().init, jax.random.key(0), x)
    return profile.count(fn, variables, x)


def test_modules_by_path_and_class():
    counted = counted_net(Net().apply)
    modules = counted.by_module()
    assert set(modules) == {"Net", "Net/norm", "Net/conv", "Net/head"}
    assert modules["Net/head"].flops == 2 * 2 * 4 * 2 + 2 * 2
    classes = counted.by_class()
    # The product of a convolution of 1 x 1 is a convolution, that of the head not.
    assert classes["convolution"].flops == 2 * 2 * 5 * 5 * 3 * 4
    assert classes["matmul"].flops == 2 * 2 * 4 * 2
    assert classes["normalisation"].flops == modules["Net/norm"].flops > 0
    for groups in (classes, modules, counted.by_primitive(), counted.by_module(1)):
        assert sum(total.flops for total in groups.values()) == counted.flops
    assert list(counted.by_module(1)) == ["Net"]


def test_modules_of_a_gradient():
    net = Net()

    def loss(variables, x):
        return net.apply(variables, x)[0, 0]

    counted = counted_net(jax.jit(jax.value_and_grad(loss, argnums=(0, 1))))
    forward = counted_net(net.apply)
    for kind in ("convolution", "matmul"):
        total = counted.by_class()[kind].flops
        assert total == 3 * forward.by_class()[kind].flops
    assert counted.by_module()["Net/conv"].flops == 3 * 2 * 2 * 5 * 5 * 3 * 4


def test_a_scope_without_a_module():
    def fn(x):
        with jax.named_scope("<optimizer>"):
            return jnp.sin(x)

    assert list(profile.count(fn, array(3)).by_module()) == ["optimizer"]


@pytest.mark.parametrize(
    ("platform", "primitive"),
    [("cpu", "dot_general"), ("cuda", "conv_general_dilated")],
)
def test_branch_of_the_platform(platform, primitive):
    conv = layers.Conv(8, size=3, padding=1)
    x = array(2, 6, 6, 3)
    variables = jax.eval_shape(conv.init, jax.random.key(0), x)
    counted = profile.count(conv.apply, variables, x, platform=platform)
    convolutions = [o for o in counted.operations if o.kind == "convolution"]
    assert [o.primitive for o in convolutions] == [primitive]
    # Written as a convolution or as a product, it is the same work.
    assert counted.flops == 2 * 2 * 6 * 6 * 8 * 3 * 3 * 3


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 4])
def test_convolutions_as_pytorch_counts_them(stride, groups):
    torch = pytest.importorskip("torch")
    flop_counter = pytest.importorskip("torch.utils.flop_counter")
    x = torch.zeros(2, 8, 10, 10, requires_grad=True)
    kernel = torch.zeros(12, 8 // groups, 3, 3, requires_grad=True)
    with flop_counter.FlopCounterMode(display=False) as theirs:
        out = torch.nn.functional.conv2d(
            x, kernel, stride=stride, padding=1, groups=groups
        )
        forward = theirs.get_total_flops()
        out.sum().backward()
    fn = functools.partial(convolve, stride=stride, padding=1, groups=groups)
    args = array(2, 10, 10, 8), array(3, 3, 8 // groups, 12)
    assert flops(fn, *args) == forward
    grad = jax.value_and_grad(lambda *args: fn(*args)[0, 0, 0, 0], argnums=(0, 1))
    ours = profile.count(grad, *args).by_class()["convolution"].flops
    if groups == 1:
        assert ours == theirs.get_total_flops()
    # Of grouped ones PyTorch's counter takes the gradient of the kernel for a dense
    # one; by the definition a gradient has twice the forward's work.
    assert ours == 3 * forward


def test_figure_4_of_the_paper():
    """Batch 4, 384 pixels, 88 tokens, two DistilBERTs: its profiler's FLOPs."""
    arms = fusion.Arms(
        {
            "cnn": fusion.Arm(resnet.ResNet(), distilbert.DistilBert()),
            "vit": fusion.Arm(
                vit.ViT(**vit.VITS["vit_base"], grid=24), distilbert.DistilBert()
            ),
        }
    )
    batch = {
        "image": array(4, 384, 384, 3),
        "input_ids": array(4, 88, dtype=INT),
        "attention_mask": array(4, 88, dtype=INT),
    }
    views = {"cnn": batch, "vit": batch}
    forward = functools.partial(arms.apply, train=False, method="project")
    start = functools.partial(arms.init, train=False, method="project")
    variables = jax.eval_shape(start, jax.random.key(0), views)
    counted = profile.count(forward, variables, views)
    convolution = counted.by_class()["convolution"]
    assert convolution.calls == 54
    assert round(convolution.flops / 1e6, 3) == 98_807.316
    products = [o for o in counted.operations if o.kind == "matmul"]
    # Between tokens, of all tokens, and of one vector a caption or picture.
    attention = sum(o.flops for o in products if o.module.endswith("/attention"))
    encoders = sum(o.flops for o in products if "_encoder/" in o.module) - attention
    rest = sum(o.flops for o in products) - attention - encoders
    assert round(attention / 1e6, 3) == 50_234.278
    assert round(encoders / 1e6, 2) == 451_852.37
    assert round(rest / 1e6, 3) == 24.232
    # Beside products the paper's profiler counted the factor on attention's logits
    # (12 layers and heads, 577 tokens) and 51.342 MFLOP of additions.
    scale, additions = 12 * 4 * 12 * 577**2, 51.342e6
    everything = convolution.flops + sum(o.flops for o in products) + scale + additions
    assert f"{convolution.flops / everything:.2%}" == "16.44%"


def multiply_adds(module, *args):
    variables = jax.eval_shape(module.init, jax.random.key(0), *args)
    classes = profile.count(module.apply, variables, *args).by_class()
    return (classes["convolution"].flops + classes["matmul"].flops) / 2


class Classifier(nn.Module):
    """An encoder and ImageNet's 1000 classes."""

    encoder: nn.Module

    @nn.compact
    def __call__(self, images):
        return nn.Dense(1000)(self.encoder(images, train=False))


@pytest.mark.parametrize(
    ("encoder", "billions"), [(resnet.ResNet(), 4.09), (vit.ViT(), 17.56)]
)
def test_published_counts_at_224_pixels(encoder, billions):
    count = multiply_adds(Classifier(encoder), array(1, 224, 224, 3))
    assert round(count / 1e9, 2) == billions


def test_published_count_of_mask_rcnn():
    """At 800 x 800 pixels, 1000 proposals and no object found, so no mask."""
    args = array(1, 800, 800, 3), array(1, 2, dtype=INT)
    assert round(multiply_adds(MaskRCNN(masks=False), *args) / 1e9, 2) == 134.38


def test_nothing_is_computed():
    def fn(x):
        return x @ x

    # 4 TB, if it were.
    assert flops(fn, array(10**6, 10**6)) == 2 * 10**18
    assert flops(fn, np.zeros((3, 3), np.float32)) == 54
