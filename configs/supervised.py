"""Supervised baselines: the same networks and fine-tuning, nothing pretrained by us.

command   python -m memejax.main --config=configs/supervised.py[:demo|full|paper]
            --config.arms="('cnn',)"                    one architecture
            --config.model.arm.modalities=image         without text
            --config.data.image_size=224                or 384 (full, paper)
hardware  demo: 2 CPU cores, 2 minutes; full and paper: one GPU; not run by us yet
is        configs/cass_mm.py without its first stage. With --config.weights.* the
          encoders start from those checkpoints, as the papers' rows do. In `paper`
          averaged word vectors stand for fastText's.
"""

from ml_collections import ConfigDict

from memejax.config import load_config


def get_config(preset: str = "demo") -> ConfigDict:
    config = load_config(f"configs/cass_mm.py:{preset}").unlock()
    config.name = "supervised"
    config.stages = ("finetune", "evaluate")
    del config.pretrain
    if preset == "paper":
        config.model.text = dict(name="words", hidden=150)
    return config.lock()
