"""memejax: is this meme hateful?

Pure functions for your own JAX code, imported when first used:

    from memejax import losses
    losses.cass(z_cnn, z_vit)  # [batch]

Its parts are attributes, too:

    `memejax.losses`, `memejax.augment`    objectives and views
    `memejax.models`, `memejax.graphs`     Linen modules, graphs of memes
    `memejax.curriculum`                   scores, sampling, plans
    `memejax.steps`, `memejax.optim`       one update
    `memejax.metrics`, `memejax.explain`   figures, their comparison, attention maps
    `memejax.weights`, `memejax.predict`   checkpoints in and out, new memes scored

`python -m memejax.main` trains.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memejax import (
        augment,
        curriculum,
        explain,
        graphs,
        losses,
        metrics,
        models,
        optim,
        predict,
        profile,
        steps,
        weights,
    )
    from memejax.curriculum import sampling_probs
    from memejax.explain import attention
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
    from memejax.metrics import auroc, binary_report, probes, significance
    from memejax.metrics.significance import paired_comparison
    from memejax.predict import load_predictor
    from memejax.steps import views

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
    "paired_comparison": "memejax.metrics.significance",
    "sampling_probs": "memejax.curriculum",
    "sigmoid_focal": "memejax.losses",
    "standardize": "memejax.losses",
    "variance_covariance": "memejax.losses",
}
_MODULES = {
    **{
        name: f"memejax.{name}"
        for name in (
            "augment",
            "curriculum",
            "explain",
            "graphs",
            "losses",
            "metrics",
            "models",
            "optim",
            "predict",
            "profile",
            "steps",
            "weights",
        )
    },
    "attention": "memejax.explain.attention",
    "probes": "memejax.metrics.probes",
    "significance": "memejax.metrics.significance",
    "views": "memejax.steps.views",
}

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
    "explain",
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
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module 'memejax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
