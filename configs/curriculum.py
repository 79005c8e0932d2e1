"""Curricula on small labelled pictures: one network, all seeds in one program.

demo (default)
  command   python -m memejax.main --config=configs/curriculum.py
              --config.curriculum.kind=dsac                  or bac, uniform, ...
  hardware  2 CPU cores, a minute, nothing downloaded
  score     see the study of all arms in configs/README.md
  is        ten seeds of a perceptron on GeoShapes. Comparison of all arms, with
            statistics: python -m memejax.reproduce curriculum --data=geoshapes
            MNIST: --config.data.name=mnist --config.data.root=FOLDER
            Examples are drawn by inverse CDF: the same draws by jax.random.categorical
            (--config.curriculum.draws=categorical) took 4 s per seed and refresh in
            place of 0.5 ms, several times the training.

full
  command   python -m memejax.main --config=configs/curriculum.py:full
  hardware  one GPU, or hours on a CPU; not run by us yet
  is        the demo at the scale of Bengio et al.: 256 epochs of 10,000, 20 seeds.

paper
  command   as full, with :paper
  is        full with the thesis's version where it differs: the temperature starts at
            1 and is only raised, step by step (its cap on the ratio, which entropy and
            BALD of a few classes never reach: at 1 the ratio is at most the number of
            classes); examples are drawn by jax.random.categorical; easier ones are
            favoured, as in its text, against the sign that its equations print. The
            thesis states no size, network, rate or ratio, no step of the temperature
            (here 0.01: its pseudocode is blank), no number of dropout passes (here 20),
            no warm-up or refresh of DSAC and no one reading of BAC's epochs; those are
            ours.

After the colon, behind the preset (`configs/curriculum.py:full,network=resnet`):
  network=perceptron|convnet|resnet    network to train
The section `curriculum` has the leaves of every kind, so that kinds can be compared.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from memejax.configs import common

NETWORKS: dict[str, dict[str, Any]] = {
    "perceptron": dict(hidden=(200, 200, 200), dropout=0.2, activation="relu"),
    # Keras's network for MNIST; CONVNETS has one for CIFAR-10.
    "convnet": dict(stages=((32, 64),), padding=(0, 0), dense=128, dropout=(0.25, 0.5)),
    "resnet": dict(stage_sizes=(2, 2, 2, 2), width=64, dropout=0.2),
}


def get_config(text: str = "") -> ConfigDict:
    preset, chosen = common.parse(text, network=tuple(NETWORKS))
    network, small = chosen["network"], preset == "demo"
    # Updates between evaluations, and between draws by score.
    every, refresh = (300, 300) if small else (1250, 313)
    config = ConfigDict(
        dict(
            name="curriculum",
            preset=preset,
            seed=0,
            seeds=10 if small else 20,
            stages=("classify",),
            data=data(10_000 if preset != "demo" else None),
            model=dict(
                network=network, dtype="float32", **{network: NETWORKS[network]}
            ),
            train=dict(
                # 256 epochs of 10,000, except in the demo.
                steps=3000 if small else 80_000,
                batch=32,
                eval_every=every,
                # Random shift in pixels, and the probability of mirroring; CIFAR-10's
                # standard is 4 and 0.5.
                augment=dict(shift=0, flip=0.0),
                optimizer=common.optimizer(
                    dict(all=dict(pattern=".*", lr=0.012)),
                    rule="sgd",
                    warmup=0,
                    weight_decay=0.0,
                    clip=0.0,
                ),
            ),
            curriculum=common.curriculum(
                *("uniform", "replacement", "switch", "bac", "dsac"),
                warmup=refresh,
                refresh=refresh,
                passes=20,
                draws="categorical" if preset == "paper" else "inverse_cdf",
            ),
            # A run of kind "uniform" with the same seeds, whose scores bac ranks by;
            # None: bac trains one first.
            baseline=placeholder(str),
            # A device runs its seeds one after another, or vectorized as one batch. The
            # seeds are split over the devices, so "pmap", which splits a batch, is
            # refused.
            parallel=dict(devices=placeholder(int), vectorize=False, mode="jit"),
            checkpoint=common.checkpoint(every=1500 if small else 10_000),
            log=common.log(every=every),
            profile=common.profile(),
        )
    )
    if preset == "paper":
        config.curriculum.min_temperature = 1.0
    return config.lock()


def data(train: int | None) -> dict[str, Any]:
    return dict(
        name="geoshapes",
        root=placeholder(str),
        # Numbers of pictures; None: all.
        train=common.optional(int, train),
        validation=5000,
        test=placeholder(int),
        # GeoShapes: hard pictures ("geom"), easy ones ("basic") or both.
        pool="geom",
        label_noise=0.0,
    )
