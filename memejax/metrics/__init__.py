"""Metrics of scores, comparisons of methods, and probes of features; on the host.

reports.py       AUROC, accuracy, F1, thresholds and intervals of one model
calibration.py   temperature, Platt, isotonic; reliability and calibration error
thresholds.py    rules such as precision>=0.9, and thresholds that keep them
significance.py  paired comparison of two, Holm's correction, verdicts
probes.py        nearest neighbours and linear probe on frozen features
"""

from memejax.metrics import calibration as calibration
from memejax.metrics import probes as probes
from memejax.metrics import significance as significance
from memejax.metrics import thresholds as thresholds
from memejax.metrics.reports import AVERAGE as AVERAGE
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
