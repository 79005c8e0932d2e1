"""Preprocessing of a checkpoint's images: mean, standard deviation, size.

From preprocessor_config.json of Hugging Face, or timm's part of config.json.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from memejax import strict_json

Config = Mapping[str, Any]


class Preprocessing(NamedTuple):
    """Preprocessing of images: (pixel / 255 - mean) / std.

    Attributes:
        mean: of the red, green and blue channel, in [0, 1].
        std: of the same, above 0.
        size: side in pixels of the square input picture.
        resize: how pictures become that square, see `images.decode`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    resize: str = "square"


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
# Of EfficientNet-Lite, 127 / 255 and 128 / 255.
LITE_MEAN = (0.498, 0.498, 0.498)
LITE_STD = (0.502, 0.502, 0.502)


def read_preprocessing(source: str | Path | Config) -> Preprocessing | None:
    """Read the preprocessing of a checkpoint's images from its files.

    Args:
        source: a folder that may hold preprocessor_config.json and config.json; or the
            content of either: Hugging Face's keys (`image_mean`, `size`, ...) or
            timm's `pretrained_cfg`.

    Returns:
        Mean, standard deviation and size; None if the files do not contain them.

    Raises:
        ValueError: for pictures that are not square with three channels, or a scale
            of pixels other than 1 / 255.
    """
    if isinstance(source, str | Path):
        for name in ("preprocessor_config.json", "config.json"):
            path = Path(source) / name
            found = None
            if path.is_file():
                found = read_preprocessing(strict_json.read_object(path))
            if found is not None:
                return found
        return None
    if "pretrained_cfg" in source:
        timm = source["pretrained_cfg"]
        channels, height, width = timm["input_size"]
        return _preprocessing(
            timm["mean"], timm["std"], (channels, height, width), resize="square"
        )
    if "image_mean" not in source:
        return None
    scale = source["rescale_factor"] if "rescale_factor" in source else 1 / 255
    if abs(scale * 255 - 1) > 1e-3 or not source.get("do_rescale", True):
        raise ValueError(f"got rescale_factor {scale}, expected pixels times 1 / 255")
    mean, std = source["image_mean"], source["image_std"]
    if not source.get("do_normalize", True):
        mean, std = (0.0,) * len(mean), (1.0,) * len(std)
    crop = "crop_size" in source and source.get("do_center_crop", False)
    key = "crop_size" if crop else "size"
    # 224 is the default of both of Hugging Face's processors.
    size = source[key] if key in source else 224
    resize = "shorter" if crop else "square"
    # Pillow's number of its bicubic filter.
    if source.get("resample") == 3:
        resize += "_bicubic"
    if isinstance(size, Mapping):
        edges = [size[e] for e in ("height", "width", "shortest_edge") if e in size]
        if not edges:
            raise ValueError(f"got {key} {dict(size)}, expected height and width")
        return _preprocessing(mean, std, (3, edges[0], edges[-1]), resize=resize)
    return _preprocessing(mean, std, (3, size, size), resize=resize)


def write_preprocessing(preprocessing: Preprocessing) -> dict[str, Any]:
    """Make the content of a preprocessor_config.json for Hugging Face's processors.

    Args:
        preprocessing: mean, standard deviation, size and resizing; "pad", which they
            do not have, is written as "square".

    Returns:
        The content, ready for JSON: how to resize, and the normalisation.
    """
    side = preprocessing.size
    square = {"height": side, "width": side}
    how: dict[str, Any] = {"image_processor_type": "ViTImageProcessor", "size": square}
    if preprocessing.resize.startswith("shorter"):
        how = {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": side},
            "do_center_crop": True,
            "crop_size": square,
        }
    return {
        **how,
        "do_resize": True,
        "resample": 3 if preprocessing.resize.endswith("_bicubic") else 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }


def _preprocessing(
    mean: Any, std: Any, size: tuple[int, ...], *, resize: str
) -> Preprocessing:
    if len(mean) != 3 or len(std) != 3 or size[0] != 3 or size[1] != size[2]:
        raise ValueError(
            f"got pictures of channels, height and width {list(size)}, mean {mean} and "
            f"standard deviation {std}, expected squares of three channels"
        )
    return Preprocessing(tuple(mean), tuple(std), size[1], resize)
