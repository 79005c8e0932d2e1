"""Features of memes, from which graphs are made: pictures, captions, entities."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class MemeFeatures:
    """Features of n memes with up to k entities and t tokens each.

    Attributes:
        image: float32 `[n, d_i]`.
        text: float32 `[n, d_t]`.
        entities: float32 `[n, k, d_e]`.
        where: bool `[n, k]`, mask of real entities.
        boxes: float32 `[n, k, 4]`, (x1, y1, x2, y2) in pixels.
        sizes: int `[n, 2]`, height and width of the picture, at least 1.
        classes: int `[n, k]`, the detector's class of each entity.
        scores: float32 `[n, k]` in [0, 1], the detector's confidence.
        tokens: float32 `[n, t, d]`, features of the caption's tokens, or None.
        token_where: bool `[n, t]`, mask of real tokens, which come first.

    Raises:
        ValueError: if shapes do not match.
    """

    image: np.ndarray
    text: np.ndarray
    entities: np.ndarray
    where: np.ndarray
    boxes: np.ndarray
    sizes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    tokens: np.ndarray | None = None
    token_where: np.ndarray | None = None

    def __post_init__(self):
        n, k = self.where.shape if self.where.ndim == 2 else (-1, -1)
        expected = {
            "image": (n, None),
            "text": (n, None),
            "entities": (n, k, None),
            "where": (n, k),
            "boxes": (n, k, 4),
            "sizes": (n, 2),
            "classes": (n, k),
            "scores": (n, k),
        }
        if (self.tokens is None) != (self.token_where is None):
            raise ValueError("got one of tokens and token_where, expected both or none")
        if self.token_where is not None:
            expected["token_where"] = (n, None)
            expected["tokens"] = (n, self.tokens_each, None)
        for name, shape in expected.items():
            got = getattr(self, name).shape
            same = len(got) == len(shape) and all(
                b in (None, a) for a, b in zip(got, shape, strict=True)
            )
            if not same:
                raise ValueError(
                    f"got {name} of shape {got}, expected {shape} with {n} memes and "
                    f"{k} entities"
                )
        if self.sizes.size and self.sizes.min() < 1:
            raise ValueError(f"got a side of {self.sizes.min()}, expected at least 1")

    def __len__(self) -> int:
        return len(self.where)

    @property
    def entities_each(self) -> int:
        """Maximum number of entities per meme, k."""
        return self.where.shape[1]

    @property
    def tokens_each(self) -> int:
        """Maximum number of tokens per meme, t; 0 without tokens."""
        return 0 if self.token_where is None else self.token_where.shape[1]
