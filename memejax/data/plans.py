"""Plans: which example stands where in which batch of a run.

Everything that decides order (a shuffle, a curriculum) makes a `Plan`, and
everything that feeds a training step consumes one, so neither knows the other.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Plan:
    """The order of a run: three arrays of shape [steps, batch].

    Attributes:
      index: int32, the example's place in its source.
      weight: float32, 1 for an ordinary example, 0 for the padding of a last
        batch, or an importance correction.
      draw: int32, how many times the run drew this example before; an example's
        augmentation derives from (seed, index, draw).
    """

    index: np.ndarray
    weight: np.ndarray
    draw: np.ndarray

    def __post_init__(self):
        shapes = {self.index.shape, self.weight.shape, self.draw.shape}
        if len(shapes) != 1 or self.index.ndim != 2:
            raise ValueError(
                "a plan holds three arrays of one shape [steps, batch], got "
                f"index {self.index.shape}, weight {self.weight.shape}, "
                f"draw {self.draw.shape}"
            )

    def __len__(self) -> int:
        return len(self.index)

    @property
    def batch(self) -> int:
        """Examples a step."""
        return self.index.shape[1]

    def row(self, step: int) -> dict[str, np.ndarray]:
        """The plan's part of the batch at `step`: index, weight, draw, each [batch]."""
        return {
            "index": self.index[step],
            "weight": self.weight[step],
            "draw": self.draw[step],
        }

    def as_arrays(self) -> dict[str, np.ndarray]:
        """The plan as a dict of arrays, as a checkpoint stores it."""
        return {"index": self.index, "weight": self.weight, "draw": self.draw}


def shuffled(n: int, *, batch: int, steps: int, seed: int) -> Plan:
    """Epochs without replacement, each in its own order, one flowing into the next.

    A batch may span two epochs, so every example is seen floor or ceil of
    `steps * batch / n` times and no short batch exists.

    Args:
      n: number of examples, at least 1.
      batch: examples a step.
      steps: number of steps.
      seed: any non-negative int; the same arguments give the same plan.

    Returns:
      A plan whose `draw` is the epoch and whose weights are 1.

    Raises:
      ValueError: if a size is not positive.
    """
    _check_positive(n=n, batch=batch, steps=steps)
    total = steps * batch
    epochs = -(-total // n)
    orders = [
        np.random.default_rng((seed, epoch)).permutation(n) for epoch in range(epochs)
    ]
    index = np.concatenate(orders)[:total].astype(np.int32)
    draw = np.repeat(np.arange(epochs, dtype=np.int32), n)[:total]
    return Plan(
        index=index.reshape(steps, batch),
        weight=np.ones((steps, batch), np.float32),
        draw=draw.reshape(steps, batch),
    )


def sequential(n: int, *, batch: int) -> Plan:
    """One pass in order, for evaluation; the last batch is padded with weight 0.

    Args:
      n: number of examples, at least 1.
      batch: examples a step.

    Returns:
      A plan of ceil(n / batch) steps. Padding repeats the last example.

    Raises:
      ValueError: if a size is not positive.
    """
    _check_positive(n=n, batch=batch)
    steps = -(-n // batch)
    place = np.arange(steps * batch)
    return Plan(
        index=np.minimum(place, n - 1).astype(np.int32).reshape(steps, batch),
        weight=(place < n).astype(np.float32).reshape(steps, batch),
        draw=np.zeros((steps, batch), np.int32),
    )


def _check_positive(**sizes: int) -> None:
    wrong = {name: size for name, size in sizes.items() if size < 1}
    if wrong:
        raise ValueError(f"sizes must be at least 1, got {wrong}")
