"""The problem of both sides: encoders, heads and batches of one size each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from memejax.bench.train_step.cases import CASES, DTYPES
from memejax.models import distilbert, resnet, vit

# AdamW, for all parameters.
LR, DECAY = 1e-4, 0.01
# DINO.
MOMENTUM, CENTER_MOMENTUM = 0.996, 0.9
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.04

_RESNET_50 = resnet.RESNETS["resnet50"]
_DISTILBERT = dict(distilbert.BERTS["distilbert"], dropout=0.1)
_SMALL_VIT, _BASE_VIT = (
    dict(vit.VITS[name], patch=16) for name in ("vit_small", "vit_base")
)
_ARM = dict(image_width=512, embed=300, fused=256, out=1000, dropout=0.1)
_HEAD = dict(hidden=2048, bottleneck=256)


@dataclasses.dataclass(frozen=True)
class Problem:
    """One case at one size.

    Attributes:
        case: key of CASES.
        batch: examples per batch.
        dtype: dtype of the products, "float32" or "bfloat16".
        pixels: side of an image.
        tokens: tokens per caption.
        resnet: attributes of `models.resnet.ResNet`.
        vit: attributes of `models.vit.ViT`; its position table fits the pixels.
        text: attributes of `models.distilbert.DistilBert`.
        arm: widths and dropout of `models.fusion.Arm`.
        head: attributes of `models.heads.DinoHead`.
    """

    case: str
    batch: int
    dtype: str
    pixels: int
    tokens: int
    resnet: Mapping[str, Any]
    vit: Mapping[str, Any]
    text: Mapping[str, Any]
    arm: Mapping[str, Any]
    head: Mapping[str, Any]

    @property
    def unit(self) -> str:
        """Unit of the speed."""
        return f"{CASES[self.case][0]}/s"

    @property
    def images(self) -> bool:
        """Whether an example has an image."""
        return self.case != "text"

    @property
    def captions(self) -> bool:
        """Whether an example has a caption."""
        return "text" in CASES[self.case][1]

    def shape(self) -> dict[str, Any]:
        """The attributes that are used in this case."""
        found: dict[str, Any] = {"batch": self.batch, "dtype": self.dtype}
        if self.images:
            found["pixels"] = self.pixels
        if self.captions:
            found["tokens"] = self.tokens
        return found | {name: dict(getattr(self, name)) for name in CASES[self.case][1]}


_TINY: dict[str, Any] = dict(
    batch=4,
    pixels=32,
    tokens=8,
    resnet=dict(stage_sizes=(1,), bottleneck=False, width=8),
    vit=dict(hidden=16, layers=1, heads=2, mlp=32, patch=16),
    # No dropout: both sides compute the same numbers.
    text=dict(
        hidden=16,
        layers=1,
        heads=2,
        mlp=32,
        vocab_size=50,
        max_length=16,
        dropout=0.0,
    ),
    arm=dict(image_width=16, embed=12, fused=8, out=10, dropout=0.0),
    head=dict(hidden=16, bottleneck=8, out=12),
)
_SMALL: dict[str, Any] = dict(
    batch=4,
    pixels=224,
    tokens=64,
    resnet=_RESNET_50,
    vit=_BASE_VIT,
    text=_DISTILBERT,
    arm=_ARM,
    head=dict(_HEAD, out=4096),
)
_SIZES: dict[str, dict[str, Any]] = {
    "tiny": _TINY,
    "small": _SMALL,
    "paper": dict(_SMALL, pixels=384, tokens=88, head=dict(_HEAD, out=65536)),
}
# (size, case) -> exceptions from the size.
EXCEPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("small", "resnet"): dict(batch=16, pixels=128),
    ("small", "vit"): dict(batch=8, vit=_SMALL_VIT),
    ("small", "text"): dict(batch=16),
    ("small", "dino"): dict(vit=_SMALL_VIT),
}


def problem(
    case: str,
    size: str,
    *,
    dtype: str = "float32",
    batch: int | None = None,
    pixels: int | None = None,
    tokens: int | None = None,
) -> Problem:
    """Make a case at a size; batch, pixels and tokens override the size's if given.

    Args:
        case: key of CASES.
        size: one of `cases.SIZES`.
        dtype: dtype of the products, "float32" or "bfloat16".
        batch: examples per batch, at least 2 (BatchNorm needs two values).
        pixels: side of an image, a multiple of the patch.
        tokens: tokens per caption, at most the size of the position table.

    Raises:
        ValueError: if the case, size or dtype is unknown, or a number out of range.
    """
    for name, value, options in (
        ("case", case, CASES),
        ("size", size, _SIZES),
        ("dtype", dtype, DTYPES),
    ):
        if value not in options:
            raise ValueError(f"got {name} {value!r}, expected one of {list(options)}")
    sizes: dict[str, Any] = _SIZES[size] | EXCEPTIONS.get((size, case), {})
    given = dict(batch=batch, pixels=pixels, tokens=tokens)
    sizes = sizes | {k: v for k, v in given.items() if v is not None}
    patch, longest = sizes["vit"]["patch"], sizes["text"].get("max_length", 512)
    if sizes["batch"] < 2:
        raise ValueError(f"got a batch of {sizes['batch']}, expected at least 2")
    if sizes["pixels"] < patch or sizes["pixels"] % patch:
        raise ValueError(
            f"got {sizes['pixels']} pixels, expected a multiple of the patch of {patch}"
        )
    if not 1 <= sizes["tokens"] <= longest:
        raise ValueError(f"got {sizes['tokens']} tokens, expected 1 to {longest}")
    # The position table fits the pictures.
    sizes["vit"] = dict(sizes["vit"], grid=sizes["pixels"] // patch)
    return Problem(case=case, dtype=dtype, **sizes)


def data(given: Problem) -> dict[str, np.ndarray]:
    """Make a batch of random numbers, the same every time.

    Returns:
        `label` int32 [b]; `weight` float32 [b], ones; if the case has them, `image`
        float32 [b, h, w, 3], normalised, `input_ids` and `attention_mask` int32 [b, t],
        every other caption half padding; for DINO, instead of `image`, `crops` float32
        [2, b, h, w, 3].
    """
    rng = np.random.default_rng(0)
    b = given.batch
    found = {
        "label": (np.arange(b) % 2).astype(np.int32),
        "weight": np.ones(b, np.float32),
    }
    picture = (b, given.pixels, given.pixels, 3)
    if given.case == "dino":
        found["crops"] = rng.standard_normal((2, *picture), np.float32)
    elif given.images:
        found["image"] = rng.standard_normal(picture, np.float32)
    if given.captions:
        t = given.tokens
        vocabulary = given.text.get("vocab_size", distilbert.DistilBert.vocab_size)
        found["input_ids"] = rng.integers(1, vocabulary, (b, t)).astype(np.int32)
        lengths = np.where(np.arange(b) % 2 == 0, t, (t + 1) // 2)
        mask = np.arange(t)[None] < lengths[:, None]
        found["attention_mask"] = mask.astype(np.int32)
    return found


def check_parameters(case: str, counts: Mapping[str, int]) -> None:
    """Raise ValueError unless both sides have the same number of parameters."""
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"{case}: ours has {counts['ours']} parameters, the peer {counts['peer']}, "
            "expected the same number"
        )
