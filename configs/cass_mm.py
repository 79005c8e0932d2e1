"""Multimodal CASS: two image+text arms pretrained against each other, fine-tuned.

    demo   python -m memejax.main --config=configs/cass_mm.py
    full   python -m memejax.main --config=configs/cass_mm.py:full
             --config.data.root=FOLDER
    paper  the same with :paper
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def get_config(preset: str = "demo") -> ConfigDict:
    presets = {"demo": demo, "full": full, "paper": paper}
    if preset not in presets:
        raise ValueError(f"unknown preset {preset!r}: choose one of {sorted(presets)}")
    config = presets[preset]()
    config.preset = preset
    return config


def demo() -> ConfigDict:
    """Small models on built-in memes, for a CPU."""
    config = ConfigDict()
    config.name = "cass_mm"
    config.preset = "demo"
    config.seed = 0
    config.seeds = 1
    config.stages = ("pretrain", "finetune", "evaluate")
    config.data = data()
    config.model = dict(
        dtype="float32",
        share_text=False,
        image=dict(
            cnn=dict(
                name="resnet",
                stage_sizes=(1, 1, 1),
                bottleneck=False,
                width=32,
                stem="patch4",
            ),
            vit=dict(
                name="vit", hidden=96, layers=4, heads=4, mlp=192, patch=6, grid=8
            ),
        ),
        text=dict(
            name="transformer",
            hidden=96,
            layers=2,
            heads=4,
            mlp=192,
            max_length=16,
            dropout=0.0,
        ),
        arm=dict(
            modalities="both",
            fusion="product",
            image_width=0,
            embed=128,
            fused=256,
            out=256,
            normalize=True,
            predictor=0,
            dropout=0.0,
        ),
    )
    config.weights = dict(
        image=dict(cnn=placeholder(str), vit=placeholder(str)), text=placeholder(str)
    )
    views = dict(
        independent=True,
        token_dropout=0.1,
        crop_scale=(0.6, 1.0),
        flip=0.5,
        vertical_flip=0.0,
        brightness=0.4,
        contrast=0.4,
        saturation=0.0,
        hue=0.0,
        jitter_probability=0.8,
        grayscale=0.2,
        noise=0.0,
    )
    config.pretrain = dict(
        steps=placeholder(int),
        epochs=placeholder(float),
        batch=128,
        accumulate=1,
        panel_every=10,
        objective=dict(
            standardize=True, variance=1.0, covariance=0.04, stop_gradient=False
        ),
        augment=views,
        optimizer=optimizer(lr=2e-3, warmup=20),
    )
    config.pretrain.steps = 200
    config.finetune = dict(
        steps=placeholder(int),
        epochs=placeholder(float),
        batch=128,
        accumulate=1,
        balance=True,
        eval_every=100,
        patience=0,
        augment=dict(views, token_dropout=0.0, independent=True),
        optimizer=optimizer(lr=2e-3, warmup=50),
    )
    config.finetune.steps = 200
    config.evaluate = dict(batch=256, bootstrap=1000)
    config.pipeline = dict(cache="memory", threads=2, workers=0, prefetch=2)
    config.checkpoint = dict(every=100, keep=2)
    config.log = dict(every=20, tensorboard=True)
    config.parallel = dict(devices=placeholder(int))
    return config


def data() -> ConfigDict:
    """Built-in memes at 48 pixels."""
    config = ConfigDict()
    config.root = placeholder(str)
    config.train = "train"
    config.dev = "dev_seen"
    config.validation = 0.2
    config.on_bad_record = "error"
    config.max_pixels = 100_000_000
    config.image_size = 48
    config.resize = "square"
    config.mean = IMAGENET_MEAN
    config.std = IMAGENET_STD
    config.text_length = 16
    config.tokenizer = placeholder(str)
    config.vocabulary = 2000
    config.synthetic = dict(
        train=8000,
        dev=1000,
        test=2000,
        size=48,
        concepts=4,
        image_leak=0.0,
        text_leak=0.0,
        label_noise=0.0,
    )
    return config


def optimizer(*, lr: float, warmup: int) -> ConfigDict:
    """AdamW, one group an arm."""
    group = dict(weight_decay=0.01, clip=1.0)
    return ConfigDict(
        dict(
            schedule="cosine",
            warmup=warmup,
            final=0.0,
            b1=0.9,
            b2=0.999,
            plateau=dict(factor=0.8, patience=1, min_lr=4.4e-8),
            groups=dict(
                cnn=dict(pattern="arms_cnn/.*", lr=lr, **group),
                vit=dict(pattern="arms_vit/.*", lr=lr / 2, **group),
            ),
        )
    )


def full() -> ConfigDict:
    """Placeholder until the demo settles."""
    return demo()


def paper() -> ConfigDict:
    """Placeholder until the demo settles."""
    return demo()
