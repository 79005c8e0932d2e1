"""The graph over memes: shared entities, images and texts, sampled around each meme.

Nodes are memes, their images, their texts, and classes of entities. A meme has its own
image and text and the classes that were detected in it. Memes are connected through
classes, near-identical images and equal texts. A source of any size can be trained on:
`sample` draws the neighbourhood of each meme of a batch as a tree of static shape,
rooted at the meme, whose edges point to the root.

No label of a meme outside the training split enters a graph: `hetero_graph` drops
them. A sampled graph has the label of each root in the training split as the target;
and, with `label_features`, those of other training memes as features, never that of
the root.

Axes: n memes, c classes, b roots, N nodes and E edges with padding.

    nodes["features"]  float32 [N, widest]  features of a node, then zeros
    nodes["kind"]      int32 [N]            index into KINDS; -1 on padding
    nodes["place"]     int32 [N]            index of the (image's) meme or of the class
    nodes["label"]     int32 [N]            with `label_features`; -1: unknown
    edges["type"]      int32 [E]            index into EDGE_TYPES
    globals["index"]   int32 [b + 1]        the root; -1 for the padding
    globals["label"]   int32 [b + 1]        the target; -1: not to be trained on
"""

import dataclasses
from collections.abc import Sequence

import jraph
import numpy as np
from numpy.typing import ArrayLike

from memejax.data.hateful_memes import normalise_caption
from memejax.graphs.features import MemeFeatures
from memejax.graphs.hashes import near_pairs
from memejax.graphs.links import Links, join_groups
from memejax.graphs.packing import Slots, pack

KINDS = ("meme", "image", "text", "class")
# Edge type -> kinds of its sender and receiver.
ENDS = {
    "image_to_meme": ("image", "meme"),
    "text_to_meme": ("text", "meme"),
    "class_to_meme": ("class", "meme"),
    "meme_to_image": ("meme", "image"),
    "meme_to_text": ("meme", "text"),
    "meme_to_class": ("meme", "class"),
    "near_image": ("image", "image"),
    "same_text": ("text", "text"),
}
EDGE_TYPES = tuple(ENDS)
# Types with one edge per receiver: an image and its meme, a text and its meme. After
# one of them, its opposite would lead back.
BACK = {
    "image_to_meme": "meme_to_image",
    "meme_to_image": "image_to_meme",
    "text_to_meme": "meme_to_text",
    "meme_to_text": "text_to_meme",
}


@dataclasses.dataclass(frozen=True)
class HeteroGraph:
    """The whole graph, made by `hetero_graph`.

    Attributes:
        features: float32 `[count, width]` of each of `KINDS`. That of a meme is a
            constant 1, so that its projection is one learnt vector.
        links: of each of `EDGE_TYPES`.
        labels: int32 `[n]`; -1 for each meme outside the training split.
    """

    features: tuple[np.ndarray, ...]
    links: dict[str, Links]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def widths(self) -> tuple[int, ...]:
        """Feature widths of each of `KINDS`."""
        return tuple(values.shape[-1] for values in self.features)


def hetero_graph(
    memes: MemeFeatures,
    *,
    captions: Sequence[str],
    hashes: np.ndarray,
    labels: np.ndarray,
    training: np.ndarray,
    classes: int,
    distance: int = 4,
    most: int = 32,
    seed: int = 0,
    class_features: np.ndarray | None = None,
) -> HeteroGraph:
    """Join memes by their entities, images and texts.

    Args:
        memes: n memes of all splits.
        captions: n texts; those equal after normalisation are joined, unless empty.
        hashes: uint64 `[n]`, a perceptual hash of each picture.
        labels: int `[n]` in {0, 1}, -1 if unknown.
        training: bool `[n]`, mask of the training split; the labels of all other memes
            are dropped.
        classes: c; the classes of entities are in [0, c).
        distance: bits of a hash that may differ between near-identical pictures, 0
            to 15.
        most: maximum number of neighbours of an image, and of a text; drawn if there
            are more.
        seed: of these draws.
        class_features: float32 `[c, d]`; if None, one-hot, so that a projection is a
            table of learnt vectors.

    Returns:
        The graph, in memory linear in n.

    Raises:
        ValueError: if sizes do not match, or a class is out of range.
    """
    n = len(memes)
    if class_features is None:
        class_features = np.eye(classes, dtype=np.float32)
    sizes = {
        "captions": len(captions),
        "hashes": len(hashes),
        "labels": len(labels),
        "training": len(training),
    }
    if set(sizes.values()) != {n} or len(class_features) != classes:
        raise ValueError(
            f"got {sizes} for {n} memes and {len(class_features)} features for "
            f"{classes} classes, expected one of each"
        )
    has = _detected(memes, classes)
    unique, picture = np.unique(np.asarray(hashes, np.uint64), return_inverse=True)
    near = near_pairs(unique, distance=distance) if distance else []
    own = Links(np.arange(n), np.arange(n), count=n)
    return HeteroGraph(
        features=(np.ones((1, 1), np.float32), memes.image, memes.text, class_features),
        links={
            "image_to_meme": own,
            "text_to_meme": own,
            "class_to_meme": Links(has[:, 1], has[:, 0], count=n),
            "meme_to_image": own,
            "meme_to_text": own,
            "meme_to_class": Links(has[:, 0], has[:, 1], count=classes),
            "near_image": join_groups(picture, near, most=most, seed=seed),
            "same_text": join_groups(_texts(captions), [], most=most, seed=seed),
        },
        labels=np.where(training, labels, -1).astype(np.int32),
    )


def _detected(memes: MemeFeatures, classes: int) -> np.ndarray:
    """Distinct pairs of a meme and a class detected in it, int `[p, 2]`."""
    where = memes.where.astype(bool)
    found = memes.classes[where]
    if found.size and not 0 <= found.min() <= found.max() < classes:
        raise ValueError(
            f"got classes {found.min()} to {found.max()}, expected 0 to below {classes}"
        )
    return np.unique(np.stack([np.nonzero(where)[0], found], axis=1), axis=0)


def sample(
    graph: HeteroGraph,
    index: ArrayLike,
    *,
    fanouts: Sequence[int],
    seed: int,
    step: int,
    label_features: bool = False,
) -> jraph.GraphsTuple:
    """Sample the neighbourhood of each meme of a batch as a tree, plus a padding graph.

    The root is the first node of its graph. For each type of edge that it can receive,
    a node at hop h has up to `fanouts[h]` neighbours at hop h + 1, drawn without
    replacement; a type with one edge per receiver gives that one, unless it leads back
    to the node's own parent.

    Args:
        graph: the whole graph.
        index: int `[b]`, the memes at the roots.
        fanouts: neighbours per node and type, at least 1 each, one number per hop.
        seed: of the run, at least 0.
        step: of the run, at least 0. The draws are a function of seed and step (and
            index and fanouts).
        label_features: whether nodes have the field "label": that of the meme, at
            nodes of kind "meme", if it is in the training split and is not the root
            of its own tree; else -1.

    Returns:
        The graph in numpy arrays, see the module's docstring. Its shape depends on b
        and fanouts alone.

    Raises:
        ValueError: if an index is outside the graph or a fan-out is less than 1.

    References:
        Hamilton et al., Inductive representation learning on large graphs,
        1706.02216, section 3.1 (neighbourhoods of a fixed size).
    """
    index = np.asarray(index)
    low, high = index.min(initial=0), index.max(initial=0)
    if index.ndim != 1 or low < 0 or high >= max(1, len(graph)):
        raise ValueError(
            f"got an index of shape {index.shape} with places {low} to {high}, "
            f"expected [memes] and 0 to below {len(graph)}"
        )
    if min(fanouts, default=1) < 1:
        raise ValueError(f"got fan-outs {tuple(fanouts)}, expected at least 1 each")
    rng = np.random.default_rng((seed, step))
    places, kinds, parents, types = _tree(graph, index, fanouts=fanouts, rng=rng)
    slots = Slots(places >= 0)
    nodes = {
        "features": _features(graph, places, kinds, slots),
        "kind": slots.fill(np.broadcast_to(kinds, places.shape), empty=-1),
        "place": slots.fill(places),
    }
    if label_features:
        known = _known_labels(graph, index, places, kinds)
        nodes["label"] = slots.fill(known, empty=-1)
    return pack(
        slots,
        nodes,
        edges={"type": np.broadcast_to(types, (len(index), len(types)))},
        senders=np.arange(1, len(kinds), dtype=np.int32),
        receivers=parents,
        where=slots.where[:, 1:],
        most=len(types),
        globals_={
            "index": np.append(index, -1).astype(np.int32),
            "label": np.append(graph.labels[index], -1).astype(np.int32),
        },
    )


def _tree(
    graph: HeteroGraph,
    index: np.ndarray,
    *,
    fanouts: Sequence[int],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Slots by hop: places `[b, M]`, kinds `[M]`; parents, types `[M - 1]`."""
    places = [index.astype(np.int32)[:, None]]
    kinds, parents, types = [KINDS.index("meme")], [], [""]
    begin = 0
    for fanout in fanouts:
        level = range(begin, len(kinds))
        begin = len(kinds)
        frontier = np.concatenate(places, axis=1)
        for name, (sender, receiver) in ENDS.items():
            kind = KINDS.index(receiver)
            here = [
                i for i in level if kinds[i] == kind and types[i] != BACK.get(name, 0)
            ]
            if not here:
                continue
            f = 1 if name in BACK else fanout
            drawn = graph.links[name].draw(
                frontier[:, here].reshape(-1), fanout=f, rng=rng
            )
            places.append(drawn.reshape(len(index), len(here) * f))
            kinds += [KINDS.index(sender)] * (len(here) * f)
            parents += [i for i in here for _ in range(f)]
            types += [name] * (len(here) * f)
    return (
        np.concatenate(places, axis=1),
        np.array(kinds, np.int32),
        np.array(parents, np.int32),
        np.array([EDGE_TYPES.index(name) for name in types[1:]], np.int32),
    )


def _known_labels(
    graph: HeteroGraph, index: np.ndarray, places: np.ndarray, kinds: np.ndarray
) -> np.ndarray:
    """Labels that may be features of a node, int32 `[b, M]`."""
    known = np.where(kinds == KINDS.index("meme"), graph.labels[places], -1)
    # The root's label is its target, so it is hidden everywhere in its tree.
    return np.where(places == index[:, None], -1, known).astype(np.int32)


def _features(
    graph: HeteroGraph, places: np.ndarray, kinds: np.ndarray, slots: Slots
) -> np.ndarray:
    """Features of the nodes, float32 `[N, widest]`."""
    out = np.zeros((slots.size, max(graph.widths)), np.float32)
    for kind, values in enumerate(graph.features):
        where = slots.where & (kinds == kind)[None]
        found = places[where] if kind else 0  # All memes have the one row.
        out[slots.rows[where], : values.shape[-1]] = values[found]
    return out


def _texts(captions: Sequence[str]) -> np.ndarray:
    """Group of each caption, equal for equal texts; -1 for an empty one."""
    known: dict[str, int] = {}
    groups = np.full(len(captions), -1, np.int64)
    for i, caption in enumerate(captions):
        text = normalise_caption(caption)
        if text:
            groups[i] = known.setdefault(text, len(known))
    return groups
