"""Heads on stored features of pictures and captions, trained in seconds.

demo (default)
  command   python -m memejax.main --config=configs/heads.py
              --config.extract.run=RUN        a finished run, such as the demo of
                                              configs/supervised.py; without one the
                                              encoders stay random, with a note
  hardware  2 CPU cores, a minute
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from memejax.configs import common

HEADS = ("linear", "concat", "align", "cross", "memeclip", "rgcl", "zero_shot")


def get_config(text: str = "") -> ConfigDict:
    preset, chosen = common.parse(text, ("demo",), head=HEADS)
    return ConfigDict(
        dict(
            name="heads",
            preset=preset,
            seed=0,
            seeds=1,
            stages=("heads", "evaluate"),
            # A store to train on; None extracts one into the run's folder.
            features=placeholder(str),
            weights=common.weights("image_cnn", "image_vit", "text"),
            data=common.data(preset),
            model=common.model(
                preset, arm=dict(modalities="both", text_pooling="mean")
            ),
            extract=common.extract(
                entities="none", keep_encoders=True, allow_random=True, prompts=PROMPTS
            ),
            heads=heads(chosen["head"]),
            parallel=dict(
                devices=placeholder(int),
                mode="jit",
                # Whether a device trains its seeds as one batch: for accelerators.
                vectorize=False,
            ),
            pipeline=common.pipeline(preset),
            checkpoint=common.checkpoint(every=100),
            log=common.log(),
            profile=common.profile(),
            report=common.report(),
        )
    ).lock()


# Of towers that share a space. MemeCLIP starts from its own prompts.
PROMPTS = dict(
    zero_shot=dict(benign=("a meme.",), hateful=("a hatespeech meme.",)),
    start=dict(
        benign=("a photo of a Benign Meme.",), hateful=("a photo of a Harmful Meme.",)
    ),
)


def heads(head: str) -> dict[str, Any]:
    """The head and its training."""
    return dict(
        head=head,
        # Whether features have mean 0 and deviation 1 over the training memes.
        standardize=True,
        # Whether both classes weigh the same.
        balance=True,
        # For "linear": C, from the strongest penalty on.
        strengths=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
        # Attributes of the others; None: as published.
        width=placeholder(int),
        layers=placeholder(int),
        map_dropout=placeholder(float),
        fusion_dropout=placeholder(float),
        dropout=placeholder(float),
        epochs=20.0,
        batch=64,
        optimizer=common.optimizer(
            dict(all=dict(pattern=".*", lr=1e-4)), warmup=0, weight_decay=1e-4, clip=0.1
        ),
    )
