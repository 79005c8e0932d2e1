"""Links: the edges of a relation by receiver, from which neighbours are drawn."""

from collections.abc import Sequence

import numpy as np


class Links:
    """The edges of one relation, by receiver.

    Attributes:
        starts: int64 `[receivers + 1]`; the senders of receiver i are
            `senders[starts[i]:starts[i + 1]]`.
        senders: int32 `[edges]`, sorted at each receiver.
    """

    def __init__(self, senders: np.ndarray, receivers: np.ndarray, *, count: int):
        """Sort the edges.

        Args:
            senders: int `[edges]`.
            receivers: int `[edges]` in [0, count).
            count: number of receivers.
        """
        order = np.lexsort((senders, receivers))
        self.senders = np.asarray(senders, np.int32)[order]
        degree = np.bincount(np.asarray(receivers, np.int64), minlength=count)
        self.starts = np.concatenate([[0], np.cumsum(degree)]).astype(np.int64)

    def of(self, receiver: int) -> np.ndarray:
        """Return the senders of one receiver, int32."""
        return self.senders[self.starts[receiver] : self.starts[receiver + 1]]

    def draw(
        self, receivers: np.ndarray, *, fanout: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw senders of each receiver, without replacement.

        Args:
            receivers: int `[m]`; -1 for none.
            fanout: f, senders per receiver: all of them if there are at most f, else
                f of them, each set with the same probability.
            rng: a generator, whose draws depend on m, f and degrees.

        Returns:
            int32 `[m, f]`, padded with -1.
        """
        valid = receivers >= 0
        first = np.where(valid, self.starts[receivers], 0)
        degree = np.where(valid, self.starts[receivers + 1] - first, 0)
        places = np.full((len(receivers), fanout), -1, np.int64)
        for j in range(fanout):
            # Floyd's algorithm: one of the first `top + 1`, or `top` if it is taken.
            top = np.maximum(degree - fanout, 0) + j
            drawn = rng.integers(0, top + 1)
            taken = (places[:, :j] == drawn[:, None]).any(axis=1)
            drawn = np.where(taken, top, drawn)
            # Up to f senders are all taken, in order.
            drawn = np.where(degree <= fanout, j, drawn)
            places[:, j] = np.where(j < degree, drawn, -1)
        filled = places >= 0
        out = np.full(places.shape, -1, np.int32)
        out[filled] = self.senders[(first[:, None] + places)[filled]]
        return out


def join_groups(
    groups: np.ndarray,
    near: Sequence[tuple[int, int]] | np.ndarray,
    *,
    most: int,
    seed: int,
) -> Links:
    """Join each element with those of its group and of the groups near it.

    A group of m would have m (m - 1) edges; an element gets at most `most`, drawn
    from its group and those near it, so that there are at most n * most edges.

    Args:
        groups: int `[n]`, the group of each element; -1 for none.
        near: pairs of groups that are near each other, in either order.
        most: maximum number of senders per element, at least 1.
        seed: of the draws.

    Returns:
        Links among the n elements, without self loops.

    Raises:
        ValueError: if `most` is less than 1.
    """
    if most < 1:
        raise ValueError(f"got most {most}, expected at least 1")
    groups = np.asarray(groups)
    count = int(groups.max(initial=-1)) + 1
    kept = np.flatnonzero(groups >= 0)
    members = Links(kept, groups[kept], count=count)
    around = [[g] for g in range(count)]
    for a, b in np.asarray(near, np.int64).reshape(-1, 2).tolist():
        around[a].append(b)
        around[b].append(a)
    rng = np.random.default_rng(seed)
    senders, receivers = [], []
    for group, others in enumerate(around):
        own = members.of(group)
        pool = np.sort(np.concatenate([members.of(g) for g in others]))
        for element in own.tolist():
            rest = pool
            if len(pool) - 1 > most:
                # One more than needed: the element itself may be drawn.
                rest = pool[rng.choice(len(pool), size=most + 1, replace=False)]
            rest = rest[rest != element][:most]
            senders.append(rest)
            receivers.append(np.full(len(rest), element))
    none = np.zeros(0, np.int64)
    return Links(
        np.concatenate([none, *senders]),
        np.concatenate([none, *receivers]),
        count=len(groups),
    )
