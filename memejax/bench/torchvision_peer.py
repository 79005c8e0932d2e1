"""Torchvision's Mask R-CNN for the benchmark `detector`, run by another Python.

    PYTHON -I torchvision_peer.py WEIGHTS.npz PICTURE.npy SETTINGS

Does not import memejax, which that Python may not have. Settings are JSON: side (pixels
of the picture), candidates, proposals, detections. Answers each line of its input with
a line of JSON: "threads N" sets the number of threads, "run" detects the objects.
"""

import json
import sys
import time

import numpy as np


def main() -> None:
    """Answer lines until the end of the input."""
    import torch
    import torchvision
    from torchvision.models.detection import maskrcnn_resnet50_fpn
    from torchvision.ops.misc import FrozenBatchNorm2d

    weights, picture, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    with np.load(weights) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        min_size=settings["side"],
        max_size=settings["side"],
        rpn_pre_nms_top_n_test=settings["candidates"],
        rpn_post_nms_top_n_test=settings["proposals"],
        box_detections_per_img=settings["detections"],
    ).eval()
    freeze(model, FrozenBatchNorm2d)
    model.load_state_dict(tensors)
    # [h, w, 3] uint8 -> [3, h, w] in [0, 1], the model's input.
    pixels = torch.from_numpy(np.load(picture)).permute(2, 0, 1).contiguous() / 255
    say(torch=torch.__version__, torchvision=torchvision.__version__)
    for line in sys.stdin:
        command, *more = line.split()
        if command == "threads":
            torch.set_num_threads(int(more[0]))
            say(threads=torch.get_num_threads())
            continue
        began = time.perf_counter()
        with torch.inference_mode():
            (found,) = model([pixels])
        seconds = time.perf_counter() - began
        scores = found["scores"].tolist()
        say(seconds=seconds, scores=scores, boxes=found["boxes"].tolist())


def freeze(module, frozen) -> None:
    """Replace BatchNorms by frozen ones with epsilon 0, as in the published weights."""
    for name, child in module.named_children():
        if type(child).__name__ == "BatchNorm2d":
            setattr(module, name, frozen(child.num_features, eps=0.0))
        else:
            freeze(child, frozen)


def say(**values) -> None:
    """Print a line of JSON."""
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
