"""Graphs of memes as a column: each meme in a static slot, a batch by gathering.

`batch` builds the graphs of a batch on the host. Here the graph of every meme is built
once and padded individually, so that all have one shape; they stay on the device, and
a batch of any memes is a gather and an offset inside a compiled step.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jraph
import numpy as np
from jax.typing import ArrayLike

from memejax.graphs.features import MemeFeatures
from memejax.graphs.meme_graph import PUBLISHED, batch

# Memes built at once: their features are in memory twice meanwhile.
_CHUNK = 512


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MemeGraphs:
    """Graphs of n memes, one slot per meme.

    A slot holds M + 1 nodes and P edges: those of the meme first, then padding, whose
    edges go from the first padding node to itself.

    Attributes:
        slots: fields as in `batch`, each with a leading axis of memes; nodes
            `[n, M + 1, ...]`, edges, senders and receivers `[n, P, ...]`, counted
            within the slot; n_node, n_edge and globals `[n, 2, ...]`, of the meme and
            its padding.
    """

    slots: jraph.GraphsTuple

    def __len__(self) -> int:
        return len(self.slots.n_node)

    def __getitem__(self, index: ArrayLike) -> jraph.GraphsTuple:
        """Gather the graphs of some memes; under jit too, if the slots are jax arrays.

        Args:
            index: int `[b]` in [0, n), possibly repeated.

        Returns:
            2 b graphs of b (M + 1) nodes and b P edges: graph 2 i is that of meme i,
            graph 2 i + 1 its padding.
        """
        graph = jax.tree.map(lambda x: x[index], self.slots)
        b, nodes = graph.nodes["kind"].shape
        first = nodes * np.arange(b, dtype=np.int32)[:, None]
        graph = graph._replace(
            senders=graph.senders + first, receivers=graph.receivers + first
        )
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), graph)


def stack(
    memes: MemeFeatures,
    *,
    relations: Sequence[str] = PUBLISHED,
    overlap: float = 0.3,
    similar: int = 2,
) -> MemeGraphs:
    """Build the graph of every meme of a source in its slot.

    Args:
        memes: the source, at least one meme.
        relations: see `batch`, as for the options below.
        overlap: in [0, 1).
        similar: at least 1.

    Returns:
        The graphs in numpy arrays; `jax.device_put` moves them to a device.

    Raises:
        ValueError: for a source without memes, and see `batch`.
    """
    if not len(memes):
        raise ValueError("got no memes, expected at least one")
    parts = []
    for start in range(0, len(memes), _CHUNK):
        index = np.arange(start, min(start + _CHUNK, len(memes)))
        graph = batch(
            memes, index, relations=relations, overlap=overlap, similar=similar
        )
        parts.append(_slots(graph))
    return MemeGraphs(jax.tree.map(lambda *x: np.concatenate(x), *parts))


def _slots(graph: jraph.GraphsTuple) -> jraph.GraphsTuple:
    """Move each meme of a pack, whose last graph is the padding, to its slot."""
    b = len(graph.n_node) - 1
    m, p = (len(graph.nodes["kind"]) - 1) // b, len(graph.senders) // b
    nodes, first_node = _places(graph.n_node[:-1], size=m + 1)
    edges, _ = _places(graph.n_edge[:-1], size=p)
    # The last node of a pack is always padding.
    node_rows = np.where(nodes >= 0, nodes, b * m)
    count = graph.n_node[:-1, None]

    def of_edges(x: np.ndarray) -> np.ndarray:
        where = (edges >= 0).reshape(*edges.shape, *(1,) * (x.ndim - 1))
        return np.where(where, x[edges], np.zeros((), x.dtype))

    def ends(x: np.ndarray) -> np.ndarray:
        return np.where(edges >= 0, x[edges] - first_node[:, None], count)

    index = graph.globals["index"][:-1]
    return jraph.GraphsTuple(
        nodes={name: x[node_rows] for name, x in graph.nodes.items()},
        edges={name: of_edges(x) for name, x in graph.edges.items()},
        senders=ends(graph.senders),
        receivers=ends(graph.receivers),
        n_node=_with_rest(graph.n_node[:-1], m + 1),
        n_edge=_with_rest(graph.n_edge[:-1], p),
        globals={"index": np.stack([index, np.full_like(index, -1)], axis=1)},
    )


def _places(counts: np.ndarray, *, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the pack in each slot `[b, size]`, -1 for padding, and the first row."""
    first = (np.cumsum(counts) - counts).astype(np.int32)
    place = np.arange(size, dtype=np.int32)[None]
    return np.where(place < counts[:, None], first[:, None] + place, -1), first


def _with_rest(counts: np.ndarray, size: int) -> np.ndarray:
    """Counts and the rest up to size, int32 `[b, 2]`."""
    return np.stack([counts, size - counts], axis=1).astype(np.int32)
