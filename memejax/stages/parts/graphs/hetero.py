"""Networks on the graph over memes: from a config and stored features to a stage.

A meme is the root of a tree of what it shares with others, drawn on the host anew for
every batch, as a function of seed and step: a resumed run sees the same trees. The
trees of a batch are one graph of static shape; the logit is read at their roots.

There are two graphs. The one that is trained on has the training memes alone, so that
held-out memes are as new to the network as they will be (inductive); or, if the config
says so, all memes by their features (transductive). The one that is scored in has all
memes. In neither does a held-out meme have a label, and targets come from the graph.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
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
from memejax.stages.parts.graphs.supervised import facts_of, open_features, supervised
from memejax.store.read import SplitFeatures

# Batches that are drawn ahead of the step.
AHEAD = 2


def _at_the_root(c: ConfigDict) -> gnn.GraphClassifier:
    """The layers of a network, and its logit from the root of each tree."""
    layers = len(gnn.GNNS[c.network]["widths"])
    if len(c.hetero.fanouts) > layers:
        raise ValueError(
            f"got {len(c.hetero.fanouts)} fan-outs in graph.hetero.fanouts, expected "
            f"at most {layers}: through the {layers} layers of {c.network!r} a root "
            "sees no further"
        )
    more = {"readout": "node", "place": 0, "relations": len(EDGE_TYPES)}
    return gnn.GraphClassifier(**gnn.GNNS[c.network] | more)


# Name -> nodes of one width to logits. "sage" does not tell types of edges apart; the
# last two read no edges: a root's own image and text are the nodes behind it.
NETWORKS: dict[str, Callable[[ConfigDict], Any]] = {
    "rgcn": _at_the_root,
    "sage": _at_the_root,
    "mlp": lambda _: gnn.MLP(places=(1, 2)),
    "text": lambda _: gnn.MLP(places=(2,)),
}


def hetero_network(config: ConfigDict, widths: tuple[int, ...]) -> gnn.MemeGraphNet:
    """The network that `config.graph` names, with a projection for each kind of node.

    Args:
        config: a run's.
        widths: of the features of each of `graphs.hetero.KINDS`.

    Raises:
        ValueError: for an unknown network, and fan-outs that are none or further than
            it sees.
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
        most=most_of_kinds(c.hetero.fanouts),
        dropout=c.projection_dropout,
    )
    if c.normalize_features:
        encoder = Normalized(encoder)
    if c.hetero.label_features:
        encoder = gnn.LabelledNodes(encoder)
    return gnn.MemeGraphNet(encoder, head)


def most_of_kinds(fanouts: Sequence[int]) -> tuple[int, ...]:
    """How many nodes of each of `graphs.hetero.KINDS` a tree has at most."""
    # Kind, and type of the edge that it was reached over -> nodes of a hop.
    level = {("meme", ""): 1}
    most = collections.Counter({"meme": 1})
    for fanout in fanouts:
        nodes, level = level, collections.Counter()
        for (kind, came), count in nodes.items():
            for name, (sender, receiver) in ENDS.items():
                if receiver == kind and came != BACK.get(name):
                    level[sender, name] += count * (1 if name in BACK else fanout)
        for (kind, _), count in level.items():
            most[kind] += count
    return tuple(most[kind] for kind in KINDS)


@dataclasses.dataclass(frozen=True)
class Roots:
    """The memes of a split in a graph, from which trees are drawn.

    Attributes:
        graph: of these memes and others.
        first: place of the split's first meme in it; the others follow.
    """

    graph: graphs.HeteroGraph
    first: int


def load(config: ConfigDict) -> datasets.Data:
    """Stored features as the stages use data: the graph over memes, and who is where.

    Raises:
        ValueError: as `open_features` does; if a feature is not finite; if the store
            has no hashes, or no caption at all; for a distance or a number outside its
            range.
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
    """The highest class of an entity that there is; 0 without any."""
    there = part.column("where").astype(bool)
    return int(part.column("classes")[there].max(initial=0))


def _joined(
    config: ConfigDict, parts: Sequence[SplitFeatures], *, classes: int
) -> graphs.HeteroGraph:
    """The graph over the memes of some splits, one split behind the other."""
    c = config.graph.hetero
    for part in parts:
        if "hash" not in part.parts[0][0]:
            raise ValueError(
                f"the store {config.features} has no column 'hash', which joins "
                "pictures that are alike: extract anew to another folder"
            )
    captions = [caption for part in parts for caption in part.captions]
    if not any(caption.strip() for caption in captions):
        raise ValueError(
            f"the store {config.features} has no captions, which join memes that say "
            "the same: graph.kind='hetero' needs a store of memes with captions"
        )

    def column(name: str) -> np.ndarray:
        return np.concatenate([part.column(name) for part in parts])

    where = column("where").astype(bool)
    memes = graphs.MemeFeatures(
        image=column("image"),
        text=column("text"),
        # Entities are known by their classes here; theirs would be most of a store.
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
    """One batch a chunk: the trees of the plan's memes, drawn ahead on the host."""

    def __init__(
        self,
        roots: Roots,
        plan: plans.Plan,
        *,
        config: ConfigDict,
        mesh: Mesh,
        seed: int,
    ):
        """Draws nothing yet.

        Args:
            roots: memes of a split.
            plan: `[steps, batch]`, places in the split.
            config: a run's.
            mesh: every device gets all of a batch.
            seed: of the draws.
        """
        self.plan = plan
        self._roots, self._seed = roots, seed
        self._config, self._mesh = config, mesh

    def with_plan(self, plan: plans.Plan) -> TreeFeeder:
        """The same memes and devices, another plan."""
        return TreeFeeder(
            self._roots, plan, config=self._config, mesh=self._mesh, seed=self._seed
        )

    def batch(self, step: int) -> dict[str, Any]:
        """The batch of a step, on the host, a function of seed and step.

        Returns:
            `graph`, as `graphs.sample` makes it; `label`, int32 `[b]`, -1 for a meme
            that is held out; and the plan's row.
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
        """Batches of the steps, each as (1, batch on the devices)."""
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
        config: a run's; `graph` is the section.
        data: as `load` gives it.
        seed: of parameters, order, dropout and draws.
        mesh: of one device.

    Raises:
        ValueError: as `hetero_network` and `supervised` do.
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
        among: Any = split.source["graph"]
        # The draws are those of the run's first seed.
        return trees(among, plan, seed=config.seed)

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
