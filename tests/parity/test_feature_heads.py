"""Heads on stored features beside PyTorch modules written from their formulas."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax.models.feature_heads import make_feature_head

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

WIDTH, IMAGE, TEXT, BATCH = 48, 40, 24, 9


class Mapped(nn.Module):
    """Concatenation, elementwise or outer product of mapped unit vectors, an MLP."""

    def __init__(self, fusion, layers):
        super().__init__()
        self.fusion = fusion
        self.image_map = nn.Sequential(nn.Linear(IMAGE, WIDTH), nn.Dropout(0.2))
        self.text_map = nn.Sequential(nn.Linear(TEXT, WIDTH), nn.Dropout(0.2))
        inputs = {"concat": 2 * WIDTH, "align": WIDTH, "cross": WIDTH**2}[fusion]
        self.fusion_dropout = nn.Dropout(0.4)
        self.linears = nn.ModuleList(
            nn.Linear(WIDTH if i else inputs, WIDTH) for i in range(layers)
        )
        self.dropout = nn.Dropout(0.1)
        self.logit = nn.Linear(WIDTH, 1)

    def forward(self, image, text):
        image = F.normalize(self.image_map(image), dim=1)
        text = F.normalize(self.text_map(text), dim=1)
        if self.fusion == "concat":
            x = torch.cat([image, text], dim=1)
        elif self.fusion == "align":
            x = image * text
        else:
            x = torch.einsum("bi,bj->bij", image, text).flatten(1)
        x = self.fusion_dropout(x)
        for linear in self.linears:
            embedding = linear(x)
            x = self.dropout(torch.relu(embedding))
        return self.logit(x)[:, 0], embedding

    def parameters_here(self):
        return {
            "image_map": {"linear": dense(self.image_map[0])},
            "text_map": {"linear": dense(self.text_map[0])},
            "pre_output": {f"linear{i}": dense(x) for i, x in enumerate(self.linears)},
            "logit": dense(self.logit),
        }


class Adapted(nn.Module):
    """Adapters, their product, one layer, a cosine classifier of two classes."""

    def __init__(self):
        super().__init__()
        self.maps = nn.ModuleList([nn.Linear(IMAGE, WIDTH), nn.Linear(TEXT, WIDTH)])
        inside = WIDTH // 4
        self.downs = nn.ModuleList(
            nn.Linear(WIDTH, inside, bias=False) for _ in range(2)
        )
        self.ups = nn.ModuleList(nn.Linear(inside, WIDTH, bias=False) for _ in range(2))
        self.pre_output = nn.Linear(WIDTH, WIDTH)
        self.rows = nn.Parameter(torch.randn(2, WIDTH))

    def forward(self, *features):
        x = 1.0
        for i, modality in enumerate(features):
            mapped = self.maps[i](modality)
            adapted = torch.relu(self.ups[i](torch.relu(self.downs[i](mapped))))
            x = x * F.normalize(0.2 * adapted + 0.8 * mapped, dim=1)
        embedding = self.pre_output(x)
        hidden = F.normalize(torch.relu(embedding), dim=1)
        both = 30 * hidden @ F.normalize(self.rows, dim=1).T
        return torch.log_softmax(both, 1) @ torch.tensor([-1.0, 1.0]), embedding

    def parameters_here(self):
        tree: dict[str, Any] = {
            "pre_output": {"linear0": dense(self.pre_output)},
            "class_rows": array(self.rows),
        }
        for i, name in enumerate(("image", "text")):
            tree[f"{name}_map"] = dense(self.maps[i])
            tree[f"{name}_adapter"] = {
                "down": dense(self.downs[i]),
                "up": dense(self.ups[i]),
            }
        return tree


def array(parameter):
    return parameter.detach().numpy().copy()


def dense(layer):
    """A layer's weight and bias by the names that they have here."""
    names = {"kernel": layer.weight, "bias": layer.bias}
    return {k: array(p) for k, p in names.items() if p is not None}


def assert_close(got, expected, tolerance=1e-5):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


def transposed(tree):
    """PyTorch's weights are `[out, in]`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x.T if path[-1].key == "kernel" else x, tree
    )


CASES = {
    "concat": functools.partial(Mapped, "concat", 3),
    "align": functools.partial(Mapped, "align", 3),
    "cross": functools.partial(Mapped, "cross", 1),
    "rgcl": functools.partial(Mapped, "align", 3),
    "memeclip": Adapted,
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_outputs_and_gradients(name):
    torch.manual_seed(3)
    theirs = CASES[name]().eval()
    rng = np.random.default_rng(4)
    image = rng.normal(size=(BATCH, IMAGE)).astype(np.float32)
    text = rng.normal(size=(BATCH, TEXT)).astype(np.float32)
    inputs = [torch.from_numpy(x).requires_grad_() for x in (image, text)]
    logits, embedding = theirs(*inputs)
    (torch.sin(logits).sum() + torch.square(embedding).sum()).backward()
    head = make_feature_head(name, width=WIDTH)

    def loss(params, image, text):
        out = head.apply({"params": params}, image, text, train=False)
        return jnp.sin(out.logits).sum() + jnp.square(out.embedding).sum(), out

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
    params = transposed(theirs.parameters_here())
    gradients, out = gradient(params, image, text)
    assert_close(out.logits, logits.detach())
    assert_close(out.embedding, embedding.detach())
    # A gradient adds over the batch and two norms.
    for got, tensor in zip(gradients[1:], inputs, strict=True):
        assert_close(got, tensor.grad, 5e-5)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(parameter.grad)
    by_name = transposed(theirs.parameters_here())
    jax.tree.map(functools.partial(assert_close, tolerance=5e-5), gradients[0], by_name)
