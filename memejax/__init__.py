"""memejax: is this meme hateful?

Pure functions for your own JAX code, imported when first used:

    from memejax import losses
    losses.cass(z_cnn, z_vit)  # [batch]

Its parts are attributes, too:

    `memejax.losses`, `memejax.augment`         objectives and views
    `memejax.models`, `memejax.graphs`          Linen modules, graphs of memes
    `memejax.curriculum`                        scores, sampling, plans
    `memejax.steps`, `memejax.optim`            one update
    `memejax.metrics`, `memejax.significance`   figures and their comparison
    `memejax.probes`, `memejax.attention`       features and attention looked into
    `memejax.weights`, `memejax.predict`        checkpoints in and out, new memes scored

`python -m memejax.main` trains.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memejax import (
        attention,
        augment,
        curriculum,
        graphs,
        losses,
        metrics,
        models,
        optim,
        predict,
        probes,
        profile,
        significance,
        steps,
        views,
        weights,
    )
    from memejax.curriculum import sampling_probs
    from memejax.losses import (
        binary_cross_entropy,
        cass,
        collapse_panel,
        dino,
        dino_panel,
        is_collapsed,
        is_dino_collapsed,
        negative_cosine,
        sigmoid_focal,
        standardize,
        variance_covariance,
    )
    from memejax.metrics import auroc, binary_report
    from memejax.predict import load_predictor
    from memejax.significance import paired_comparison

__version__ = "0.1.0"

# PEP 562: `import memejax` loads nothing else, and a worker process no model code.
_EXPORTS = {
    "auroc": "memejax.metrics",
    "binary_cross_entropy": "memejax.losses",
    "binary_report": "memejax.metrics",
    "cass": "memejax.losses",
    "collapse_panel": "memejax.losses",
    "dino": "memejax.losses",
    "dino_panel": "memejax.losses",
    "is_collapsed": "memejax.losses",
    "is_dino_collapsed": "memejax.losses",
    "load_predictor": "memejax.predict",
    "negative_cosine": "memejax.losses",
    "paired_comparison": "memejax.significance",
    "sampling_probs": "memejax.curriculum",
    "sigmoid_focal": "memejax.losses",
    "standardize": "memejax.losses",
    "variance_covariance": "memejax.losses",
}
_MODULES = (
    "attention",
    "augment",
    "curriculum",
    "graphs",
    "losses",
    "metrics",
    "models",
    "optim",
    "predict",
    "probes",
    "profile",
    "significance",
    "steps",
    "views",
    "weights",
)

__all__ = [
    "attention",
    "augment",
    "auroc",
    "binary_cross_entropy",
    "binary_report",
    "cass",
    "collapse_panel",
    "curriculum",
    "dino",
    "dino_panel",
    "graphs",
    "is_collapsed",
    "is_dino_collapsed",
    "load_predictor",
    "losses",
    "metrics",
    "models",
    "negative_cosine",
    "optim",
    "paired_comparison",
    "predict",
    "probes",
    "profile",
    "sampling_probs",
    "sigmoid_focal",
    "significance",
    "standardize",
    "steps",
    "variance_covariance",
    "views",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"memejax.{name}")
    raise AttributeError(f"module 'memejax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
