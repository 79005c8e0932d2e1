"""Supervised baselines: the same networks and fine-tuning, without our pretraining.

command   python -m memejax.main --config=configs/supervised.py[:demo|full|paper]
            --config.arms="('cnn',)"                    one architecture
            --config.model.arm.modalities=image         without text
            --config.data.image_size=224                or 384 (full, paper)
hardware  demo: 2 CPU cores, 2 minutes; full and paper: one GPU; not run by us yet
is        configs/cass_mm.py without its first stage. With --config.weights.* the
          encoders start from those checkpoints, like the papers' rows. In `paper`
          averaged word vectors stand for the fastText of the paper's code, and have
          no checkpoint; the paper's text says DistilBERT (`:paper,text=distilbert`);
          a random fifth of the training memes chooses the checkpoint, as in the
          paper's text. Not kept of its code: see `paper` in configs/cass.py.

After the colon, behind the preset (`configs/supervised.py:demo,curriculum=dsac`):
  curriculum=none|uniform|replacement|bac|dsac    order of the training examples
  text=words|distilbert                           text encoder of the preset paper
"""

from ml_collections import ConfigDict

from memejax.configs import common


def get_config(text: str = "") -> ConfigDict:
    preset, chosen = common.parse(text, curriculum=common.CURRICULA, text=common.TEXTS)
    config = ConfigDict(
        dict(
            name="supervised",
            preset=preset,
            seed=0,
            seeds=1,
            stages=("finetune", "evaluate"),
            # Image encoders to use, of those in `model`.
            arms=("cnn", "vit"),
            data=common.data(preset, certify=0.0),
            **common.image_only(preset, chosen["text"]),
            augment=common.augmentation(preset),
            finetune=common.finetune(preset),
            **common.runtime(preset),
        )
    )
    common.add_curriculum(config, chosen["curriculum"])
    return config.lock()
