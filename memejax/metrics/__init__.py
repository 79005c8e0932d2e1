"""Metrics of scores, comparisons of methods, and probes of features; on the host.

reports.py       AUROC, accuracy, F1, thresholds and intervals of one model
calibration.py   temperature, Platt, isotonic; reliability and calibration error
thresholds.py    rules such as precision>=0.9, and thresholds that keep them
significance.py  paired comparison of two, Holm's correction, verdicts
probes.py        nearest neighbours and linear probe on frozen features
"""

from typing import TYPE_CHECKING

from memejax.lazy import exports

# The mean of the arms' probabilities, reported beside each arm.
AVERAGE = "average"

if TYPE_CHECKING:
    from memejax.metrics import calibration as calibration
    from memejax.metrics import probes as probes
    from memejax.metrics import significance as significance
    from memejax.metrics import thresholds as thresholds
    from memejax.metrics.reports import Scores as Scores
    from memejax.metrics.reports import auroc as auroc
    from memejax.metrics.reports import best_threshold as best_threshold
    from memejax.metrics.reports import binary_report as binary_report
    from memejax.metrics.reports import by_index as by_index
    from memejax.metrics.reports import constant_report as constant_report
    from memejax.metrics.reports import mean_std as mean_std
    from memejax.metrics.reports import read_predictions as read_predictions
    from memejax.metrics.reports import reports_by_arm as reports_by_arm
    from memejax.metrics.reports import shown_arms as shown_arms
    from memejax.metrics.reports import write_predictions as write_predictions
    from memejax.metrics.significance import paired_comparison as paired_comparison

__getattr__, __dir__ = exports(
    __name__,
    {
        "calibration": "memejax.metrics.calibration",
        "probes": "memejax.metrics.probes",
        "significance": "memejax.metrics.significance",
        "thresholds": "memejax.metrics.thresholds",
        "Scores": "memejax.metrics.reports",
        "auroc": "memejax.metrics.reports",
        "best_threshold": "memejax.metrics.reports",
        "binary_report": "memejax.metrics.reports",
        "by_index": "memejax.metrics.reports",
        "constant_report": "memejax.metrics.reports",
        "mean_std": "memejax.metrics.reports",
        "read_predictions": "memejax.metrics.reports",
        "reports_by_arm": "memejax.metrics.reports",
        "shown_arms": "memejax.metrics.reports",
        "write_predictions": "memejax.metrics.reports",
        "paired_comparison": "memejax.metrics.significance",
    },
)
