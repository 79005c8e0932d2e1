"""What several test files need."""

import contextlib
import pathlib
import re
import shutil

import pytest

from memejax.bench import pretraining
from memejax.config import flatten, load_config

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


def tiny(text="demo", **changes):
    """The demo's config, but for its sizes; `text` is what stands after the colon."""
    return shrunk(load_config(str(ROOT / f"configs/cass_mm.py:{text}")), **changes)


def shrunk(config, sizes=TINY, **changes):
    """A demo's config with the sizes of what it has, and with changes."""
    known = set(flatten(config.to_dict()))
    # Sizes go before those of a network's name, beside which they do not stand.
    named = ("model.image.cnn", "model.image.vit", "model.text")
    sizes = {
        leaf: value
        for leaf, value in sizes.items()
        if leaf in known or (leaf.startswith(named) and "model" in config)
    }
    with config.unlocked():
        config.update_from_flattened_dict(sizes)
    config.update_from_flattened_dict(changes)
    return config


def without_data(finished, copy):
    """Copies what a finished run's folder is read for by those who use the run."""
    left_out = shutil.ignore_patterns("memes", "pretrain", "cache")
    return shutil.copytree(finished, copy, ignore=left_out)


@contextlib.contextmanager
def refused(capsys, message):
    """Checks that the body ends with status 2 and an error that matches."""
    with pytest.raises(SystemExit) as ended:
        yield
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and re.search(message, shown), shown
