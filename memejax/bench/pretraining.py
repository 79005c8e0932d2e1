"""The config of the studies of scaling and input: pretraining of multimodal CASS."""

from __future__ import annotations

from ml_collections import ConfigDict

from memejax.config import load_config

SIZES = ("tiny", "paper")
# The demo's models, but narrower: a step takes milliseconds.
TINY = {
    "data.image_size": 24,
    "model.image.cnn.width": 8,
    "model.image.cnn.stage_sizes": (1,),
    "model.image.vit.hidden": 16,
    "model.image.vit.layers": 1,
    "model.image.vit.heads": 2,
    "model.image.vit.mlp": 16,
    "model.text.hidden": 16,
    "model.text.layers": 1,
    "model.text.heads": 2,
    "model.text.mlp": 16,
    "model.arm.embed": 16,
    "model.arm.fused": 16,
    "model.arm.out": 16,
}


def cass(
    size: str,
    *,
    batch: int,
    steps: int,
    memes: int,
    threads: int = 2,
    workers: int = 0,
    root: str | None = None,
) -> ConfigDict:
    """Config of a pretraining run whose input is decoded every time it is used.

    Args:
        size: "tiny", or "paper" (ResNet-50, ViT-B/16 at 384 pixels, a DistilBERT for
            each with its whole vocabulary and captions of 88 tokens, in float32, from
            random weights).
        batch: global batch size.
        steps: number of steps in the plan.
        memes: number of built-in training memes, a positive multiple of 4.
        threads: reader threads, used without workers.
        workers: reader processes.
        root: folder of memes instead of the built-in ones.

    Raises:
        ValueError: if the size is unknown.
    """
    if size not in SIZES:
        raise ValueError(f"got size {size!r}, expected one of {SIZES}")
    if size == "tiny":
        config = load_config("configs/cass_mm.py:demo").unlock()
        # Override the sizes of the named networks.
        config.update_from_flattened_dict(TINY)
    else:
        config = load_config("configs/cass_mm.py:paper").unlock()
        # The longest caption of the challenge; the preset is wider.
        config.data.text_length = 88
        # DistilBERT's vocabulary, not that of the few words in built-in captions.
        config.model.text.vocab_size = 30522
        # The preset has no built-in memes.
        config.data.synthetic = dict(concepts=4)
    config.data.root = root
    config.data.synthetic.update(train=memes, dev=4, test=4)
    config.pretrain.update(batch=batch, steps=steps, epochs=None)
    config.pretrain.optimizer.warmup = 0
    config.pipeline.update(cache="none", threads=threads, workers=workers)
    return config.lock()
