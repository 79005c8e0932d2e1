"""Names of the cases, which --help shows without waiting for JAX."""

from __future__ import annotations

# Case -> what it does with a meme, the networks that it uses.
CASES = {
    "text": ("captions", ("text",)),
    "resnet": ("memes", ("resnet", "text")),
    "vit": ("memes", ("vit", "text")),
    "predict": ("memes", ("resnet", "vit", "text")),
    "evaluate": ("memes", ("resnet", "vit", "text")),
}
