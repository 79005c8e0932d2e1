"""P(hateful) of memes, with nothing but jax, numpy and flatbuffers.

    python run_predictor.py images.npy tokens.json

images.npy   uint8 [b, side, side, 3], memes resized as described in ../README.md
tokens.json  {"input_ids": [[...], ...], "attention_mask": [[...], ...]}, each of the
             length in predictor.json; or an .npz file with these two arrays

Prints one number per line, in the order of the images.
"""

import json
import pathlib
import sys

import numpy as np
from jax import export


def main(images: str, tokens: str) -> None:
    """Print the probability of each meme in two files."""
    here = pathlib.Path(__file__).parent
    predictor = export.deserialize(
        bytearray((here / "predictor.stablehlo").read_bytes())
    )
    weights = dict(np.load(here / "predictor.npz"))
    is_json = tokens.endswith(".json")
    read = json.loads(pathlib.Path(tokens).read_text()) if is_json else np.load(tokens)
    ids, mask = (np.int32(read[name]) for name in ("input_ids", "attention_mask"))
    for proba in np.asarray(predictor.call(weights, np.load(images), ids, mask)):
        print(f"{proba:.9g}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
