"""DINO on pictures alone, a ViT and a ResNet side by side; then fine-tuning with text.

demo (default)
  command   python -m memejax.main --config=configs/dino.py
  hardware  2 CPU cores, minutes, nothing downloaded
  is        the networks, data and fine-tuning of configs/cass_mm.py, so that only
            the pretraining differs. On pictures with a visible concept, with a probe
            of the features (scores: configs/README.md):
              --config=configs/dino.py:then=probe --config.data.name=pictures

full
  command   python -m memejax.main --config=configs/dino.py:full
              --config.data.root=FOLDER --config.weights.image_cnn=RESNET50
              --config.weights.image_vit=VIT_B16
              --config.weights.text=DISTILBERT
  hardware  one GPU of 80 GB or several; not run by us yet, so without a score
  is        for thousands of pictures instead of a million: fewer prototypes, a fast
            teacher, a low teacher temperature, bfloat16.

paper
  command   as full, with :paper without weights.text, or with :paper,text=distilbert
  hardware  as full, several
  is        the published recipe of ViT-B/16 (400 epochs, 65,536 prototypes), at its
            batch of 1024. The ResNet-50 beside it uses that recipe too, instead of its
            own with SGD; --config.arms="('vit',)" leaves it out. Fine-tuning is that of
            configs/cass.py:paper. Not kept: a start from nothing (here ImageNet's
            classifiers, as a few thousand pictures need it); bicubic crops of the
            original (here bilinear, of pictures that are square already); weight decay
            of the class token.

After the colon, behind the preset (`configs/dino.py:full,then=probe`):
  then=finetune|probe    stage after pretraining
  text=words|distilbert  text encoder of the preset paper, as in configs/cass.py
"""

from typing import Any

from ml_collections import ConfigDict

from memejax.configs import common


def get_config(text: str = "") -> ConfigDict:
    preset, chosen = common.parse(text, then=common.THEN, text=common.TEXTS)
    config = ConfigDict(
        dict(
            name="dino",
            preset=preset,
            seed=0,
            seeds=1,
            arms=("cnn", "vit"),
            data=common.data(preset, leaks=False),
            **common.image_only(preset, chosen["text"]),
            pretrain={"demo": demo, "full": full, "paper": paper}[preset](),
            **common.runtime(preset),
        )
    )
    common.add_then(config, chosen["then"])
    if chosen["then"] == "finetune":
        config.augment = common.augmentation(preset)
    return config.lock()


def demo() -> dict[str, Any]:
    return dict(
        method="dino",
        drop_path=0.0,
        student_temperature=0.1,
        center_momentum=0.9,
        # Epochs with frozen prototypes.
        freeze_last_layer=0.5,
        # Sharp, or the outputs become uniform before they agree on anything.
        teacher=dict(momentum=0.99, temperature=0.02),
        head=dict(out=1024, hidden=256, bottleneck=64, batch_norm=True),
        augment=dict(
            global_size=48,
            global_scale=(0.6, 1.0),
            local_size=32,
            local_scale=(0.4, 0.8),
            local_crops=2,
            # In pixels of the crop: 2 would blur away any pattern in 48.
            blur_sigma=(0.1, 0.5),
            # High, because colours are easier to agree on.
            grayscale=0.8,
            jitter=(0.4, 0.4, 0.4, 0.1),
            solarize=(0.0, 0.0, 0.0),
        ),
        **common.training(
            steps=500,
            batch=128,
            optimizer=optimizer(groups(1e-3), warmup=30, weight_decay_end=0.04),
        ),
    )


def full() -> dict[str, Any]:
    return dict(
        method="dino",
        drop_path=0.1,
        student_temperature=0.1,
        center_momentum=0.9,
        freeze_last_layer=1.0,
        teacher=dict(momentum=0.99, temperature=0.04),
        head=dict(out=4096, hidden=2048, bottleneck=256, batch_norm=False),
        augment=augment(
            global_scale=(0.4, 1.0), local_scale=(0.05, 0.4), local_crops=8
        ),
        **common.training(
            epochs=100.0,
            batch=128,
            optimizer=optimizer(groups(5e-4), warmup=500),
        ),
    )


def paper() -> dict[str, Any]:
    return dict(
        method="dino",
        drop_path=0.1,
        student_temperature=0.1,
        center_momentum=0.9,
        freeze_last_layer=3.0,
        teacher=dict(
            momentum=0.996,
            temperature=0.07,
            # Initial value, and epochs until `temperature`.
            warmup_temperature=0.04,
            warmup_epochs=50,
        ),
        head=dict(out=65536, hidden=2048, bottleneck=256, batch_norm=False),
        augment=augment(
            global_scale=(0.25, 1.0), local_scale=(0.05, 0.25), local_crops=10
        ),
        **common.training(
            epochs=400.0,
            batch=1024,
            # 7.5e-4 per 256 examples of a batch, and 10 epochs of warm-up over the
            # 6,800 memes that are left to train on.
            optimizer=optimizer(
                groups(3e-3), warmup=66, floor=2e-6 / 3e-3, clip_each=0.3
            ),
        ),
    )


def augment(**sizes: Any) -> dict[str, Any]:
    """Crops for pictures such as ImageNet's."""
    return dict(
        global_size=224,
        local_size=96,
        flip=0.5,
        # In pixels of the crop.
        blur_sigma=(0.1, 2.0),
        grayscale=0.2,
        jitter=(0.4, 0.4, 0.2, 0.1),
        # For the first global crop, the second, and the local ones.
        solarize=(0.0, 0.2, 0.0),
        **sizes,
    )


def optimizer(
    groups: dict[str, Any],
    *,
    warmup: int,
    floor: float = 2e-3,
    weight_decay_end: float = 0.4,
    clip_each: float = 3.0,
) -> dict[str, Any]:
    return dict(
        rule="adamw",
        schedule="cosine",
        warmup=warmup,
        floor=floor,
        weight_decay=0.04,
        weight_decay_end=weight_decay_end,
        clip_each=clip_each,
        groups=groups,
    )


def groups(lr: float) -> dict[str, Any]:
    return dict(
        rest=dict(pattern="(?!.*/head/(prototypes|gain)).*", lr=lr),
        prototypes=dict(pattern=".*/head/(prototypes|gain)", lr=lr, frozen=True),
    )
