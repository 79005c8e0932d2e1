"""Fine-tuning from a small pretrained text encoder, for two CPU cores.

command   python -m memejax.main --config=configs/minilm.py
            --config.data.root=FOLDER --config.weights.text=MINILM
            --config.model.arm.modalities=text     captions alone
          from scratch, with the same vocabulary: --config.data.tokenizer=MINILM in
          place of --config.weights.text
hardware  2 CPU cores, 3 minutes a seed
is        MINILM, a folder or hub name of all-MiniLM-L6-v2 (22.7 M parameters: 6 layers,
          384 wide; captions are the mean over their tokens, as it was trained), beside
          the demo's small ResNet from scratch. One pass over 3,000 memes at a rate of
          1e-4 for the encoder; README.md has the scores.
"""

from ml_collections import ConfigDict

from memejax.config import load_config


def get_config(preset: str = "full") -> ConfigDict:
    if preset != "full":
        raise ValueError(f"unknown preset {preset!r}: this experiment has only 'full'")
    config = load_config("configs/supervised.py:demo").unlock()
    config.name, config.preset = "minilm", preset
    config.arms = ("cnn",)
    config.data.text_length = 64
    config.model.dtype = "bfloat16"
    config.model.text = dict(name="minilm_l6", dropout=0.1)
    config.model.arm.text_pooling = "mean"
    section = config.finetune
    section.batch, section.steps, section.eval_every = 32, 100, 25
    section.optimizer.warmup = 10
    section.optimizer.groups = dict(
        image=dict(pattern=".*/image_encoder/.*", lr=2e-3),
        text=dict(pattern=".*/text_encoder/.*", lr=1e-4),
        heads=dict(pattern="arms_[^/]*/(?!image_encoder|text_encoder).*", lr=1e-3),
    )
    config.checkpoint.every = 50
    return config.lock()
