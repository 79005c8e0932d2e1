"""The training step that scaling and input are studied with: multimodal CASS."""

from __future__ import annotations

from ml_collections import ConfigDict

from memejax.config import load_config

SIZES = ("tiny", "paper")
# The demo's models, narrower: steps of milliseconds.
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
    """Config of a pretraining run whose input is decoded whenever it is used.

    Args:
        size: "tiny", or "paper" (ResNet-50, ViT-B/16 at 384 pixels, a DistilBERT for
            each with its whole vocabulary and captions of 88 tokens, in float32, at
            random starts).
        batch: global.
        steps: of the plan.
        memes: built-in ones to train on, a positive multiple of 4.
        threads: that read, where no workers do.
        workers: processes that read.
        root: folder of memes instead of the built-in ones.

    Raises:
        ValueError: for an unknown size.
    """
    if size not in SIZES:
        raise ValueError(f"got size {size!r}, expected one of {SIZES}")
    if size == "tiny":
        config = load_config("configs/cass_mm.py:demo").unlock()
        # Sizes that go before those of the networks' names.
        config.update_from_flattened_dict(TINY)
    else:
        config = load_config("configs/cass_mm.py:paper").unlock()
        # The longest caption of the challenge; the preset is wider.
        config.data.text_length = 88
        # DistilBERT's, not that of the few words of the built-in captions.
        config.model.text.vocab_size = 30522
        # The preset has no built-in memes.
        config.data.synthetic = dict(concepts=4)
    config.data.root = root
    config.data.synthetic.update(train=memes, dev=4, test=4)
    config.pretrain.update(batch=batch, steps=steps, epochs=None)
    config.pretrain.optimizer.warmup = 0
    config.pipeline.update(cache="none", threads=threads, workers=workers)
    return config.lock()
