"""Networks on the graph over memes: from a config and stored features to a stage.

A meme is the root of a tree of neighbours that share something with it, sampled on the
host for every batch as a function of seed and step: a resumed run sees the same trees.
The trees of a batch form one graph of static shape; the logit is read at their roots.

There are two graphs. The training graph has only the training memes, so that held-out
memes are new to the network (inductive); or, if the config sets `transductive`, the
features of all memes. The scoring graph has all memes. In neither does a held-out meme
have a label, and targets come from the graph.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import datasets, feeders, graphs, parallel, steps
from memejax.data import plans
from memejax.graphs.hetero import BACK, EDGE_TYPES, ENDS, KINDS
from memejax.models import gnn
from memejax.models.gnn.normalize import Normalized
from memejax.stage import Stage
from memejax.stages.parts.choices import choose
from memejax.stages.parts.features import facts_of
from memejax.stages.parts.graphs.supervised import open_features, supervised
from memejax.store.read import SplitFeatures

# Batches sampled ahead of the step.
AHEAD = 2


def _root_classifier(c: ConfigDict) -> gnn.GraphClassifier:
    """Make a network's layers, with the logit read at the root of each tree."""
    layers = len(gnn.GNNS[c.network]["widths"])
    if len(c.hetero.fanouts) > layers:
        raise ValueError(
            f"got {len(c.hetero.fanouts)} fan-outs in graph.hetero.fanouts, expected "
            f"at most {layers}: the {layers} layers of {c.network!r} reach no further "
            "from a root"
        )
    more = {"readout": "node", "place": 0, "relations": len(EDGE_TYPES)}
    return gnn.GraphClassifier(**gnn.GNNS[c.network] | more)


# Name -> nodes of one width to logits. "sage" ignores types of edges; the last two read
# no edges: a root's own image and text are the nodes right after it.
NETWORKS: dict[str, Callable[[ConfigDict], Any]] = {
    "rgcn": _root_classifier,
    "sage": _root_classifier,
    "mlp": lambda _: gnn.MLP(places=(1, 2)),
    "text": lambda _: gnn.MLP(places=(2,)),
}


def hetero_network(config: ConfigDict, widths: tuple[int, ...]) -> gnn.MemeGraphNet:
    """Make the network `config.graph.network`, with a projection per kind of node.

    Args:
        config: the run's config.
        widths: feature width of each of `graphs.hetero.KINDS`.

    Raises:
        ValueError: for an unknown network; for no fan-outs, more than its layers, or
            one below 1.
    """
    c = config.graph
    if not c.hetero.fanouts or min(c.hetero.fanouts) < 1:
        raise ValueError(
            f"got graph.hetero.fanouts={tuple(c.hetero.fanouts)}, expected a number of "
            "at least 1 for each hop, and one hop at least"
        )
    head = choose(NETWORKS, c.network, "graph.network of graph.kind='hetero'")(c)
    encoder: Any = gnn.NodeEncoder(
        widths,
        KINDS,
        features=c.width,
        max_counts=most_of_kinds(c.hetero.fanouts),
        dropout=c.projection_dropout,
    )
    if c.normalize_features:
        encoder = Normalized(encoder)
    if c.hetero.label_features:
        encoder = gnn.LabelledNodes(encoder)
    return gnn.MemeGraphNet(encoder, head)


def most_of_kinds(fanouts: Sequence[int]) -> tuple[int, ...]:
    """Return the maximum number of nodes per tree for each of `graphs.hetero.KINDS`."""
    # (kind, type of the edge it was reached by) -> nodes of a hop.
    level = {("meme", ""): 1}
    most = collections.Counter({"meme": 1})
    for fanout in fanouts:
        nodes, level = level, collections.Counter()
        for (kind, edge), count in nodes.items():
            for name, (sender, receiver) in ENDS.items():
                if receiver == kind and edge != BACK.get(name):
                    level[sender, name] += count * (1 if name in BACK else fanout)
        for (kind, _), count in level.items():
            most[kind] += count
    return tuple(most[kind] for kind in KINDS)


@dataclasses.dataclass(frozen=True)
class Roots:
    """The memes of a split in a graph, the roots of sampled trees.

    Attributes:
        graph: of these and possibly other memes.
        first: index of the split's first meme in it; the others follow.
    """

    graph: graphs.HeteroGraph
    first: int


def load(config: ConfigDict) -> datasets.Data:
    """Load stored features as `Data`: the graph over memes, and each split's roots.

    Raises:
        ValueError: see `open_features`; if a feature is not finite; if the store has no
            hashes or no captions; for a distance or a number out of range.
    """
    store, c = open_features(config), config.graph.hetero
    parts = list(store.splits.values())
    classes = 1 + max(_highest_class(part) for part in parts)
    whole = _joined(config, parts, classes=classes)
    trained = whole
    if not c.transductive:
        trained = _joined(config, [store.splits["train"]], classes=classes)
    splits, first = {}, 0
    for part in parts:
        roots = Roots(whole, first)
        if part.name == "train" and not c.transductive:
            roots = Roots(trained, 0)
        source: Any = {"graph": roots}
        splits[part.name] = datasets.Split(part.name, source, part.ids, part.labels)
        first += len(part)
    edges = {name: len(links.senders) for name, links in trained.links.items()}
    facts = facts_of(config, store, widths=whole.widths) | {"edges": edges}
    return datasets.Data(splits, config.data.dev, 0, facts)


def _highest_class(part: SplitFeatures) -> int:
    """Return the highest class of an entity, 0 if there are none."""
    where = part.column("where").astype(bool)
    return int(part.column("classes")[where].max(initial=0))


def _joined(
    config: ConfigDict, parts: Sequence[SplitFeatures], *, classes: int
) -> graphs.HeteroGraph:
    """Make the graph over the memes of some splits, concatenated."""
    c = config.graph.hetero
    for part in parts:
        if "hash" not in part.parts[0][0]:
            raise ValueError(
                f"the store {config.features} has no column 'hash', which joins "
                "similar pictures: extract again to another folder"
            )
    captions = [caption for part in parts for caption in part.captions]
    if not any(caption.strip() for caption in captions):
        raise ValueError(
            f"the store {config.features} has no captions, which join memes with "
            "the same text: graph.kind='hetero' needs a store of memes with captions"
        )

    def column(name: str) -> np.ndarray:
        return np.concatenate([part.column(name) for part in parts])

    where = column("where").astype(bool)
    memes = graphs.MemeFeatures(
        image=column("image"),
        text=column("text"),
        # Entities are represented by their classes; features would be most of a store.
        entities=np.zeros((*where.shape, 0), np.float32),
        where=where,
        boxes=column("boxes"),
        sizes=column("sizes"),
        classes=column("classes"),
        scores=column("scores"),
    )
    return graphs.hetero_graph(
        memes,
        captions=captions,
        hashes=column("hash"),
        labels=np.concatenate([part.labels for part in parts]),
        training=np.repeat([p.name == "train" for p in parts], [len(p) for p in parts]),
        classes=classes,
        distance=c.distance,
        most=c.most,
        seed=config.seed,
    )


class TreeFeeder:
    """One batch per chunk: trees of the plan's memes, sampled ahead on the host."""

    def __init__(
        self,
        roots: Roots,
        plan: plans.Plan,
        *,
        config: ConfigDict,
        mesh: Mesh,
        seed: int,
    ):
        """Create a feeder; nothing is sampled yet.

        Args:
            roots: memes of a split.
            plan: `[steps, batch]`, indices into the split.
            config: the run's config.
            mesh: every device gets the whole batch.
            seed: seeds the sampling.
        """
        self.plan = plan
        self._roots, self._seed = roots, seed
        self._config, self._mesh = config, mesh

    def with_plan(self, plan: plans.Plan) -> TreeFeeder:
        """Return a feeder over another plan, with the same memes and devices."""
        return TreeFeeder(
            self._roots, plan, config=self._config, mesh=self._mesh, seed=self._seed
        )

    def batch(self, step: int) -> dict[str, Any]:
        """Sample the batch of a step on the host, as a function of seed and step.

        Returns:
            `graph`, from `graphs.sample`; `label`, int32 `[b]`, -1 for a held-out meme;
            and the plan's row.
        """
        c, row = self._config.graph.hetero, self.plan.row(step)
        tree = graphs.sample(
            self._roots.graph,
            self._roots.first + row["index"],
            fanouts=tuple(c.fanouts),
            seed=self._seed,
            step=step,
            label_features=c.label_features,
        )
        labels: Any = tree.globals
        return {"graph": tree, "label": labels["label"][:-1], **row}

    def chunks(
        self, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Yield (1, batch on the devices) for each step."""
        # Imported here: its quarter of a second is for those who stream.
        import grain

        stop = len(self.plan) if stop is None else stop
        options = grain.ReadOptions(
            num_threads=self._config.pipeline.threads, prefetch_buffer_size=AHEAD
        )
        drawn = grain.MapDataset.range(start, stop).map(self.batch)
        for batch in drawn.to_iter_dataset(options):
            yield 1, jax.device_put(batch, parallel.replicated(self._mesh))


def make(config: ConfigDict, data: datasets.Data, *, seed: int, mesh: Mesh) -> Stage:
    """Make supervised training of a network on trees of the graph over memes.

    Args:
        config: the run's config; uses the section `graph`.
        data: from `load`.
        seed: seeds parameters, order, dropout and sampling.
        mesh: of one device.

    Raises:
        ValueError: see `hetero_network` and `supervised`.
    """
    c, train = config.graph, data.splits["train"]
    roots: Any = train.source["graph"]
    net = hetero_network(config, tuple(data.facts["widths"]))
    one = plans.sequential(1, batch=1)
    trees = functools.partial(TreeFeeder, config=config, mesh=mesh)
    training = supervised(
        config,
        train,
        net=net,
        example=trees(roots, one, seed=seed).batch(0)["graph"],
        # The last graph of a batch is padding.
        memes=slice(None, -1),
        seed=seed,
        mesh=mesh,
    )

    def one_pass(split: datasets.Split) -> feeders.Feeder:
        plan = plans.sequential(len(split.ids), batch=c.batch)
        split_roots: Any = split.source["graph"]
        # Every seed scores on the same trees, those of the run's first seed.
        return trees(split_roots, plan, seed=config.seed)

    return Stage(
        init=training.init,
        abstract=training.abstract,
        run_chunk=jax.jit(training.step, donate_argnums=0),
        feeder=trees(roots, training.plan, seed=seed),
        scoring=one_pass,
        predict=jax.jit(
            steps.make_predict(
                training.apply_fn, views=lambda _, batch, **__: batch["graph"]
            )
        ),
        eval_every=c.eval_every,
        patience=c.patience,
        groups=training.groups,
    )
