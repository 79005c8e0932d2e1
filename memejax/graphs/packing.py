"""Packing of slots, some of them empty, into a graph of static shape.

A builder lays out b graphs of M node slots and P edge slots each, with masks of the
used ones. The pack is a `jraph.GraphsTuple` of b + 1 graphs, M * b + 1 nodes and a
fixed number of edges: the b graphs without their empty slots, one after another, and
a last graph that holds the padding, as in `jraph.pad_with_graphs`.
"""

from collections.abc import Mapping

import jraph
import numpy as np


class Slots:
    """Node slots and their rows in the pack.

    Attributes:
        where: bool `[b, M]`, mask of the used slots.
        rows: int32 `[b, M]`, the node of each slot; the first padding node for an
            empty slot.
        count: number of used slots.
        size: M * b + 1, number of nodes with padding.
    """

    def __init__(self, where: np.ndarray):
        self.where = np.asarray(where, bool)
        self.count = int(self.where.sum())
        self.size = self.where.size + 1
        place = np.cumsum(self.where.reshape(-1)) - 1
        rows = np.where(self.where.reshape(-1), place, self.count)
        self.rows = rows.astype(np.int32).reshape(self.where.shape)

    def fill(self, values: np.ndarray, *, empty: float = 0) -> np.ndarray:
        """Return slot values `[b, M, ...]` as node values, `empty` on padding."""
        out = np.full((self.size, *values.shape[2:]), empty, values.dtype)
        out[: self.count] = values[self.where]
        return out


def pack(
    slots: Slots,
    nodes: Mapping[str, np.ndarray],
    *,
    edges: Mapping[str, np.ndarray],
    senders: np.ndarray,
    receivers: np.ndarray,
    where: np.ndarray,
    most: int,
    globals_: Mapping[str, np.ndarray],
) -> jraph.GraphsTuple:
    """Pack slots into one graph of static shape.

    Args:
        slots: of b graphs and M nodes each.
        nodes: arrays `[M * b + 1, ...]`, see `slots.fill`.
        edges: arrays `[b, P, ...]`.
        senders: int `[P]`, the slot at the start of each edge.
        receivers: int `[P]`, the slot at the end of each edge.
        where: bool `[b, P]`, mask of real edges, between used slots only.
        most: maximum number of edges per graph; the pack has b * most.
        globals_: arrays `[b + 1, ...]`.

    Returns:
        The pack, numpy throughout. Padding edges go from the first padding node to
        itself; their features are 0.

    Raises:
        ValueError: if a graph has more edges than `most`.
    """
    n_edge = where.sum(axis=1)
    if n_edge.max(initial=0) > most:
        raise ValueError(
            f"got a graph of {n_edge.max()} edges, expected at most {most}"
        )
    size, count = len(where) * most, int(n_edge.sum())

    def fill(values: np.ndarray, empty: int = 0) -> np.ndarray:
        out = np.full((size, *values.shape[2:]), empty, values.dtype)
        out[:count] = values[where]
        return out

    n_node = slots.where.sum(axis=1)
    return jraph.GraphsTuple(
        nodes=dict(nodes),
        edges={name: fill(values) for name, values in edges.items()},
        senders=fill(slots.rows[:, senders], slots.count),
        receivers=fill(slots.rows[:, receivers], slots.count),
        n_node=np.append(n_node, slots.size - slots.count).astype(np.int32),
        n_edge=np.append(n_edge, size - count).astype(np.int32),
        globals=dict(globals_),
    )
