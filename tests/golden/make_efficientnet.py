"""Makes the golden file of EfficientNet-Lite: the original package's, but narrow.

    pip install --no-deps efficientnet_lite_pytorch
    python tests/golden/make_efficientnet.py

Written with torch 2.13 and efficientnet_lite_pytorch 0.1.0. The file holds `sizes`
(JSON, the attributes of our module), `tensor/<name>`, `images`, in evaluation mode
`features` (pooled), `logits` and `stage2` (a map), in training mode `train` (pooled)
and `after/<name>`, the statistics of BatchNorm after that step.
"""

import json
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet

HERE = Path(__file__).parent
CLASSES = 5
SIZES = dict(
    stage_sizes=(1, 1, 1, 2, 2, 2, 1),
    widths=(2, 4, 6, 10, 14, 24, 40),
    stem_width=4,
    features=160,
)


def draw(name, shape):
    """Values for a tensor, in steps of 1/64: they compress to a byte each."""
    rng = np.random.default_rng(list(name.encode()))
    if name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 1 and name.endswith("weight"):
        # Wide enough for ReLU6 to cut on both sides.
        values = 1.5 + 0.3 * rng.normal(size=shape)
    else:
        inputs = np.prod(shape[1:]) if len(shape) > 1 else 4
        values = rng.normal(size=shape) * inputs**-0.5
    return (np.round(values * 64) / 64).astype(np.float32)


def narrow():
    """Lite0 at an eighth of its width and half its depth, and any size of picture."""
    return EfficientNet.from_name(
        "efficientnet-lite0",
        width_coefficient=0.125,
        depth_coefficient=0.5,
        depth_divisor=2,
        fix_head_stem=False,
        num_classes=CLASSES,
        image_size=None,
        drop_connect_rate=None,
        dropout_rate=0.0,
    )


def randomise(model):
    """Draws every float of a model; returns it and its state dict without counters."""
    tensors = {
        k: draw(k, tuple(v.shape))
        for k, v in model.state_dict().items()
        if "num_batches" not in k
    }
    model.load_state_dict(
        {k: torch.from_numpy(v) for k, v in tensors.items()}, strict=False
    )
    return model.eval(), tensors


def channels_first(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def pooled(model, images):
    return model.extract_features(channels_first(images)).mean((2, 3)).numpy()


def main():
    """Write the file beside this one."""
    model, tensors = randomise(narrow())
    # Odd and even sides, where "same" padding differs.
    images = np.random.default_rng(3).normal(size=(4, 43, 36, 3))
    images = (np.round(images * 64) / 64).astype(np.float32)
    blocks = sum(SIZES["stage_sizes"][:3])
    with torch.no_grad():
        features, logits = pooled(model, images), model(channels_first(images))
        x = model._swish(model._bn0(model._conv_stem(channels_first(images))))
        for block in model._blocks[:blocks]:
            x = block(x)
        train = pooled(model.train(), images)
    after = {
        f"after/{k}": v.numpy() for k, v in model.state_dict().items() if "running" in k
    }
    np.savez_compressed(
        HERE / "efficientnet_lite.npz",
        **{f"tensor/{k}": v for k, v in tensors.items()},
        **after,
        sizes=json.dumps(SIZES),
        images=images,
        features=features,
        logits=logits.numpy(),
        stage2=x.numpy().transpose(0, 2, 3, 1),
        train=train,
    )


if __name__ == "__main__":
    main()
