"""What devices tell each other in a step, counted in the compiled program."""

import math
import re

import jax
import pytest
from test_devices import PROTOTYPES, WIDTH, B, compiled

BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1}
KINDS = (
    "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|"
    "collective-broadcast"
)


def collectives(text):
    """(kind, bytes of the result, whether it is the panel's) of each in a program."""
    found = []
    for line in text.splitlines():
        match = re.search(rf" = (.*?) ({KINDS})(-start)?\(", line)
        if match:
            sizes = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
            total = sum(
                BYTES[dtype] * math.prod(int(n) for n in shape.split(",") if n)
                for dtype, shape in sizes
            )
            panel = re.search(r"(jit\(step\)|shard_map)/<metrics>/", line)
            found.append((match[2], total, panel is not None))
    return found


def sizes(objective):
    """Bytes of all parameters, and of one value a channel of every BatchNorm."""
    state = jax.eval_shape(compiled(objective, "jit").start)
    count = [
        sum(leaf.size for leaf in jax.tree.leaves(tree))
        for tree in (state.params, state.batch_stats)
    ]
    # Running statistics are a mean and a variance.
    return 4 * count[0], 4 * count[1] // 2


@pytest.mark.parametrize("way", ["jit", "pmap"])
def test_a_supervised_step_sends_gradients_and_statistics(way):
    """To the byte; nothing but sums is sent."""
    found = collectives(compiled("supervised", way).program.as_text())
    assert {kind for kind, _, _ in found} == {"all-reduce"}
    parameters, channels = sizes("supervised")
    # Two moments forward; XLA takes their gradients from those of scale and bias,
    # pmap's step sends them. The loss is a sum over the weights' sum.
    statistics, scalars = (2, 8) if way == "jit" else (4, 12)
    sent = sum(size for _, size, _ in found)
    assert sent == parameters + statistics * channels + scalars


# Arms; width of what the collapse panel looks at; values a channel that BatchNorm sends
# (DINO's: two moments of three batches, and the gradients of two); the most bytes that
# a loss sends an arm: means, variances and a d x d product, forward and backward; the
# sum and the count of the teacher's outputs, the loss and the weights.
LOSSES = {
    "multimodal_cass": (2, WIDTH, 4, 2 * 4 * (WIDTH**2 + 8 * WIDTH)),
    "dino": (1, PROTOTYPES, 10, 4 * (PROTOTYPES + 1) + 12),
}


@pytest.mark.parametrize(
    ("objective", "way"),
    [("multimodal_cass", "jit"), ("dino", "jit"), ("dino", "pmap")],
)
def test_a_self_supervised_step_sends_little_more(objective, way):
    found = collectives(compiled(objective, way).program.as_text())
    parameters, channels = sizes(objective)
    arms, width, statistics, allowed = LOSSES[objective]
    sent = sum(s for kind, s, panel in found if kind == "all-reduce" and not panel)
    # XLA on a CPU sums an encoder's gradient once for each size of crops.
    times = 2 if (objective, way) == ("dino", "jit") else 1
    assert parameters <= sent
    assert sent <= times * parameters + statistics * channels + arms * allowed

    # For its singular values the panel needs all outputs [b, d] (and their mask).
    # Of images, features and activations nothing is sent.
    others = [(kind, s, panel) for kind, s, panel in found if kind != "all-reduce"]
    outputs = [("all-gather", 4 * B * width, True)] * arms
    mask = [("all-gather", B, True)] if way == "pmap" else []
    assert sorted(others) == sorted(outputs + mask)


def test_divided_parameters_are_gathered_once():
    """Parameters go round, and no activation does."""
    many = compiled("supervised", "fsdp")
    found = collectives(many.program.as_text())
    params = jax.eval_shape(many.start).params
    divided = [
        4 * leaf.size
        for leaf, where in zip(
            jax.tree.leaves(params), jax.tree.leaves(many.shardings.params), strict=True
        )
        if not where.is_fully_replicated
    ]
    assert len(divided) == 5
    others = [(kind, s) for kind, s, _ in found if kind != "all-reduce"]
    assert sorted(others) == sorted(("all-gather", s) for s in divided)
