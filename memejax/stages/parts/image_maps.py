"""Attention and Grad-CAM maps of an arm's image encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from memejax import augment, explain
from memejax.stages.parts.models import image_encoder, normalization

Tree = Any


def image_maps(
    config: ConfigDict, arm: str, variables: Tree, *, images: np.ndarray
) -> dict[str, np.ndarray]:
    """Return title -> maps [n, h, w]: attention for a transformer, else Grad-CAM.

    Args:
        config: the run's config.
        arm: the encoder's arm.
        variables: params and batch_stats of all arms.
        images: uint8 [n, h, w, 3].
    """
    name = f"arms_{arm}"
    own = {
        collection: tree[name]["image_encoder"]
        for collection, tree in variables.items()
        if name in tree and "image_encoder" in tree[name]
    }
    if "params" not in own:
        # A control on captions alone.
        return {}
    encoder = image_encoder(config, arm)
    pixels = augment.normalize(augment.to_float(images), **normalization(config, arm))
    if encoder.explained_by != "grad_cam":
        maps_bnhw = np.asarray(
            explain.vit_attention(encoder.apply, own, images_bhwc=pixels)
            if encoder.explained_by == "attention"
            else explain.probe_attention(
                encoder.apply, own, images_bhwc=pixels, patch=encoder.patch
            )
        )
        heads = {f"{arm} head {i}": maps_bnhw[:, i] for i in range(maps_bnhw.shape[1])}
        return {f"{arm} attention": maps_bnhw.mean(axis=1), **heads}
    cam = explain.resnet_grad_cam(encoder.apply, own, images_bhwc=pixels)
    return {f"{arm} Grad-CAM": np.asarray(cam)}
