"""Explanations of encoders and of scores: maps, attributions, neighbours."""

from memejax.explain.attention import cls_attention as cls_attention
from memejax.explain.attention import probe_attention as probe_attention
from memejax.explain.attention import vit_attention as vit_attention
from memejax.explain.grad_cam import grad_cam as grad_cam
from memejax.explain.grad_cam import own_direction as own_direction
from memejax.explain.grad_cam import resnet_grad_cam as resnet_grad_cam
from memejax.explain.integrated import Integrated as Integrated
from memejax.explain.integrated import integrated_gradients as integrated_gradients
from memejax.explain.modalities import Modalities as Modalities
from memejax.explain.modalities import modalities as modalities
from memejax.explain.nearest import nearest as nearest
from memejax.explain.regions import blurred as blurred
from memejax.explain.regions import mean_colour as mean_colour
from memejax.explain.regions import occlusion as occlusion
from memejax.explain.regions import patch_sums as patch_sums
from memejax.explain.regions import smoothed as smoothed
from memejax.explain.words import leave_one_out as leave_one_out
from memejax.explain.words import word_sums as word_sums
