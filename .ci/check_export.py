"""Whether an exported program computes what `memejax.predict` does: RUN EXPORT."""

import pathlib
import sys

import jax.export
import numpy as np

import memejax
from memejax.data import text
from memejax.data.hateful_memes import read_jsonl

run, exported = map(pathlib.Path, sys.argv[1:])
predictor = memejax.load_predictor(run)
root = str(run / "memes")
memes, *_ = read_jsonl(f"{root}/test_unseen.jsonl", root=root, split="test_unseen")
written = (exported / "predictor" / "predictor.stablehlo").read_bytes()
program = jax.export.deserialize(bytearray(written))
with np.load(exported / "predictor" / "predictor.npz") as loaded:
    weights = dict(loaded)
for size in (1, 7, 32):
    pictures, errors = predictor.read([meme.image for meme in memes[:size]])
    captions = [meme.text for meme in memes[:size]]
    tokens = text.encode(predictor.tokenizer, captions, length=predictor.length)
    got = program.call(weights, pictures, tokens.input_ids, tokens.attention_mask)
    worst = np.abs(got - predictor.predict(pictures, captions)).max()
    print(f"{size} memes: exported program and predict differ by {worst:.1e}")
    if errors or not worst <= 1e-6:
        sys.exit("the exported program is another")
