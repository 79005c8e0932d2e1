"""Edits of pictures that people make, by accident or against being found again."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFont, ImageOps

from memejax.data import images

# Share of the height that `recaption` covers.
BAND = 0.2
Edit = Callable[[Image.Image], Image.Image]


def _jpeg(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    return Image.fromarray(images.load(file.getvalue()))


def _half(picture: Image.Image) -> Image.Image:
    size = tuple(max(1, side // 2) for side in picture.size)
    return picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)


def _crop(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    left, top = round(0.025 * width), round(0.025 * height)
    return picture.crop((left, top, width - left, height - top))


def _cut(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    return picture.crop((0, 0, width, max(1, height - round(0.05 * height))))


def _border(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    border = (round(0.05 * width), round(0.05 * height))
    return ImageOps.expand(picture, border, "white")


def recaption(picture: Image.Image, text: str) -> Image.Image:
    """Draw a band over the upper part of a picture, with a caption in it."""
    picture = picture.copy()
    width, height = picture.size
    band = max(1, round(BAND * height))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, width, band), fill="white")
    # Two lines of about 30 letters, as large as the band allows.
    font = ImageFont.load_default(max(6, min(band // 3, width // 16)))
    words = " ".join(text.split())
    lines = "\n".join([words[:30], words[30:60]])
    draw.multiline_text((width // 40, band // 10), lines, fill="black", font=font)
    return picture


EDITS: dict[str, Edit] = {
    "itself": lambda picture: picture,
    "jpeg": _jpeg,
    "half": _half,
    "crop": _crop,
    "cut": _cut,
    "border": _border,
    "mirror": lambda picture: ImageOps.mirror(picture),
}
