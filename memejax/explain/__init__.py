"""Visual explanations of encoders: attention of a ViT, Grad-CAM of a ResNet."""

from memejax.explain.attention import cls_attention as cls_attention
from memejax.explain.attention import probe_attention as probe_attention
from memejax.explain.attention import vit_attention as vit_attention
from memejax.explain.grad_cam import grad_cam as grad_cam
from memejax.explain.grad_cam import own_direction as own_direction
from memejax.explain.grad_cam import resnet_grad_cam as resnet_grad_cam
