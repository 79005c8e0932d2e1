"""What several test files need."""

import pathlib
import shutil

from memejax.bench import pretraining
from memejax.config import load_config

ROOT = pathlib.Path(__file__).parents[1]
TINY = pretraining.TINY | {
    "data.synthetic.train": 64,
    "data.synthetic.dev": 16,
    "data.synthetic.test": 16,
    "pretrain.steps": 12,
    "pretrain.batch": 16,
    "pretrain.optimizer.warmup": 2,
    "finetune.steps": 12,
    "finetune.batch": 16,
    "finetune.optimizer.warmup": 2,
    "finetune.eval_every": 4,
    "checkpoint.every": 3,
    "log.every": 5,
}


def tiny(**changes):
    """The demo's config, but for its sizes."""
    config = load_config(str(ROOT / "configs/cass_mm.py"))
    config.update_from_flattened_dict(TINY | changes)
    return config


def without_data(finished, copy):
    """Copies what a finished run's folder is read for by those who use the run."""
    left_out = shutil.ignore_patterns("memes", "pretrain", "cache")
    return shutil.copytree(finished, copy, ignore=left_out)
