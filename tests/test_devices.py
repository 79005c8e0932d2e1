"""One computation, however many devices it is split over and in whichever way."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from support import ROOT, tiny

from memejax import optim, parallel, steps
from memejax.checkpoint import Checkpoints
from memejax.config import load_config
from memejax.models import distilbert, fusion, heads, image, resnet, vit, words
from memejax.parallel import device_placement, xla
from memejax.stages import finetune, pretrain
from memejax.stages.parts import models, training
from memejax.stages.parts.choices import check_parallel
from memejax.stages.parts.training import devices
from memejax.steps import views

B, SIDE, TOKENS, WIDTH, PROTOTYPES, STEPS = 16, 8, 4, 8, 6, 5
KEY = jax.random.key(3)
# Arrays from which FSDP divides, so that there are some here.
SMALLEST = 32


def batch(seed):
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.5, 2, B).astype(np.float32)
    # Padding, unevenly over the devices.
    weight[-3:] = 0
    return {
        "image": rng.integers(0, 255, (B, SIDE, SIDE, 3), np.uint8),
        "input_ids": rng.integers(0, 11, (B, TOKENS)).astype(np.int32),
        "attention_mask": np.ones((B, TOKENS), np.int32),
        "label": rng.integers(-1, 2, B).astype(np.int32),
        "index": np.arange(B, dtype=np.int32),
        "draw": np.zeros(B, np.int32),
        "weight": weight,
    }


def remember(rate):
    """Gradient descent whose state is the last gradient."""

    def update(gradients, state, params=None, **_):
        return jax.tree.map(lambda g: -rate * g, gradients), gradients

    return optax.GradientTransformationExtraArgs(
        lambda params: jax.tree.map(jnp.zeros_like, params), update
    )


class Stem(nn.Module):
    """The least with a BatchNorm."""

    axis_name: str | None

    @nn.compact
    def __call__(self, images, *, train):
        unit = resnet.ConvNorm(4, 4, stride=4, axis_name=self.axis_name)
        return nn.relu(unit(images, train=train)).mean((1, 2))


def make_vit():
    return vit.ViT(hidden=8, layers=1, heads=2, mlp=8, patch=4, grid=2)


def make_resnet(axis_name):
    blocks = dict(stage_sizes=(1,), bottleneck=False, width=4, stem="patch4")
    return resnet.ResNet(axis_name=axis_name, **blocks)


def with_text(**images):
    size = dict(image_width=0, embed=WIDTH, fused=WIDTH, out=WIDTH, dropout=0.0)
    return fusion.Arms(
        {
            name: fusion.Arm(encoder, words.AveragedWords(11, hidden=8), **size)
            for name, encoder in images.items()
        }
    )


def crops(_, images):
    """Two global crops and two local ones, nothing of it random."""
    local = images[:, :4, :4], images[:, 4:, 4:]
    return jnp.stack([images, images[:, ::-1]]), jnp.stack(local)


def look(names, augment=None):
    recipe = views.Recipe(mean=(0.4,) * 3, std=(0.3,) * 3, augment=augment)
    return views.make_views(dict.fromkeys(names, recipe))


def multimodal_cass(axis_name):
    arms = with_text(cnn=make_resnet(axis_name), vit=make_vit())
    objective = steps.CassObjective(
        standardize=True, variance=1.0, covariance=0.5, stop_gradient=True
    )
    make = functools.partial(steps.make_cass_step, objective=objective)
    return arms, look(("cnn", "vit")), "project", make


def cass(axis_name):
    # Wider than twice the batch: the covariance is of the examples' products.
    arms = {
        "cnn": image.ImageArm(Stem(axis_name), out=2 * B),
        "vit": image.ImageArm(make_vit(), out=2 * B),
    }
    objective = steps.CassObjective(covariance=0.1)
    make = functools.partial(steps.make_cass_step, objective=objective)
    return fusion.Arms(arms), look(arms), "project", make


def dino(axis_name):
    head = heads.DinoHead(
        PROTOTYPES,
        hidden=8,
        bottleneck=4,
        layers=2,
        batch_norm=True,
        axis_name=axis_name,
    )
    arms = {"cnn": image.DinoArm(Stem(axis_name), head)}
    objective = steps.DinoObjective(
        momentum=optim.cosine(0.9, 1.0, steps=STEPS),
        teacher_temperature=optim.linear_then_constant(
            0.2, 0.5, steps_per_epoch=1, epochs=3
        ),
    )
    make = functools.partial(steps.make_dino_step, objective=objective)
    return fusion.Arms(arms), look(arms, crops), "project", make


def supervised(axis_name):
    arms = with_text(cnn=Stem(axis_name))
    make = functools.partial(steps.make_supervised_step, positive_weight=2.0)
    return arms, look(("cnn",)), "classify", make


def transformer(_):
    """Nothing of it couples the examples of a batch, so that it can be parted."""
    make = functools.partial(steps.make_supervised_step, positive_weight=2.0)
    return with_text(vit=make_vit()), look(("vit",)), "classify", make


OBJECTIVES = {
    f.__name__: f for f in (multimodal_cass, cass, dino, supervised, transformer)
}


@dataclasses.dataclass
class Compiled:
    """A step for a mesh, how to place a state for it, and its program."""

    step: Any
    start: Any
    mesh: Any
    shardings: Any

    @functools.cached_property
    def program(self):
        shapes = jax.eval_shape(self.start), jax.eval_shape(lambda: batch(0))
        return self.step.lower(*shapes).compile(dict(xla.COMPILE_FAST))

    def __call__(self, state, number):
        """One update of a state of another mesh's."""
        state = parallel.put_state(self.mesh, state, shardings=self.shardings)
        data = parallel.put_batch(self.mesh, batch(number))
        return self.program(state, data)


@functools.cache
def compiled(objective, way, accumulate=1):
    """ "one", a device; "jit", "pmap" and "fsdp" are four."""
    mesh = parallel.mesh(1 if way == "one" else 4)
    axis_name = "data" if way == "pmap" else None
    arms, seen, method, make = OBJECTIVES[objective](axis_name)
    apply = functools.partial(arms.apply, method=method)
    if way == "fsdp":
        apply = parallel.gather_parameters(apply, mesh, smallest=SMALLEST)
    tx = remember(0.1)
    more: dict[str, Any] = {}
    if objective in ("multimodal_cass", "cass", "dino"):
        more["panel"] = steps.Panel(2, branch=parallel.can_branch(mesh))
    if objective == "dino":
        more["teacher_fn"] = apply
    step = make(
        apply, tx, views=seen, accumulate=accumulate, axis_name=axis_name, **more
    )

    def start():
        made = seen(None, batch(0), train=False)
        variables = arms.init(KEY, made, train=False, method=method)
        if objective == "dino":
            prototypes = dict.fromkeys(arms.arms, PROTOTYPES)
            return steps.init_dino_state(variables, tx, key=KEY, prototypes=prototypes)
        return steps.init_state(variables, tx, key=KEY)

    if way == "pmap":
        return Compiled(parallel.pmap_step(step, mesh), start, mesh, None)
    shardings = None
    if way == "fsdp":
        shapes = jax.eval_shape(start)
        shardings = parallel.state_shardings(mesh, shapes, smallest=SMALLEST)
    return Compiled(
        parallel.jit_step(step, mesh, shardings=shardings), start, mesh, shardings
    )


@functools.cache
def course(objective):
    """States and metrics of one device: before each update, and after the last."""
    one = compiled(objective, "one")
    first = jax.jit(one.start).lower().compile(dict(xla.COMPILE_FAST))
    states, metrics = [jax.device_get(first())], []
    for number in range(STEPS):
        state, values = jax.device_get(one(states[-1], number))
        states.append(state)
        metrics.append(values)
    return states, metrics


def assert_close(got, expected, tolerance, what):
    """Every leaf to `tolerance` of its largest entry, or a tenth of it of the tree's.

    A gradient that is 0 but for rounding (of a bias before a standardisation) has no
    scale of its own.
    """
    flat = jax.tree_util.tree_leaves_with_path(jax.tree.map(np.abs, expected))
    largest = max((leaf.max() for _, leaf in flat), default=0)
    errors = jax.tree.map(lambda a, b: np.abs(a - b).max(), got, expected)
    for (path, size), error in zip(flat, jax.tree.leaves(errors), strict=True):
        assert error <= tolerance * (size.max() + 0.1 * largest), (what, path, error)


WAYS = [
    *[("multimodal_cass", way, 1) for way in ("jit", "pmap", "fsdp")],
    *[("cass", way, 1) for way in ("jit", "pmap", "fsdp")],
    *[("dino", way, 1) for way in ("jit", "pmap", "fsdp")],
    *[("supervised", way, 1) for way in ("jit", "pmap", "fsdp")],
    *[("transformer", way, 2) for way in ("jit", "pmap")],
]


@pytest.mark.parametrize(("objective", "way", "accumulate"), WAYS)
def test_every_way_is_the_update_of_one_device(objective, way, accumulate):
    states, metrics = course(objective)
    many = compiled(objective, way, accumulate)
    for number in range(STEPS):
        state, values = jax.device_get(many(states[number], number))
        expected = states[number + 1]
        for name, value in metrics[number].items():
            # Panels divide by norms and take logarithms of singular values; the norm of
            # the gradient is that of the optimizer's state, below.
            loose = name == "grad_norm" or ("/" in name and "collapse" in name)
            tolerance = 1e-5 if loose else 1e-6
            np.testing.assert_allclose(
                values[name], value, rtol=tolerance, atol=1e-6, err_msg=name
            )
        # The optimizer's state is the gradient.
        assert_close(state.opt_state, expected.opt_state, 1e-5, number)
        assert_close(state.params, expected.params, 1e-5, number)
        assert_close(state.batch_stats, expected.batch_stats, 1e-6, number)
        if objective == "dino":
            assert_close(state.center, expected.center, 1e-6, number)
            assert_close(state.teacher, expected.teacher, 1e-5, number)
    assert np.isfinite(metrics[-1]["loss"]) and metrics[-1]["grad_norm"] > 1e-3


def linear(variables, made, *, train, rngs, mutable):
    del train, rngs, mutable
    images = made["a"]["image"]
    logits = images.reshape(images.shape[0], -1) @ variables["params"]["w"]
    return {"a": logits[:, 0]}, {}


def linear_step(way, traced, accumulate=1):
    """A step of one matrix, whose tracing is counted, and its state on four devices."""
    mesh, tx = parallel.mesh(4), remember(0.1)
    params = {"w": jnp.ones((SIDE * SIDE * 3, 4))}
    state = steps.init_state({"params": params}, tx, key=KEY)
    shardings = None
    if way == "fsdp":
        shardings = parallel.state_shardings(mesh, state, smallest=SMALLEST)
    one = steps.make_supervised_step(
        linear,
        tx,
        views=look("a"),
        accumulate=accumulate,
        axis_name="data" if way == "pmap" else None,
    )

    def step(state, batch):
        traced.append(way)
        return one(state, batch)

    run = (
        parallel.pmap_step(step, mesh)
        if way == "pmap"
        else parallel.jit_step(step, mesh, shardings=shardings)
    )
    return run, parallel.put_state(mesh, state, shardings=shardings), mesh, shardings


@pytest.mark.parametrize("way", ["jit", "pmap", "fsdp"])
def test_a_step_is_compiled_once(way):
    """And the state comes out as it went in, and its memory is given up."""
    traced = []
    run, state, mesh, shardings = linear_step(way, traced)
    lies, sizes = jax.tree.map(lambda x: x.sharding, state), []
    for number in range(5):
        old = state
        state, metrics = run(state, parallel.put_batch(mesh, batch(number)))
        same = jax.tree.map(
            lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, lies
        )
        assert all(jax.tree.leaves(same))
        assert old.params["w"].is_deleted()
        sizes.append(run._cache_size())
    # Not traced again; jax keeps a second entry, of what came out of the step itself.
    assert len(traced) == 1 and sizes[-1] == sizes[2] <= 2
    assert metrics["loss"].sharding.is_fully_replicated
    if shardings is not None:
        own = state.params["w"].addressable_shards[0].data
        assert own.size == state.params["w"].size // 4


def test_large_arrays_are_divided_along_their_longest_axis():
    mesh = parallel.mesh(4)
    shapes = {
        "matrix": (64, 512),
        "table": (30522, 8),
        "square": (128, 128),
        "kernel": (3, 3, 64, 64),
        "small": (64, 64),
        "odd": (129, 255),
        "scalar": (),
    }
    tree = {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in shapes.items()}
    found = parallel.state_shardings(mesh, tree | {"key": KEY})
    assert {name: tuple(s.spec) for name, s in found.items()} == {
        "matrix": (None, "data"),
        # 30522 is twice an odd number.
        "table": (None, "data"),
        "square": (None, "data"),
        "kernel": (None, None, None, "data"),
        "small": (),
        "odd": (),
        "scalar": (),
        "key": (),
    }
    less = parallel.state_shardings(mesh, tree, smallest=64 * 64)
    assert tuple(less["small"].spec) == (None, "data")


def test_checkpoints_do_not_mind_how_a_state_lies(tmp_path):
    """One that was divided is read whole, and the other way round."""
    states = [linear_step(way, [])[1] for way in ("fsdp", "jit")]
    for number, (saved, like) in enumerate((states, states[::-1])):
        drawn = jax.random.normal(jax.random.key(number), saved.params["w"].shape)
        drawn = jax.device_put(drawn, saved.params["w"].sharding)
        saved = saved.replace(params={"w": drawn})
        with Checkpoints(tmp_path / str(number), keep=1) as saves:
            saves.save(1, saved, plan={"index": np.arange(3)}, position={})
            read = saves.restore(like, step=1).state
        np.testing.assert_array_equal(read.params["w"], drawn)
        assert read.params["w"].sharding == like.params["w"].sharding
        assert read.params["w"].sharding != drawn.sharding


def test_divided_variables_predict_as_whole_ones():
    mesh, rng = parallel.mesh(4), np.random.default_rng(0)
    variables = {"w": rng.normal(size=(6, 8)).astype(np.float32)}
    x = rng.normal(size=(B, 6)).astype(np.float32)
    predict = parallel.jit_predict(lambda v, batch: batch["x"] @ v["w"], mesh)
    shardings = parallel.state_shardings(mesh, variables, smallest=1)
    divided = parallel.put_state(mesh, variables, shardings=shardings)
    assert not divided["w"].sharding.is_fully_replicated
    for given in (divided, parallel.put_state(mesh, variables), variables):
        out = predict(given, parallel.put_batch(mesh, {"x": x}))
        np.testing.assert_allclose(out, x @ variables["w"], rtol=1e-5, atol=1e-6)


def on_first_device():
    """Bytes of all arrays."""
    return sum(
        shard.data.nbytes
        for x in jax.live_arrays()
        for shard in x.addressable_shards
        if shard.device == jax.devices()[0]
    )


def test_a_state_to_be_divided_is_whole_on_no_device(monkeypatch):
    """Of a large array; a small one is, and a key."""
    mesh, seen = parallel.mesh(4), []
    state = {"w": jnp.ones((64, 1024)), "b": jnp.ones(64), "key": KEY}
    shardings = parallel.state_shardings(mesh, state)
    real = device_placement.put_whole

    def put(tree, shardings):
        seen.append(on_first_device() - before)
        return real(tree, shardings)

    monkeypatch.setattr(device_placement, "put_whole", put)
    before = on_first_device()
    divided = parallel.put_state(mesh, state, shardings=shardings)
    assert seen[0] < 1024
    assert divided["w"].sharding.shard_shape((64, 1024)) == (64, 256)
    # The copies themselves, all on four devices.
    assert on_first_device() - before < state["w"].nbytes / 4 + 1024


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("whose", ["jax", "numpy", "divided"])
def test_a_state_survives_the_donation_of_its_copy(size, whose):
    mesh = parallel.mesh(size)
    # A device takes an aligned array of the host as it is.
    raw = np.zeros(64 * 1024 * 4 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    w = raw[start : start + 64 * 1024 * 4].view(np.float32).reshape(64, 1024)
    state: Any = {"w": w, "key": KEY}
    shardings = parallel.state_shardings(mesh, state)
    if whose != "numpy":
        state["w"] = jax.device_put(w, shardings["w"] if whose == "divided" else None)
    copy = parallel.put_state(mesh, state, shardings=shardings)
    assert copy["w"].sharding == shardings["w"]
    step = parallel.jit_step(
        lambda state, batch: (state | {"w": state["w"] + batch.sum()}, {}),
        mesh,
        shardings=shardings,
    )
    ended, _ = step(copy, parallel.put_batch(mesh, jnp.ones(4)))
    assert copy["w"].is_deleted()
    np.testing.assert_array_equal(ended["w"], np.full((64, 1024), 4.0))
    np.testing.assert_array_equal(state["w"], np.zeros((64, 1024)))


def test_dropout_masks_are_a_devices_own_under_pmap():
    """With one key, the first examples of all devices would lose the same features."""

    class Objective(steps.StepObjective):
        def loss(self, params, state, *, stats, batch, keys):
            kept = jax.random.bernoulli(keys["dropout"], 0.5, (32,))
            return params["w"].sum(), steps.LossAux(stats, {}, {"kept": kept})

        def measure(self, state, reduced, *, batch):
            return {"kept": jax.lax.all_gather(reduced.kept["kept"], "data")}

    mesh, tx = parallel.mesh(4), remember(0.1)
    step = steps.make_step(Objective(), tx, axis_name="data")
    state = steps.init_state({"params": {"w": jnp.ones(2)}}, tx, key=KEY)
    state = parallel.put_state(mesh, state)
    data = parallel.put_batch(mesh, batch(0))
    kept = np.asarray(parallel.pmap_step(step, mesh)(state, data)[1]["kept"])
    assert kept.shape == (4, 32) and len({row.tobytes() for row in kept}) == 4


def layered(kind, remat):
    """An encoder of several layers, and a loss of it and its new statistics."""
    size = dict(hidden=16, layers=2, heads=2, mlp=32, remat=remat)
    if kind == "resnet":
        module: Any = resnet.ResNet(
            stage_sizes=(2,), bottleneck=False, width=8, stem="patch4", remat=remat
        )
    elif kind == "vit":
        module = vit.ViT(patch=4, grid=2, dropout=0.1, **size)
    else:
        module = distilbert.DistilBert(11, max_length=8, **size)
    inputs: Any = (jnp.linspace(-1, 1, 8 * 8 * 8 * 3).reshape(8, 8, 8, 3),)
    if kind == "distilbert":
        inputs = (jnp.arange(64).reshape(8, 8) % 11, jnp.ones((8, 8), jnp.int32))

    def loss(variables):
        more = dict(train=True, rngs={"dropout": KEY}, mutable=["batch_stats"])
        out, new = module.apply(variables, *inputs, **more)
        return jnp.mean((out @ jnp.arange(out.shape[-1]) / 8) ** 2), new

    return lambda: module.init(KEY, *inputs, train=False), loss


@pytest.mark.parametrize("kind", ["resnet", "vit", "distilbert"])
def test_blocks_computed_again_keep_less_for_the_backward_pass(kind):
    """By what differentiation keeps: XLA on a CPU shares both computations again."""
    kept = []
    for remat in (False, True):
        init, loss = layered(kind, remat)
        shapes = jax.eval_shape(init)
        kept.append(
            sum(
                leaf.size
                for leaf in jax.tree.leaves(
                    jax.eval_shape(lambda v: jax.vjp(loss, v, has_aux=True)[1], shapes)  # noqa: B023
                )
            )
        )
    assert kept[1] < 0.6 * kept[0]


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_blocks_computed_again_give_the_same(kind):
    """Names, losses, statistics and gradients, with dropout too."""
    found = []
    for remat in (False, True):
        init, loss = layered(kind, remat)
        shapes = jax.eval_shape(init)
        step = jax.jit(jax.value_and_grad(loss, has_aux=True))
        found.append((shapes, step.lower(shapes).compile(dict(xla.COMPILE_FAST))))
    (plain, one), (again, two) = found
    # Parameters have the same names and shapes: checkpoints are of both.
    assert jax.tree.structure(plain) == jax.tree.structure(again)
    assert jax.tree.leaves(plain) == jax.tree.leaves(again)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda s: rng.uniform(0.1, 0.5, s.shape).astype(np.float32), plain
    )
    (l1, s1), g1 = jax.device_get(one(variables))
    (l2, s2), g2 = jax.device_get(two(variables))
    np.testing.assert_allclose(l2, l1, rtol=1e-6)
    assert_close(s2, s1, 1e-6, kind)
    assert_close(g2, g1, 1e-5, kind)


def test_a_config_tells_modules_of_devices():
    config = tiny(**{"parallel.mode": "pmap", "parallel.remat": True})
    mesh = parallel.mesh(4)
    arms = models.fusion_arms(config, 50, **training.device_options(config, mesh)).arms
    assert arms["cnn"].image_encoder.axis_name == "data"
    assert all(arm.image_encoder.remat for arm in arms.values())
    assert all(arm.text_encoder.remat for arm in arms.values())
    config = tiny()
    assert training.device_options(config, mesh) == {"axis_name": None, "remat": False}


@pytest.mark.parametrize("stage", [pretrain.make, finetune.make])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parallel.mode": "pjit"}, r"parallel.mode 'pjit'.*\['jit', 'pmap'\]"),
        (
            {"parallel.mode": "pmap", "parallel.shard_parameters": True},
            "shard_parameters=True needs parallel.mode='jit'",
        ),
        (
            {"pretrain.batch": 18, "finetune.batch": 18},
            "a batch of 18 cannot be split evenly over 4 devices",
        ),
        (
            {
                "parallel.mode": "pmap",
                "pretrain.accumulate": 3,
                "finetune.accumulate": 3,
            },
            "accumulate=3 does not divide the 4 examples that each of 4 devices has",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(stage, changes, message):
    data: Any = None
    with pytest.raises(ValueError, match=message):
        stage(tiny(**changes), data, seed=0, mesh=parallel.mesh(4))


def test_more_devices_than_there_are():
    with pytest.raises(ValueError, match="asked for 5 devices, this machine has 4"):
        devices(tiny(**{"parallel.devices": 5}))


def test_seeds_are_not_parts_of_a_batch():
    section = load_config(str(ROOT / "configs/curriculum.py")).parallel
    check_parallel(section, seeds=True)
    section.mode = "pmap"
    with pytest.raises(ValueError, match="here the seeds are split over them"):
        check_parallel(section, seeds=True)


def test_graph_networks_have_one_device():
    config = load_config(str(ROOT / "configs/graph.py"))
    assert list(config.parallel) == ["devices"]
