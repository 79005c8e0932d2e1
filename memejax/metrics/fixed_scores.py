"""A classifier of scikit-learn whose scores are given."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class FixedScores(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose input is its own score, for `calibration.fit`."""

    classes_ = np.array([0, 1])

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, x: np.ndarray, y: np.ndarray) -> FixedScores:
        """Return itself: there is nothing to fit."""
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        """Return the scores `[n]` of inputs `[n, 1]`."""
        return x[:, 0]

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the classes, 1 for scores above 0, of inputs `[n, 1]`."""
        return (x[:, 0] > 0).astype(np.int64)
