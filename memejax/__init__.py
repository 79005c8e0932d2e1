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

from typing import TYPE_CHECKING

from memejax.lazy import exports

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

# `import memejax` loads nothing else, and a worker process no model code.
__getattr__, __dir__ = exports(
    __name__,
    {
        "attention": "memejax.explain",
        "augment": "memejax.augment",
        "auroc": "memejax.metrics",
        "binary_cross_entropy": "memejax.losses",
        "binary_report": "memejax.metrics",
        "cass": "memejax.losses",
        "collapse_panel": "memejax.losses",
        "curriculum": "memejax.curriculum",
        "dino": "memejax.losses",
        "dino_panel": "memejax.losses",
        "explain": "memejax.explain",
        "graphs": "memejax.graphs",
        "is_collapsed": "memejax.losses",
        "is_dino_collapsed": "memejax.losses",
        "load_predictor": "memejax.predict",
        "losses": "memejax.losses",
        "metrics": "memejax.metrics",
        "models": "memejax.models",
        "negative_cosine": "memejax.losses",
        "optim": "memejax.optim",
        "paired_comparison": "memejax.metrics.significance",
        "predict": "memejax.predict",
        "probes": "memejax.metrics",
        "profile": "memejax.profile",
        "sampling_probs": "memejax.curriculum",
        "sigmoid_focal": "memejax.losses",
        "significance": "memejax.metrics",
        "standardize": "memejax.losses",
        "steps": "memejax.steps",
        "variance_covariance": "memejax.losses",
        "views": "memejax.steps",
        "weights": "memejax.weights",
    },
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
