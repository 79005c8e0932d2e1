"""Multimodal CASS: two image+text arms pretrained against each other, then fine-tuned.

demo (default)
  command   python -m memejax.main --config=configs/cass_mm.py
  hardware  2 CPU cores, 5 minutes, nothing downloaded
  is        small models on 11,000 built-in memes whose label depends on picture and
            caption together; README.md has the scores. With --config.data.root=FOLDER
            the same models on your memes.

full
  command   python -m memejax.main --config=configs/cass_mm.py:full
              --config.data.root=FOLDER --config.weights.image_cnn=RESNET50
              --config.weights.image_vit=VIT_B16_384
              --config.weights.text=DISTILBERT
  hardware  one GPU of 80 GB or several; not run by us yet, so without a score
  is        the corrected recipe at the paper's scale: heads trained, views of their
            own for the arms, outputs standardised over the batch, terms against
            collapse, bfloat16.

paper
  command   as full, with :paper
  hardware  as full
  is        the recipe as published, which collapses; for comparison only. Its quirks,
            kept: `fusion_layer` and `fc` are in no parameter group of the original, so
            they stay at their random start (here: group `frozen`); the learning rate
            falls by a fifth whenever the loss of a batch has not improved for two
            batches, and so reaches its floor of 4.4e-8 within about 200; both arms see
            the same picture without augmentation and nothing works against a constant
            output. Not kept: offsets of 1e-5 that the original adds to the outputs;
            its choice of the best epoch by training loss; its split of the training
            memes by random id, which leaks captions (here by caption). Fine-tuning of
            the multimodal arms was not published: the values are those of the paper's
            image-only rows, with class weights in place of undersampling.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from memejax.config import load_config


def get_config(preset: str = "demo") -> ConfigDict:
    presets = {"demo": demo, "full": full, "paper": paper}
    if preset not in presets:
        raise ValueError(f"unknown preset {preset!r}: choose one of {sorted(presets)}")
    config = presets[preset]()
    config.name = "cass_mm"
    config.preset = preset
    config.seed = 0
    config.seeds = 1
    config.stages = ("pretrain", "finetune", "evaluate")
    # Of the image encoders below; one alone can be fine-tuned, CASS needs two.
    config.arms = ("cnn", "vit")
    # Checkpoints to start from: folders, files or names on the hub. An encoder then
    # has the checkpoint's sizes.
    config.weights = dict(
        image_cnn=placeholder(str),
        image_vit=placeholder(str),
        text=placeholder(str),
    )
    # What `python -m memejax.evaluate` (or a stage "probe") looks at.
    config.probe = dict(
        # By default the last one with labels.
        split=placeholder(str),
        k=20,
        # At most so many of a split.
        examples=10_000,
    )
    config.curriculum = curriculum()
    # A window of steps in the profiler, after so many; 0: none.
    config.profile = dict(start=0, steps=5)
    config.parallel = dict(
        # Of each process; by default all that there are.
        devices=placeholder(int),
        # How a step is compiled for them: "jit", of the whole batch, or "pmap", of a
        # part of it (for compatibility: JAX only maintains it). Without dropout both
        # compute the same; its masks differ.
        mode="jit",
        # Whether parameters and all that is kept beside them are divided over the
        # devices (FSDP), which saves memory; with "jit" alone.
        shard_parameters=False,
        # Whether encoders' blocks are computed again in the backward pass, which saves
        # memory and takes time.
        remat=False,
    )
    return config


def demo() -> ConfigDict:
    config = ConfigDict()
    config.data = data(image_size=48, text_length=16)
    config.data.vocabulary = 2000
    config.model = model(
        dtype="float32",
        cnn=dict(
            name="resnet",
            normalization="checkpoint",
            stage_sizes=(1, 1, 1),
            bottleneck=False,
            width=32,
            stem="patch4",
        ),
        vit=dict(
            name="vit",
            normalization="checkpoint",
            hidden=96,
            layers=4,
            heads=4,
            mlp=192,
            patch=8,
        ),
        text=dict(
            name="transformer",
            hidden=96,
            layers=2,
            heads=4,
            mlp=192,
            dropout=0.0,
        ),
        arm=dict(
            fusion="product",
            image_width=0,
            embed=128,
            fused=256,
            out=128,
            normalize=True,
        ),
    )
    config.augment = augmentation(crop_scale=(0.6, 1.0), grayscale=0.3)
    groups = dict(
        cnn=dict(pattern="arms_cnn/.*", lr=2e-3),
        vit=dict(pattern="arms_vit/.*", lr=1e-3),
    )
    config.pretrain = pretrain(
        steps=200,
        batch=128,
        objective=dict(standardize=True, variance=0.0, covariance=0.04),
        token_dropout=0.1,
        caption_dropout=0.5,
        optimizer=optimizer("cosine", groups, warmup=20),
    )
    config.finetune = finetune(
        steps=120,
        batch=128,
        eval_every=40,
        optimizer=optimizer("cosine", groups, warmup=20),
    )
    config.pipeline = dict(cache="memory", threads=2, workers=0)
    config.checkpoint = dict(every=100, keep=2)
    config.log = dict(every=20)
    return config


def full() -> ConfigDict:
    config = ConfigDict()
    config.data = data(image_size=384, text_length=64)
    config.model = model(
        dtype="bfloat16",
        cnn=dict(name="resnet50", normalization="checkpoint"),
        vit=dict(name="vit_base", normalization="checkpoint"),
        text=dict(name="distilbert"),
        arm=dict(normalize=True),
    )
    config.augment = augmentation(crop_scale=(0.4, 1.0), grayscale=0.2)
    config.pretrain = pretrain(
        epochs=100.0,
        batch=128,
        objective=dict(standardize=True, variance=0.0, covariance=0.04),
        token_dropout=0.15,
        caption_dropout=0.3,
        optimizer=optimizer("cosine", groups(1e-4, 1e-5, 1e-3), warmup=500),
    )
    config.finetune = finetune(
        epochs=20.0,
        batch=64,
        eval_every=100,
        patience=10,
        optimizer=optimizer("cosine", groups(2e-5, 1e-5, 2e-4), warmup=200),
    )
    config.pipeline = dict(cache="disk", threads=16, workers=0)
    config.checkpoint = dict(every=500, keep=2)
    config.log = dict(every=20)
    return config


def paper() -> ConfigDict:
    config = full()
    config.data.text_length = 200
    config.model.dtype = "float32"
    config.model.arm.normalize = False
    config.augment = augmentation(
        crop_scale=(1.0, 1.0), grayscale=0.0, flip=0.0, jitter_probability=0.0
    )
    published = dict(
        # The 512-wide layer is the vision model's own classifier in the original.
        vision=dict(pattern=".*/(image_encoder|image_head)/.*", lr=1e-4),
        text=dict(pattern=".*/text_encoder/.*", lr=1e-5),
        adders=dict(
            pattern=".*/(vision|language)_adder/.*", lr=1e-3, weight_decay=1e-3
        ),
        frozen=dict(pattern=".*/(fusion_layer|fc)/.*", lr=0.0),
    )
    config.pretrain = pretrain(
        epochs=100.0,
        batch=4,
        objective=dict(standardize=False, variance=0.0, covariance=0.0),
        independent_views=False,
        optimizer=optimizer(
            "plateau",
            published,
            warmup=0,
            weight_decay=0.0,
            clip=0.0,
            plateau=dict(factor=0.8, patience=1, min_lr=4.4e-8),
        ),
    )
    config.finetune = finetune(
        epochs=50.0,
        batch=64,
        accumulate=16,
        eval_every=100,
        optimizer=optimizer(
            "constant",
            dict(all=dict(pattern=".*", lr=5e-5)),
            warmup=0,
            weight_decay=0.01,
        ),
    )
    return config


def groups(image: float, text: float, heads: float) -> dict[str, Any]:
    """Learning rates of the image encoders, the text encoders and all else."""
    return dict(
        image=dict(pattern=".*/image_encoder/.*", lr=image),
        text=dict(pattern=".*/text_encoder/.*", lr=text),
        heads=dict(pattern=HEADS, lr=heads),
    )


def curriculum() -> ConfigDict:
    """In which order fine-tuning draws examples; see configs/curriculum.py."""
    section = load_config("configs/curriculum.py").curriculum
    section.warmup = section.refresh = 40
    # No meme is known to be easy; scores of passes ask the arms.
    del section.switch, section.passes
    return section


# Everything of an arm but its encoders.
HEADS = "arms_[^/]*/(?!image_encoder|text_encoder).*"


def data(*, image_size: int, text_length: int) -> ConfigDict:
    return ConfigDict(
        dict(
            name="memes",
            root=placeholder(str),
            dev="dev_seen",
            # Share of the training memes held out by caption, where dev="validation".
            validation=0.2,
            on_bad_record="error",
            max_pixels=50_000_000,
            # 0: the size that the checkpoints of weights.image_* were trained at.
            image_size=image_size,
            resize="square",
            text_length=text_length,
            # By default that of weights.text.
            tokenizer=placeholder(str),
            # Of a tokenizer trained on the captions, where there is none.
            vocabulary=8000,
            synthetic=dict(
                train=8000,
                dev=1000,
                test=2000,
                concepts=4,
                image_leak=0.0,
                text_leak=0.0,
                label_noise=0.0,
            ),
        )
    )


def model(*, dtype: str, cnn, vit, text, arm) -> dict[str, Any]:
    figure_2 = dict(
        modalities="both",
        text_pooling="cls",
        fusion="concat",
        image_width=512,
        embed=300,
        fused=256,
        out=1000,
        normalize=False,
        predictor=0,
    )
    # normalization "imagenet", "half" (to [-1, 1]), or "checkpoint": that of
    # weights.image_<arm>, ImageNet's without one.
    return dict(
        dtype=dtype,
        share_text=False,
        image=dict(cnn=cnn, vit=vit),
        text=text,
        arm=figure_2 | arm,
    )


def augmentation(
    *,
    crop_scale: tuple[float, float],
    grayscale: float,
    flip: float = 0.5,
    jitter: tuple[float, ...] = (0.4, 0.4, 0.4, 0.1),
    jitter_probability: float = 0.8,
) -> dict[str, Any]:
    return dict(
        crop_scale=crop_scale,
        flip=flip,
        # Strength of brightness, contrast, saturation, hue.
        jitter=jitter,
        jitter_probability=jitter_probability,
        grayscale=grayscale,
    )


def pretrain(
    *, batch: int, objective, optimizer, steps=None, epochs=None, **views
) -> ConfigDict:
    section = ConfigDict(
        dict(
            method="multimodal_cass",
            steps=placeholder(int),
            epochs=placeholder(float),
            batch=batch,
            accumulate=1,
            # Standardised outputs have variance 1: the variance term is for raw ones.
            objective=dict(objective, stop_gradient=False),
            # Whether each arm sees a random view of its own.
            independent_views=views.get("independent_views", True),
            token_dropout=views.get("token_dropout", 0.0),
            caption_dropout=views.get("caption_dropout", 0.0),
            optimizer=optimizer,
        )
    )
    section.steps, section.epochs = steps, epochs
    return section


def finetune(
    *,
    batch: int,
    eval_every: int,
    optimizer,
    steps=None,
    epochs=None,
    accumulate: int = 1,
    patience: int = 0,
) -> ConfigDict:
    section = ConfigDict(
        dict(
            steps=placeholder(int),
            epochs=placeholder(float),
            batch=batch,
            accumulate=accumulate,
            balance=True,
            eval_every=eval_every,
            patience=patience,
            optimizer=optimizer,
        )
    )
    section.steps, section.epochs = steps, epochs
    return section


def optimizer(schedule: str, groups, *, warmup: int, **more) -> dict[str, Any]:
    """A group's own weight_decay or clip goes before the optimizer's."""
    return dict(
        rule=more.pop("rule", "adamw"),
        schedule=schedule,
        warmup=warmup,
        weight_decay=more.pop("weight_decay", 0.01),
        clip=more.pop("clip", 1.0),
        groups=groups,
        **more,
    )
