"""One graph per meme: its image, its text, its entities, and the edges between them.

`batch` makes a graph of static shape from any memes of a source. Its nodes are, meme
after meme, the image, the text, the entities, and the tokens if a relation uses them.
Axes: b memes, k entities and t tokens each, M = 2 + k (+ t) node slots, P edge slots,
N = b * M + 1 nodes and E edges with padding.

    nodes["features"]  float32 [N, widest]  features of a node, then zeros
    nodes["kind"]      int32 [N]            index into KINDS; -1 on padding
    nodes["place"]     int32 [N]            number of the entity or token; else 0
    edges["type"]      int32 [E]            index into EDGE_TYPES
    edges["box"]       float32 [E, 5]       sender's box relative to the receiver's
    edges["weight"]    float32 [E]          product of the scores of its entities
    globals["index"]   int32 [b + 1]        index of the meme; -1 for the padding

The box of a node without one is the whole picture.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jraph
import numpy as np
from numpy.typing import ArrayLike

from memejax.graphs.boxes import iou, relative
from memejax.graphs.features import MemeFeatures
from memejax.graphs.packing import Slots, pack

KINDS = ("image", "text", "entity", "token")
# Relation -> its edge types: one for each direction between two kinds; or one between
# entities, whose edges depend on their boxes or features.
RELATIONS: dict[str, tuple[str, ...]] = {
    "image_entity": ("image_to_entity", "entity_to_image"),
    "text_entity": ("text_to_entity", "entity_to_text"),
    "image_text": ("image_to_text", "text_to_image"),
    "overlap": ("overlap",),
    "similar": ("similar",),
    "text_token": ("text_to_token", "token_to_text"),
    "next_token": ("token_to_next", "token_to_last"),
    "token_entity": ("token_to_entity", "entity_to_token"),
}
EDGE_TYPES = tuple(name for names in RELATIONS.values() for name in names)
PUBLISHED = ("image_entity", "text_entity")


class Candidates(NamedTuple):
    """Possible edges of a meme: int32 `[P]` each, senders and receivers as slots."""

    senders: np.ndarray
    receivers: np.ndarray
    types: np.ndarray


def widths(memes: MemeFeatures) -> tuple[int, ...]:
    """Return the feature widths of each of `KINDS`, without absent tokens."""
    parts = [memes.image, memes.text, memes.entities]
    if memes.tokens is not None:
        parts.append(memes.tokens)
    return tuple(part.shape[-1] for part in parts)


def batch(
    memes: MemeFeatures,
    index: ArrayLike,
    *,
    relations: Sequence[str] = PUBLISHED,
    overlap: float = 0.3,
    similar: int = 2,
) -> jraph.GraphsTuple:
    """Build the graphs of some memes and a padding graph, in a static shape.

    Args:
        memes: the source.
        index: int `[b]`, indices into it, possibly repeated.
        relations: some of `RELATIONS`; the default is the published graph, a
            bipartite one. "overlap" and "similar" join entities: each pair whose IoU
            exceeds `overlap`, in both directions; and to each entity the `similar`
            others with the highest cosine of their features.
        overlap: in [0, 1).
        similar: at least 1.

    Returns:
        The graph in numpy arrays, see the module's docstring. Its shape depends on b,
        the relations and the source's k and t alone.

    Raises:
        ValueError: for an unknown relation, missing tokens, an index outside the
            source, or an option out of range.

    References:
        Exploring emerging properties in multimodal neural networks, its graph of a
        meme ("image_entity" and "text_entity").
    """
    index = _checked(memes, index, relations, overlap=overlap, similar=similar)
    tokens = memes.tokens_each if _has_tokens(relations) else 0
    slots = Slots(_used_slots(memes, index, tokens))
    edges = _candidates(relations, k=memes.entities_each, t=tokens)
    where = slots.where[:, edges.senders] & slots.where[:, edges.receivers]
    where &= _chosen(memes, index, edges, overlap=overlap, similar=similar)
    k = memes.entities_each
    # An entity has `similar` such neighbours, fewer than the candidates.
    spare = k * max(0, k - 1 - similar) if "similar" in relations else 0
    return pack(
        slots,
        _nodes(memes, index, slots),
        edges=_edges(memes, index, slots, edges),
        senders=edges.senders,
        receivers=edges.receivers,
        where=where,
        most=len(edges.types) - spare,
        globals_={"index": np.append(index, -1).astype(np.int32)},
    )


def _checked(
    memes: MemeFeatures,
    index: ArrayLike,
    relations: Sequence[str],
    *,
    overlap: float,
    similar: int,
) -> np.ndarray:
    unknown = [name for name in relations if name not in RELATIONS]
    if unknown or len(set(relations)) != len(relations):
        raise ValueError(
            f"got relations {list(relations)}, expected some of {list(RELATIONS)}, "
            "each once"
        )
    if _has_tokens(relations) and memes.tokens is None:
        raise ValueError(f"got relations {list(relations)} and memes without tokens")
    if not 0 <= overlap < 1 or similar < 1:
        raise ValueError(
            f"got overlap {overlap} and similar {similar}, expected [0, 1) and at "
            "least 1"
        )
    places = np.asarray(index)
    if places.ndim != 1 or not np.issubdtype(places.dtype, np.integer):
        raise ValueError(
            f"got an index of shape {places.shape} and dtype {places.dtype}, expected "
            "integers [memes]"
        )
    low, high = places.min(initial=0), places.max(initial=0)
    if low < 0 or high >= max(1, len(memes)):
        raise ValueError(
            f"got places {low} to {high}, expected 0 to below {len(memes)}"
        )
    return places


def _has_tokens(relations: Sequence[str]) -> bool:
    return any("token" in name for name in relations)


def _used_slots(memes: MemeFeatures, index: np.ndarray, tokens: int) -> np.ndarray:
    """Mask of the used slots: image, text, entities, tokens; bool `[b, M]`."""
    parts = [np.ones((len(index), 2), bool), memes.where[index].astype(bool)]
    if tokens and memes.token_where is not None:
        parts.append(memes.token_where[index].astype(bool))
    return np.concatenate(parts, axis=1)


def _candidates(relations: Sequence[str], *, k: int, t: int) -> Candidates:
    """Possible edges of a meme with the maximum of entities and tokens."""
    image, text = np.zeros(1, int), np.ones(1, int)
    entities, tokens = 2 + np.arange(k), 2 + k + np.arange(t)
    others = np.nonzero(~np.eye(k, dtype=bool))
    pairs = {
        "image_entity": _all_pairs(image, entities),
        "text_entity": _all_pairs(text, entities),
        "image_text": _all_pairs(image, text),
        "overlap": (entities[others[0]], entities[others[1]]),
        "similar": (entities[others[0]], entities[others[1]]),
        "text_token": _all_pairs(text, tokens),
        "next_token": (tokens[:-1], tokens[1:]),
        "token_entity": _all_pairs(tokens, entities),
    }
    rows = []
    # In the order of the types, whatever the order of the relations.
    for name in (name for name in RELATIONS if name in relations):
        for direction, edge_type in enumerate(RELATIONS[name]):
            ends = pairs[name] if direction == 0 else pairs[name][::-1]
            types = np.full(len(ends[0]), EDGE_TYPES.index(edge_type))
            rows.append((*ends, types))
    if not rows:
        return Candidates(*(np.zeros(0, np.int32),) * 3)
    return Candidates(
        *(np.concatenate(p).astype(np.int32) for p in zip(*rows, strict=True))
    )


def _all_pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of one of a and one of b."""
    return np.repeat(a, len(b)), np.tile(b, len(a))


def _chosen(
    memes: MemeFeatures,
    index: np.ndarray,
    edges: Candidates,
    *,
    overlap: float,
    similar: int,
) -> np.ndarray:
    """Mask of the candidates chosen by their relation, bool `[b, P]`."""
    chosen = np.ones((len(index), len(edges.types)), bool)
    overlaps = edges.types == EDGE_TYPES.index("overlap")
    if overlaps.any():
        boxes = memes.boxes[index].astype(np.float64)
        matrix = iou(boxes[:, :, None], boxes[:, None]) > overlap
        ends = edges.senders[overlaps] - 2, edges.receivers[overlaps] - 2
        chosen[:, overlaps] = matrix[:, ends[0], ends[1]]
    likeness = edges.types == EDGE_TYPES.index("similar")
    if likeness.any():
        matrix = _nearest(memes.entities[index], memes.where[index], similar)
        ends = edges.senders[likeness] - 2, edges.receivers[likeness] - 2
        chosen[:, likeness] = matrix[:, ends[0], ends[1]]
    return chosen


def _nearest(entities: np.ndarray, where: np.ndarray, similar: int) -> np.ndarray:
    """Whether entity i (axis 1) is among the nearest of entity j (axis 2), `[b, k, k]`.

    By cosine, among real entities; ties go to the first.
    """
    norm = np.linalg.norm(entities, axis=-1, keepdims=True)
    unit = entities / np.maximum(norm, 1e-12)
    cosine = np.einsum("bid,bjd->bij", unit, unit).astype(np.float64)
    others = where[:, :, None] & ~np.eye(where.shape[1], dtype=bool)[None]
    order = np.argsort(np.where(others, -cosine, np.inf), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    return others & (rank < similar)


def _edges(
    memes: MemeFeatures, index: np.ndarray, slots: Slots, edges: Candidates
) -> dict[str, np.ndarray]:
    """Fields of the candidates, `[b, P, ...]`."""
    entities = slice(2, 2 + memes.entities_each)
    boxes = np.zeros((*slots.where.shape, 4))
    boxes[..., 2:] = memes.sizes[index][:, None, ::-1]
    boxes[:, entities] = memes.boxes[index]
    scores = np.ones(slots.where.shape, np.float32)
    scores[:, entities] = memes.scores[index]
    ends = edges.senders, edges.receivers
    types = np.broadcast_to(edges.types, (len(index), len(edges.types)))
    sender, receiver = (boxes[:, end] for end in ends)
    sizes = memes.sizes[index][:, None]
    return {
        "type": types,
        "box": relative(sender, receiver, sizes=sizes),
        "weight": scores[:, ends[0]] * scores[:, ends[1]],
    }


def _nodes(
    memes: MemeFeatures, index: np.ndarray, slots: Slots
) -> dict[str, np.ndarray]:
    """Fields of the nodes."""
    k, m = memes.entities_each, slots.where.shape[1]
    kind = np.array([0, 1] + [2] * k + [3] * (m - 2 - k), np.int32)
    place = np.concatenate([np.zeros(2), np.arange(k), np.arange(m - 2 - k)])
    # Written in place: features are most of the memory of a batch.
    features = np.zeros((slots.size, max(widths(memes))), np.float32)
    features[slots.rows[:, 0], : memes.image.shape[-1]] = memes.image[index]
    features[slots.rows[:, 1], : memes.text.shape[-1]] = memes.text[index]
    parts = [(slice(2, 2 + k), memes.entities)]
    if m > 2 + k and memes.tokens is not None:
        parts.append((slice(2 + k, m), memes.tokens))
    for columns, values in parts:
        where = slots.where[:, columns]
        rows = slots.rows[:, columns][where]
        features[rows, : values.shape[-1]] = values[index][where]
    return {
        "features": features,
        "kind": slots.fill(np.broadcast_to(kind, slots.where.shape), empty=-1),
        "place": slots.fill(np.broadcast_to(place.astype(np.int32), slots.where.shape)),
    }
