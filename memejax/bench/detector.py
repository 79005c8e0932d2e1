"""Mask R-CNN on one picture per pass: ours, compiled, and torchvision's.

    python -m memejax.bench.detector

Both have the same random weights of the published architecture, ResNet-50 with a
pyramid and 91 classes, detect the objects of one picture of 400 x 400 pixels through
all stages (resized, 1000 proposals, 100 detections) and paste their masks onto it. Ours
is one compiled program and NumPy for the masks, on all cores; torchvision's runs at its
best number of threads, in another Python (`--peer-python`, by default the system's, for
Debian's python3-torchvision) that stays alive throughout: the two take turns. Without
torchvision in that Python only ours runs, with a message.

The boxes that both find are compared before the timing. With random weights many scores
are nearly equal, so that rounding may change the order of some boxes.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from memejax.bench import pairs, tables
from memejax.bench.command_line import Parser
from memejax.bench.peers import Peer
from memejax.command_line import prepare
from memejax.errors import command

CLASSES, CANDIDATES, PROPOSALS = 91, 1000, 1000
STAGES = (3, 4, 6, 3)
_SCRIPT = pathlib.Path(__file__).with_name("torchvision_peer.py")


@command
def main() -> None:
    """Run the benchmark."""
    options = _options()
    prepare()
    tensors = random_tensors(shapes())
    picture = make_picture(options.side)
    settings = {
        "side": options.side,
        "candidates": CANDIDATES,
        "proposals": PROPOSALS,
        "detections": options.detections,
    }
    find = ours(tensors, picture, settings)
    began = time.perf_counter()
    found = find()
    about = {
        "unit": "pictures/s",
        **settings,
        "compilation and first pass": time.perf_counter() - began,
        "our detections": len(found["scores"]),
    }

    def speed() -> float:
        began = time.perf_counter()
        find()
        return 1 / (time.perf_counter() - began)

    with tempfile.TemporaryDirectory() as folder:
        peer = start_peer(options.peer_python, tensors, picture, settings, folder)
        if peer is None:
            print(f"{options.peer_python} has no torchvision: timing only our side")
            figures: dict[str, Any] = {"ours": [speed() for _ in range(options.pairs)]}
        else:
            with peer:
                figures = _compare(peer, speed, found, pairs_=options.pairs)
    pairs.write("detector", {**about, **figures}, options.out)
    print(tables.text(_rows(figures)))


def _options() -> argparse.Namespace:
    parser = Parser("detector", __doc__, pairs=9)
    parser.number("--side", 400, text="width and height of the picture, in pixels")
    parser.number("--detections", 100, text="largest number of detected objects")
    parser.add_argument(
        "--peer-python",
        default="/usr/bin/python3",
        metavar="PYTHON",
        help="the Python that has torchvision",
    )
    return parser.parse_args()


def _compare(
    peer: Peer, speed: Callable[[], float], found: Mapping[str, Any], *, pairs_: int
) -> dict[str, Any]:
    """Time both sides in turn, and count the boxes on which they agree."""
    threads = peer.best_threads()
    theirs = peer.request("run")
    return {
        "peer is": peer.about,
        "peer's threads": threads,
        "peer's detections": len(theirs["scores"]),
        "boxes that both find": matched(found, theirs),
        **pairs.in_turn(
            speed, lambda: 1 / peer.request("run")["seconds"], pairs=pairs_
        ),
    }


def _rows(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    sides = [side for side in ("ours", "peer") if side in figures]
    return [
        {
            "side": side,
            "pictures/s": float(np.median(figures[side])),
            "ms per picture": 1e3 / float(np.median(figures[side])),
            "ours : peer": figures.get("ratio") if side == "ours" else None,
        }
        for side in sides
    ]


def shapes(stages: tuple[int, ...] = STAGES) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of torchvision's `maskrcnn_resnet50_fpn` by name.

    Args:
        stages: number of blocks in each stage of the body.
    """
    found: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, inputs: int, out: int, side: int, norm: str) -> None:
        found[f"{name}.weight"] = (out, inputs, side, side)
        if norm:
            for part in ("weight", "bias", "running_mean", "running_var"):
                found[f"{norm}.{part}"] = (out,)
        else:
            found[f"{name}.bias"] = (out,)

    def dense(name: str, inputs: int, out: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (out, inputs), (out,)

    body = "backbone.body"
    convolution(f"{body}.conv1", 3, 64, 7, f"{body}.bn1")
    width = 64
    for stage, blocks in enumerate(stages):
        inner = 64 * 2**stage
        for block in range(blocks):
            name = f"{body}.layer{stage + 1}.{block}"
            sizes = ((width, inner, 1), (inner, inner, 3), (inner, 4 * inner, 1))
            for i, (inputs, out, side) in enumerate(sizes, 1):
                convolution(f"{name}.conv{i}", inputs, out, side, f"{name}.bn{i}")
            if not block:
                down = f"{name}.downsample"
                convolution(f"{down}.0", width, 4 * inner, 1, f"{down}.1")
            width = 4 * inner
        fpn = "backbone.fpn"
        convolution(f"{fpn}.inner_blocks.{stage}.0", width, 256, 1, "")
        convolution(f"{fpn}.layer_blocks.{stage}.0", 256, 256, 3, "")
    convolution("rpn.head.conv.0.0", 256, 256, 3, "")
    convolution("rpn.head.cls_logits", 256, 3, 1, "")
    convolution("rpn.head.bbox_pred", 256, 12, 1, "")
    heads = "roi_heads"
    dense(f"{heads}.box_head.fc6", 256 * 49, 1024)
    dense(f"{heads}.box_head.fc7", 1024, 1024)
    dense(f"{heads}.box_predictor.cls_score", 1024, CLASSES)
    dense(f"{heads}.box_predictor.bbox_pred", 1024, 4 * CLASSES)
    for i in range(4):
        convolution(f"{heads}.mask_head.{i}.0", 256, 256, 3, "")
    # The tensor of a transposed convolution begins with the input channels; here they
    # are as many as the output channels.
    convolution(f"{heads}.mask_predictor.conv5_mask", 256, 256, 2, "")
    convolution(f"{heads}.mask_predictor.mask_fcn_logits", 256, CLASSES, 1, "")
    return found


def random_tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random weights that preserve the scale of activations, the same every time.

    A block's last BatchNorm is small, so that sixteen blocks do not add up, and the
    logits have a wide spread, so that some classes score high and detections remain.

    Args:
        shapes: shapes by name.
    """
    rng = np.random.default_rng(0)

    def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) > 1:
            # Variance 2 / fan_in keeps the scale through a ReLU, 1 / fan_in in a sum.
            fan_in = shape[0] if "conv5_mask" in name else int(np.prod(shape[1:]))
            sums = any(part in name for part in ("fpn", "downsample", "pred", "logits"))
            gain = (0.3 if "bbox_pred" in name else 1.0) if sums else np.sqrt(2.0)
            gain = 2.0 * gain if "cls_score" in name else gain
            value = rng.standard_normal(shape, np.float32)
            return (value * gain / np.sqrt(fan_in)).astype(np.float32)
        noise = 0.1 * rng.standard_normal(shape, np.float32)
        if name.endswith("running_var"):
            return 1 + np.abs(noise)
        if name.endswith("weight"):
            return noise + np.float32(0.4 if "bn3" in name else 1.0)
        return noise

    return {name: tensor(name, shape) for name, shape in shapes.items()}


def make_picture(side: int) -> np.ndarray:
    """Squares of random colours with noise: uint8 [side, side, 3]."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (side // 40 + 1, side // 40 + 1, 3))
    picture = np.kron(coarse, np.ones((40, 40, 1), int))[:side, :side]
    noise = rng.integers(-20, 21, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def ours(
    tensors: Mapping[str, np.ndarray],
    picture: np.ndarray,
    settings: Mapping[str, int],
) -> Callable[[], dict[str, np.ndarray]]:
    """Return a function that runs our detector: boxes, scores, and pasted masks.

    Args:
        tensors: see `random_tensors`.
        picture: uint8 [side, side, 3].
        settings: see `torchvision_peer`.
    """
    import jax

    from memejax.models import maskrcnn
    from memejax.weights.maskrcnn import maskrcnn_variables

    module = maskrcnn.MaskRCNN(
        classes=CLASSES,
        candidates=settings["candidates"],
        proposals=settings["proposals"],
        detections=settings["detections"],
    )
    variables = jax.device_put(maskrcnn_variables(tensors))
    side = settings["side"]
    canvas = -(-side // 32) * 32
    size = np.array([[side, side]], np.int32)

    @jax.jit
    def detect(variables: Any, images: jax.Array, sizes: jax.Array) -> Any:
        resized = maskrcnn.resize(
            maskrcnn.normalize(images),
            sizes,
            new_sizes_b2=sizes,
            canvas=(canvas, canvas),
        )
        found = module.apply(variables, resized, sizes)
        return found.boxes, found.scores, found.masks, found.where

    def find() -> dict[str, np.ndarray]:
        boxes, scores, masks, where = (
            x[0] for x in jax.device_get(detect(variables, picture[None], size))
        )
        boxes, scores, masks = boxes[where], scores[where], masks[where]
        masks = maskrcnn.paste_masks(masks, boxes, height=side, width=side)
        return {"boxes": boxes, "scores": scores, "masks": masks}

    return find


def matched(found: Mapping[str, Any], theirs: Mapping[str, Any]) -> int:
    """Number of our boxes that the peer found too, within a tenth of a pixel.

    Args:
        found: our detections, `boxes` [k, 4].
        theirs: the peer's detections, `boxes` [n, 4].
    """
    a = np.reshape(found["boxes"], (-1, 1, 4))
    b = np.reshape(theirs["boxes"], (1, -1, 4))
    return int((np.abs(a - b) < 0.1).all(-1).any(-1).sum())


def start_peer(
    python: str,
    tensors: Mapping[str, np.ndarray],
    picture: np.ndarray,
    settings: Mapping[str, int],
    folder: str,
) -> Peer | None:
    """Start torchvision in its Python with our weights; None if it is missing there.

    Args:
        python: the interpreter.
        tensors: see `random_tensors`.
        picture: uint8 [side, side, 3].
        settings: see `torchvision_peer`.
        folder: folder of the peer's input files.
    """
    try:
        # Without -I the script's neighbours would shadow real modules.
        command = [python, "-I", "-c", "import torchvision"]
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    weights, pixels = pathlib.Path(folder) / "weights.npz", f"{folder}/picture.npy"
    # No tensor is named allow_pickle, of which pyright warns.
    np.savez(weights, **tensors)  # pyright: ignore[reportArgumentType]
    np.save(pixels, picture)
    script = (str(_SCRIPT), str(weights), pixels, json.dumps(settings))
    return Peer((python, "-I", *script))


if __name__ == "__main__":
    main()
