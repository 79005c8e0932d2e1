import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax.models.distilbert import BERTS, DistilBert
from memejax.weights.convert import to_variables

GOLDEN = Path(__file__).parent / "golden"
TINY = dict(vocab_size=30, hidden=16, layers=2, heads=2, mlp=32, max_length=8)
IDS = np.random.default_rng(0).integers(1, 30, size=(2, 6))
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])


def formula(d, mlp, layers):
    """Words, positions, norm, blocks; token types are within the positions."""
    block = 4 * (d * d + d) + (d * mlp + mlp) + (mlp * d + d) + 4 * d
    return 30_522 * d + 512 * d + 2 * d + layers * block


PARAMETERS = {
    "distilbert": 66_362_880,
    # BertModel without its pooler and its two token types.
    "bert_base": 109_482_240 - (768 * 768 + 768) - 2 * 768,
    "minilm_l6": formula(384, 1536, 6),
    "transformer_demo": formula(96, 192, 2),
}


def relative(got, expected):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    return np.abs(got - expected).max() / np.abs(expected).max()


@partial(jax.jit, static_argnums=0)
def init(model, *inputs):
    return model.init(jax.random.key(0), *inputs, train=False)


def some(model, *inputs):
    """Random variables: compiling `init` takes longer than all else of a test."""
    rng = np.random.default_rng(7)

    def draw(path, leaf):
        normal = rng.normal(size=leaf.shape)
        match path[-1].key:
            case "kernel":
                return normal / np.sqrt(leaf.size / leaf.shape[-1])
            case "scale" | "var":
                return 1 + 0.2 * np.tanh(normal)
        return 0.3 * normal

    shapes = jax.eval_shape(partial(init, model), *inputs)
    tree = jax.tree_util.tree_map_with_path(draw, shapes)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


@partial(jax.jit, static_argnames=("model", "train"))
def apply(variables, *inputs, model, train=False, key=None):
    rngs = None if key is None else {"dropout": key}
    return model.apply(variables, *inputs, train=train, rngs=rngs)


def test_entries_have_the_known_number_of_parameters():
    counts = {}
    for name, sizes in BERTS.items():
        shapes = jax.eval_shape(partial(init, DistilBert(**sizes)), IDS, MASK)
        counts[name] = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert counts == PARAMETERS
    assert formula(768, 3072, 6) == PARAMETERS["distilbert"]
    assert formula(768, 3072, 12) == PARAMETERS["bert_base"]


@pytest.mark.parametrize("name", ["distilbert", "bert"])
def test_tokens_agree_with_the_reference(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        case = dict(file)
    sizes = json.loads(str(case["sizes"]))
    tensors = {k[7:]: v for k, v in case.items() if k.startswith("tensor/")}
    form = f"huggingface {name}"
    variables, _ = to_variables(tensors, form=form, sizes=sizes)
    model = DistilBert(**sizes)
    tokens = apply(variables, case["ids"], case["mask"], model=model)
    assert relative(tokens, case["tokens"]) < 1e-5


def test_padding_does_not_reach_the_other_tokens():
    model = DistilBert(**TINY)
    variables = some(model, IDS, MASK)

    def encode(ids, mask):
        return apply(variables, ids, mask, model=model)

    other = IDS.copy()
    other[1, 3:] = 29 - other[1, 3:]
    tokens, changed = encode(IDS, MASK), encode(other, MASK)
    np.testing.assert_array_equal(changed[1, :3], tokens[1, :3])
    assert relative(changed[1, 3:], tokens[1, 3:]) > 1e-2
    # Nor does its length, or its being there.
    short = encode(IDS[1:, :3], MASK[1:, :3])
    assert relative(short[0], tokens[1, :3]) < 1e-5
    # Unmasked, the same tokens do.
    assert relative(encode(IDS, np.ones_like(MASK))[1, 0], tokens[1, 0]) > 1e-3


def test_gradients_are_finite_under_a_mask_and_zero_for_padding():
    model = DistilBert(**TINY)
    variables = some(model, IDS, MASK)
    ids = np.array([[1, 2, 3, 7, 7, 7], [0, 0, 0, 0, 0, 0]])
    mask = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]])

    def loss(params):
        out = apply({"params": params}, ids, mask, model=model)
        return jnp.sum(jnp.sin(out[0, 0])) + 0 * out.sum()

    grads = jax.jit(jax.grad(loss))(variables["params"])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
    assert np.abs(grads["words"][3]).max() > 0
    np.testing.assert_array_equal(grads["words"][7], 0.0)
    np.testing.assert_array_equal(grads["positions"][3:], 0.0)


def test_dropout_is_active_in_training_only():
    one_block = {**TINY, "layers": 1}
    model = DistilBert(**one_block, dropout=0.5)
    variables = some(model, IDS, MASK)
    never = DistilBert(**one_block, dropout=0.0)
    plain = apply(variables, IDS, MASK, model=never, train=True)
    still = apply(variables, IDS, MASK, model=model)
    np.testing.assert_array_equal(still, plain)
    one, two, again = (
        apply(variables, IDS, MASK, model=model, train=True, key=jax.random.key(k))
        for k in (1, 2, 1)
    )
    assert relative(one, plain) > 1e-2 and relative(two, one) > 1e-2
    np.testing.assert_array_equal(again, one)


def test_bfloat16_is_close_to_float32_and_keeps_float32_parameters():
    model = DistilBert(**TINY, dtype=jnp.bfloat16)
    variables = some(model, IDS, MASK)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))
    out = apply(variables, IDS, MASK, model=model)
    assert out.dtype == jnp.float32
    exact = apply(variables, IDS, MASK, model=DistilBert(**TINY))
    # Products round to 2^-9; the embeddings and the residual sums do not, and the
    # normalisation after every branch keeps the error at that of the last ones.
    assert 1e-6 < relative(out, exact) < 1e-2


def test_positions_tell_tokens_apart():
    model = DistilBert(**TINY)
    variables = some(model, IDS, MASK)
    ids = np.full((1, 4), 5)
    out = apply(variables, ids, np.ones_like(ids), model=model)
    assert relative(out[0, 0], out[0, 1]) > 1e-2


def test_errors_name_what_was_got():
    ids = np.ones((2, 9), int)
    with pytest.raises(ValueError, match="got 9 tokens, expected at most 8"):
        init(DistilBert(**TINY), ids, ids)
    with pytest.raises(ValueError, match=r"\[2, 6\] and attention_mask \[2, 5\]"):
        init(DistilBert(**TINY), IDS, MASK[:, :5])
