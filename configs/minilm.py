"""Fine-tuning from a small pretrained text encoder, for two CPU cores.

command   python -m memejax.main --config=configs/minilm.py
            --config.data.root=FOLDER --config.weights.text=MINILM
            --config.model.arm.modalities=text     captions alone
          from scratch, with the same vocabulary: --config.data.tokenizer=MINILM in
          place of --config.weights.text
hardware  2 CPU cores, 3 minutes a seed
is        MINILM, a folder or hub name of all-MiniLM-L6-v2 (22.7 M parameters: 6 layers,
          384 wide; captions are averaged over their tokens, as in its training), and
          the demo's small ResNet from scratch. One pass over 3,000 memes at a rate of
          1e-4 for the encoder; configs/README.md has the scores.

After the colon:
  curriculum=none|uniform|replacement|bac|dsac    order of the training examples
"""

from ml_collections import ConfigDict

from memejax.configs import common


def get_config(text: str = "") -> ConfigDict:
    preset, chosen = common.parse(text, ("full",), curriculum=common.CURRICULA)
    config = ConfigDict(
        dict(
            name="minilm",
            preset=preset,
            seed=0,
            seeds=1,
            stages=("finetune", "evaluate"),
            arms=("cnn",),
            weights=common.weights("image_cnn", "image_vit", "text"),
            data=common.data("demo", text_length=64, certify=0.0),
            model=common.model(
                "demo",
                dtype="bfloat16",
                text=dict(name="minilm_l6", dropout=0.1),
                arm=common.fused_arm("demo") | dict(text_pooling="mean"),
            ),
            augment=common.augmentation("demo"),
            finetune=common.training(
                steps=100,
                batch=32,
                balance=True,
                eval_every=25,
                patience=0,
                optimizer=common.optimizer(
                    common.groups(image=2e-3, text=1e-4, heads=1e-3), warmup=10
                ),
            ),
            **common.runtime("demo", every=50),
        )
    )
    common.add_curriculum(config, chosen["curriculum"])
    return config.lock()
