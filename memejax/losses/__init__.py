"""Losses and measures of collapse, as pure functions of arrays."""

from memejax.losses.cass import cass as cass
from memejax.losses.cass import negative_cosine as negative_cosine
from memejax.losses.center import sum_teacher as sum_teacher
from memejax.losses.center import update_center as update_center
from memejax.losses.center import update_center_from_sums as update_center_from_sums
from memejax.losses.collapse import collapse_panel as collapse_panel
from memejax.losses.collapse import is_collapsed as is_collapsed
from memejax.losses.cosine import unit_rows as unit_rows
from memejax.losses.dino import dino as dino
from memejax.losses.dino import dino_panel as dino_panel
from memejax.losses.dino import dino_panel_from_sums as dino_panel_from_sums
from memejax.losses.dino import is_dino_collapsed as is_dino_collapsed
from memejax.losses.dino import sum_dino as sum_dino
from memejax.losses.mining import Mined as Mined
from memejax.losses.mining import knn_vote as knn_vote
from memejax.losses.mining import mine as mine
from memejax.losses.rgcl import rgcl_contrastive as rgcl_contrastive
from memejax.losses.rgcl import rgcl_hinge as rgcl_hinge
from memejax.losses.supervised import binary_cross_entropy as binary_cross_entropy
from memejax.losses.supervised import sigmoid_focal as sigmoid_focal
from memejax.losses.supervised import weighted_mean as weighted_mean
from memejax.losses.variance import standardize as standardize
from memejax.losses.variance import variance_covariance as variance_covariance
