"""DINO on pictures alone, a ViT and a ResNet side by side; then fine-tuning with text.

demo (default)
  command   python -m memejax.main --config=configs/dino.py
  hardware  2 CPU cores, minutes, nothing downloaded
  is        the networks, data and fine-tuning of configs/cass_mm.py, so that only
            what is pretrained differs. On pictures with a visible concept, with a
            probe of what was learnt (README.md has the scores):
              --config.data.name=pictures --config.stages="('pretrain','probe')"

full
  command   python -m memejax.main --config=configs/dino.py:full
              --config.data.root=FOLDER --config.weights.image_cnn=RESNET50
              --config.weights.image_vit=VIT_B16
              --config.weights.text=DISTILBERT
  hardware  one GPU of 80 GB or several; not run by us yet, so without a score
  is        for thousands of pictures instead of a million: fewer prototypes, a quick
            teacher, a low teacher temperature, bfloat16.

paper
  command   as full, with :paper
  hardware  as full, several
  is        the published recipe of ViT-B/16 (400 epochs, 65,536 prototypes), at its
            batch of 1024. The ResNet-50 beside it has that recipe too, and not its
            own with SGD; --config.arms="('vit',)" leaves it out.
"""

from ml_collections import ConfigDict

from memejax.config import load_config


def get_config(preset: str = "demo") -> ConfigDict:
    config = load_config(f"configs/cass_mm.py:{preset}").unlock()
    # Curricula are for fine-tuning alone: configs/supervised.py, configs/cass_mm.py.
    del config.curriculum
    config.name = "dino"
    config.pretrain = dict(
        method="dino",
        steps=config.pretrain.get_ref("steps"),
        epochs=config.pretrain.get_ref("epochs"),
        batch=config.pretrain.batch,
        accumulate=1,
        drop_path=0.1,
        student_temperature=0.1,
        center_momentum=0.9,
        # Epochs in which the prototypes stay as they are.
        freeze_last_layer=1.0,
        teacher=dict(
            momentum=0.99,
            warmup_temperature=0.04,
            temperature=0.04,
            warmup_epochs=0,
        ),
        head=dict(
            out=4096,
            hidden=2048,
            bottleneck=256,
            layers=3,
            batch_norm=False,
            norm_last_layer=True,
        ),
        augment=dict(
            global_size=config.data.image_size,
            global_scale=(0.4, 1.0),
            local_size=96,
            local_scale=(0.05, 0.4),
            local_crops=8,
            flip=0.5,
            # In pixels of the crop.
            blur_sigma=(0.1, 2.0),
            grayscale=0.2,
            jitter=(0.4, 0.4, 0.2, 0.1),
            # Of the first global crop, the second, and the local ones.
            solarize=(0.0, 0.2, 0.0),
        ),
        optimizer=dict(
            rule="adamw",
            schedule="cosine",
            warmup=500,
            floor=2e-3,
            weight_decay=0.04,
            weight_decay_end=0.4,
            clip=0.0,
            clip_each=3.0,
            groups=groups(5e-4),
        ),
    )
    {"demo": demo, "full": full, "paper": paper}[preset](config)
    return config.lock()


def groups(lr: float) -> dict:
    return dict(
        rest=dict(pattern="(?!.*/head/(prototypes|gain)).*", lr=lr),
        prototypes=dict(pattern=".*/head/(prototypes|gain)", lr=lr, frozen=True),
    )


def demo(config: ConfigDict) -> None:
    section = config.pretrain
    section.steps = 500
    section.batch = 128
    section.drop_path = 0.0
    section.freeze_last_layer = 0.5
    # Sharp, or the outputs fade to uniform before they agree on anything.
    section.teacher.update(temperature=0.02, warmup_temperature=0.02)
    section.head.update(out=1024, hidden=256, bottleneck=64, batch_norm=True)
    section.augment.update(
        global_size=48,
        global_scale=(0.6, 1.0),
        local_size=32,
        local_crops=2,
        local_scale=(0.4, 0.8),
        # A blur of 2 pixels would leave nothing of a pattern in 48.
        blur_sigma=(0.1, 0.5),
        # Colours are the easier thing to agree on.
        grayscale=0.8,
        jitter=(0.4, 0.4, 0.4, 0.1),
        solarize=(0.0, 0.0, 0.0),
    )
    section.optimizer.update(
        warmup=30, weight_decay_end=0.04, clip_each=3.0, groups=groups(1e-3)
    )


def full(config: ConfigDict) -> None:
    section = config.pretrain
    section.augment.update(global_size=224, local_size=96)
    config.data.image_size = 384


def paper(config: ConfigDict) -> None:
    section = config.pretrain
    section.epochs = 400.0
    section.batch = 1024
    section.freeze_last_layer = 3.0
    section.teacher.update(momentum=0.996, temperature=0.07, warmup_epochs=50)
    section.head.out = 65536
    section.augment.update(global_size=224, global_scale=(0.25, 1.0), local_crops=10)
    section.augment.local_scale = (0.05, 0.25)
    # Per 256 examples of a batch 7.5e-4, and 10 epochs of warm-up.
    section.optimizer.update(
        clip_each=0.3, floor=2e-6 / 3e-3, warmup=83, groups=groups(3e-3)
    )
    config.model.text = dict(name="words", hidden=150)
