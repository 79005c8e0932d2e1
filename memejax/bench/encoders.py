"""Encoding of pictures and captions by CLIP: images/s and captions/s against PyTorch.

    python -m memejax.bench.encoders

Both sides get uint8 pictures of 224 pixels and captions of 77 tokens in memory and give
float32 features, pooled and projected, as `python -m memejax.extract` stores them. The
peer is transformers' CLIPModel on PyTorch at its best number of threads. Parameters are
random, of the sizes that OpenAI published. Without torch our own speed alone is
measured.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from memejax.bench import pairs
from memejax.bench.command_line import Parser
from memejax.command_line import prepare
from memejax.config import load_config
from memejax.errors import command

SIDE, LENGTH, WORDS = 224, 77, 49_408
SIDES = {"image": "images/s", "text": "captions/s"}
Inputs = Mapping[str, np.ndarray]


@command
def main() -> None:
    """Run the benchmark."""
    parser = Parser("encoders", __doc__, pairs=3)
    parser.add_argument(
        "--models",
        default=("clip_base_32", "clip_large_14"),
        nargs="+",
        metavar="NAME",
        help="towers of CLIP",
    )
    parser.number("--pictures", 32, text="pictures in one run of a side")
    parser.number("--captions", 64, text="captions in one run of a side")
    parser.number("--batch", 16, text="pictures, or captions, in a batch")
    options = parser.parse_args()
    prepare()
    # Imported here to keep --help fast.
    from memejax.models.clip import CLIPS

    unknown = set(options.models) - set(CLIPS)
    if unknown:
        parser.error(f"no towers {sorted(unknown)}: expected some of {list(CLIPS)}")
    peers = importlib.util.find_spec("torch") is not None
    counts = {"image": options.pictures, "text": options.captions}
    rows = {}
    for name in options.models:
        for side, unit in SIDES.items():
            inputs = _inputs(side, counts[side])
            ours = _timed(_ours(name, side, options.batch), inputs, options.batch)
            about = {"unit": unit, "batch": options.batch}
            if not peers:
                ours()
                found: dict[str, Any] = {"ours": [ours() for _ in range(options.pairs)]}
            else:
                peer, threads = _best_threads(name, side, inputs, options.batch)
                about["peer is"] = f"transformers on PyTorch, {threads} threads"
                found = pairs.in_turn(ours, peer, pairs=options.pairs)
            rows[f"{name}, {side}"] = about | found
    pairs.write("encoders", rows, options.out)


def _inputs(side: str, count: int) -> Inputs:
    """Return random pictures, or captions that fill the length."""
    rng = np.random.default_rng(0)
    if side == "image":
        shape = (count, SIDE, SIDE, 3)
        return {"image": rng.integers(0, 256, shape, dtype=np.uint8)}
    ids = rng.integers(0, WORDS - 1, (count, LENGTH), dtype=np.int32)
    # The last token ends the caption, and has the largest number.
    ids[:, -1] = WORDS - 1
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def _timed(
    run: Callable[[Inputs], np.ndarray], inputs: Inputs, batch: int
) -> Callable[[], float]:
    """Return a function that encodes everything once: examples/s."""
    count = len(next(iter(inputs.values())))

    def timed() -> float:
        began = time.perf_counter()
        for start in range(0, count, batch):
            run({k: v[start : start + batch] for k, v in inputs.items()})
        return count / (time.perf_counter() - began)

    return timed


def _config(name: str) -> ConfigDict:
    """Return the config of both towers of one size."""
    from memejax.stages.parts.encoders import one_arm

    config = load_config("configs/heads.py:clip").unlock()
    config.model.image.vit = dict(name=name, normalization="half")
    config.model.text.name = name
    config.data.update(image_size=SIDE, text_length=LENGTH)
    return one_arm(config, "vit")


def _ours(name: str, side: str, batch: int) -> Callable[[Inputs], np.ndarray]:
    """Return the compiled function of one tower."""
    import jax

    from memejax import parallel
    from memejax.extract.encoders import encoder_functions
    from memejax.stages.parts.models import fusion_arms

    config = _config(name)
    (arm,) = fusion_arms(config, WORDS).arms.values()
    encoder = arm.image_encoder if side == "image" else arm.text_encoder
    example = _inputs(side, 2)
    if side == "image":
        given = (np.zeros(example["image"].shape, np.float32),)
    else:
        given = (example["input_ids"], example["attention_mask"])
    init = jax.jit(lambda key: encoder.init(key, *given, train=False))
    mesh = parallel.mesh()
    parallel.check_batch(mesh, batch)
    variables = jax.device_put(init(jax.random.key(0)), parallel.replicated(mesh))
    image_fn, text_fn = encoder_functions(config, WORDS)
    apply = parallel.jit_predict(image_fn if side == "image" else text_fn, mesh)

    def run(inputs: Inputs) -> np.ndarray:
        return jax.device_get(apply(variables, dict(inputs)))["shared"]

    return run


def _best_threads(
    name: str, side: str, inputs: Inputs, batch: int
) -> tuple[Callable[[], float], int]:
    """Return the peer with its best number of threads, and that number."""
    import torch

    timed = _timed(_peer(name, side), inputs, batch)
    speeds = {}
    for threads in range(1, (os.cpu_count() or 1) + 1):
        torch.set_num_threads(threads)
        timed()
        speeds[threads] = timed()
    best = max(speeds, key=lambda threads: speeds[threads])
    torch.set_num_threads(best)
    return timed, best


def _peer(name: str, side: str) -> Callable[[Inputs], np.ndarray]:
    """Return the same tower of transformers."""
    import torch
    import transformers

    from memejax.models.clip import CLIPS

    image, text = CLIPS[name]
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            vision_config=_named(image) | dict(patch_size=image["patch"]),
            text_config=_named(text) | dict(vocab_size=WORDS),
            projection_dim=image["projection"],
        )
    ).eval()
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (
            transformers.image_utils.OPENAI_CLIP_MEAN,
            transformers.image_utils.OPENAI_CLIP_STD,
        )
    )

    def run(inputs: Inputs) -> np.ndarray:
        with torch.inference_mode():
            if side == "image":
                pictures = torch.from_numpy(inputs["image"]).permute(0, 3, 1, 2)
                pixels = (pictures.float() / 255 - mean) / std
                pooled = model.vision_model(pixel_values=pixels).pooler_output
                return model.visual_projection(pooled).numpy()
            ids, mask = (
                torch.from_numpy(inputs[k]) for k in ("input_ids", "attention_mask")
            )
            pooled = model.text_model(ids, attention_mask=mask).pooler_output
            return model.text_projection(pooled).numpy()

    return run


def _named(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tower's sizes as transformers names them."""
    return dict(
        hidden_size=sizes["hidden"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        intermediate_size=sizes["mlp"],
        projection_dim=sizes["projection"],
    )


if __name__ == "__main__":
    main()
