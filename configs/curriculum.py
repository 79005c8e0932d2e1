"""Curricula on small labelled pictures: one network, all seeds in one program.

demo (default)
  command   python -m memejax.main --config=configs/curriculum.py
              --config.curriculum.kind=dsac                  or bac, uniform, ...
  hardware  2 CPU cores, a minute, nothing downloaded
  score     README.md has those of the study of all arms
  is        ten seeds of a perceptron on GeoShapes. All arms against each other, with
            statistics: python -m memejax.reproduce curriculum --data=geoshapes
            MNIST: --config.data.name=mnist --config.data.root=FOLDER

full
  command   python -m memejax.main --config=configs/curriculum.py:full
  hardware  one GPU, or hours on a CPU; not run by us yet
  is        as demo at the scale of Bengio et al.: 256 epochs of 10,000, 20 seeds.

paper
  command   as full, with :paper
  is        full with the thesis's readings where they differ: the temperature starts
            at 1 and only grows (its cap on the ratio), easier examples are favoured,
            as its text has it. It gives no size, rate or ratio; those are ours.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(preset: str = "demo") -> ConfigDict:
    config = demo()
    presets = {"demo": lambda _: None, "full": full, "paper": paper}
    if preset not in presets:
        raise ValueError(f"unknown preset {preset!r}: choose one of {sorted(presets)}")
    presets[preset](config)
    config.name = "curriculum"
    config.preset = preset
    return config


def demo() -> ConfigDict:
    return ConfigDict(
        dict(
            seed=0,
            seeds=10,
            stages=("classify",),
            data=dict(
                name="geoshapes",
                root=placeholder(str),
                # Pictures to train on, and to judge by: all, where not said.
                train=placeholder(int),
                validation=5000,
                test=placeholder(int),
                # GeoShapes: hard pictures ("geom"), easy ones ("basic") or both.
                pool="geom",
                label_noise=0.0,
            ),
            model=dict(
                network="perceptron",
                dtype="float32",
                perceptron=dict(hidden=(200, 200, 200), dropout=0.2, activation="relu"),
                # Keras's network for MNIST; in CONVNETS there is one for CIFAR-10.
                convnet=dict(
                    stages=((32, 64),), padding=(0, 0), dense=128, dropout=(0.25, 0.5)
                ),
                resnet=dict(stage_sizes=(2, 2, 2, 2), width=64, dropout=0.2),
            ),
            train=dict(
                steps=3000,
                batch=32,
                # Updates between evaluations.
                eval_every=300,
                optimizer=dict(
                    rule="sgd",
                    schedule="cosine",
                    warmup=0,
                    weight_decay=0.0,
                    clip=0.0,
                    groups=dict(all=dict(pattern=".*", lr=0.012)),
                ),
            ),
            curriculum=curriculum(warmup=300, refresh=300),
            # A run of kind "uniform" and the same seeds, whose scores bac ranks by;
            # without it bac trains one first.
            baseline=placeholder(str),
            checkpoint=dict(every=1500, keep=1),
            log=dict(every=300),
            # Seeds of a device: one after another, or as one batch. They are split over
            # the devices, so that "pmap", which splits a batch, is refused.
            parallel=dict(devices=placeholder(int), vectorize=False, mode="jit"),
            # A window of steps in the profiler, after so many; 0: none.
            profile=dict(start=0, steps=5),
        )
    )


def curriculum(*, warmup: int, refresh: int) -> dict:
    """The section that says in which order examples are trained on."""
    return dict(
        # uniform: shuffled passes; replacement; switch: easy pictures first; bac; dsac
        kind="uniform",
        score="entropy",
        # easy, hard; bac also random
        favour="easy",
        # Dropout passes of scores that take several.
        passes=20,
        # bac: tasks, and whether phases are of equal "updates" or "epochs".
        tasks=2,
        reading="updates",
        balanced=False,
        # switch: updates on easy pictures.
        switch=0,
        # dsac: largest by smallest probability, inf for no control, and its course.
        ratio=10.0,
        ratio_end=placeholder(float),
        ratio_schedule="constant",
        # 1: the ratio is only ever made smaller, as in the thesis; 0: always met.
        min_temperature=0.0,
        winsorize=0.0,
        # Updates before the first draw by score, and between two of them.
        warmup=warmup,
        refresh=refresh,
        # Power of the importance weights.
        correction=0.0,
    )


def full(config: ConfigDict) -> None:
    config.seeds = 20
    config.data.train = 10_000
    # 256 epochs of 10,000.
    config.train.steps = 80_000
    config.train.eval_every = 1250
    config.curriculum.warmup = config.curriculum.refresh = 313
    config.checkpoint.every = 10_000
    config.log.every = 1250


def paper(config: ConfigDict) -> None:
    full(config)
    config.curriculum.min_temperature = 1.0
