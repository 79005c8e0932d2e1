"""Names of cases, sizes and dtypes, which --help shows without waiting for JAX."""

from __future__ import annotations

# Case -> name of its examples, and the attributes of Problem for its networks.
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "resnet": ("images", ("resnet",)),
    "vit": ("images", ("vit",)),
    "text": ("captions", ("text",)),
    "cass_mm": ("memes", ("resnet", "vit", "text", "arm")),
    "cass": ("images", ("resnet", "vit")),
    "dino": ("images", ("vit", "head")),
    "finetune": ("memes", ("resnet", "vit", "text", "arm")),
}
DTYPES = ("float32", "bfloat16")
SIZES = ("tiny", "small", "paper")
