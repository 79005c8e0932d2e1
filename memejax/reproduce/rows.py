"""The rows of "Exploring Emerging Properties in Multimodal Neural Networks".

Tables 1 and 2 have one arm each, table 3 the graph networks with additional controls;
table 8 has all methods. Every row of tables 1 and 2 is fine-tuned with text;
"image-only" refers to its pretraining.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from memejax.report.paper_table import Spread

PRESETS = ("demo", "full", "paper")
# Table -> the arms of its rows.
TABLES = {
    "table1": ("cnn",),
    "table2": ("vit",),
    "table3": (),
    "table8": ("cnn", "vit"),
}
TITLES = {
    "table1": "Table 1, ResNet-50",
    "table2": "Table 2, ViT-B/16",
    "table3": "Table 3, graph networks",
    "table8": "Table 8, all methods",
}
ARCHITECTURES = {"cnn": "ResNet-50", "vit": "ViT-B/16"}
SMALL = {"cnn": "small ResNet", "vit": "small ViT"}

# The same for every row: a random fifth of train chooses the checkpoint of the row's
# arm, as in the paper.
PROTOCOL = {"data.dev": "random_validation", "data.validation": 0.2}
# The same for every row of the demo: a table compares methods, not budgets. Fewer memes
# and updates than in the demo of a single method, so that 20 runs take minutes.
DEMO_FINETUNE = {
    "data.synthetic.train": 4000,
    "data.synthetic.dev": 500,
    "finetune.steps": 80,
    "finetune.batch": 128,
    "finetune.eval_every": 40,
}
DEMO_PRETRAIN = {"pretrain.steps": 120, "pretrain.batch": 128}


@dataclasses.dataclass(frozen=True)
class Method:
    """Training method of a row.

    Attributes:
        title: readable name.
        config: config file.
        both: whether one run gives the scores of both arms.
        pretrains: whether there is a stage before fine-tuning.
        sizes: picture sizes in pixels for which the papers have rows.
    """

    title: str
    config: str
    both: bool
    pretrains: bool
    sizes: tuple[int, ...] = (384,)


BOTH_SIZES = (224, 384)
METHODS = {
    "supervised": Method(
        "supervised",
        "configs/supervised.py",
        both=False,
        pretrains=False,
        sizes=BOTH_SIZES,
    ),
    "cass": Method(
        "CASS, image-only",
        "configs/cass.py",
        both=True,
        pretrains=True,
        sizes=BOTH_SIZES,
    ),
    "dino": Method(
        "DINO, image-only",
        "configs/dino.py",
        both=False,
        pretrains=True,
        sizes=BOTH_SIZES,
    ),
    "cass_mm": Method(
        "multimodal CASS", "configs/cass_mm.py", both=True, pretrains=True
    ),
}

# (method, arm, size) -> AUROC and accuracy on test_unseen, each the mean and the
# deviation over five seeds.
Figure = tuple[float, float]
PUBLISHED: dict[tuple[str, str, int], tuple[Figure, Figure]] = {
    ("supervised", "cnn", 224): ((0.5157, 0.081), (0.5175, 0.044)),
    ("cass", "cnn", 224): ((0.5398, 0.091), (0.5455, 0.031)),
    ("dino", "cnn", 224): ((0.5129, 0.009), (0.5267, 0.055)),
    ("supervised", "cnn", 384): ((0.5116, 0.076), (0.511, 0.016)),
    ("cass", "cnn", 384): ((0.5405, 0.045), (0.5445, 0.015)),
    ("dino", "cnn", 384): ((0.532, 0.033), (0.543, 0.056)),
    ("cass_mm", "cnn", 384): ((0.501, 0.078), (0.551, 0.023)),
    ("supervised", "vit", 224): ((0.51293, 0.043), (0.5235, 0.065)),
    ("cass", "vit", 224): ((0.5196, 0.051), (0.5545, 0.01)),
    ("dino", "vit", 224): ((0.513, 0.077), (0.5195, 0.014)),
    ("supervised", "vit", 384): ((0.5, 0.022), (0.545, 0.087)),
    ("cass", "vit", 384): ((0.53386, 0.009), (0.59, 0.017)),
    ("dino", "vit", 384): ((0.5002, 0.011), (0.624, 0.071)),
    ("cass_mm", "vit", 384): ((0.5, 0.078), (0.625, 0.032)),
}
# The demo's picture size in place of each of the papers'.
DEMO_SIZES = {224: 32, 384: 48}
# Crops that fit into the smaller pictures.
DEMO_CROPS = {
    "pretrain.augment.global_size": 32,
    "pretrain.augment.local_size": 24,
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: unique name.
        run: folder of its runs, the same for rows that share runs.
        method: readable name of the method.
        architecture: readable name of the architecture.
        size: side of the pictures in pixels, in words.
        config: config file, "" if there is none.
        overrides: dotted leaf -> value.
        arm: arm whose score is reported.
        published_auroc: published AUROC, as far as known.
        published_accuracy: published accuracy, as far as known.
        note: note below the table.
        run_by: the table that runs these runs, "" if this one does.
        options: options after the preset in the config's text, as "kind=hetero".
    """

    name: str
    run: str
    method: str
    architecture: str
    size: str
    config: str
    overrides: Mapping[str, Any]
    arm: str
    published_auroc: Spread = Spread()
    published_accuracy: Spread = Spread()
    note: str = ""
    run_by: str = ""
    options: str = ""


GRAPH_CONFIG = "configs/graph.py"
# Network, or "hetero" (one graph over all memes) -> readable name and kind.
GRAPHS = {
    "gcn": ("GCN", "graph network"),
    "sage": ("GraphSAGE", "graph network"),
    "gat": ("GAT", "graph network"),
    "gatv2": ("GATv2", "graph network"),
    "hetero": ("R-GCN over memes", "graph network"),
    "mlp": ("picture and caption", "control, MLP"),
    "deepsets": ("all nodes, no edges", "control, DeepSets"),
    "text": ("caption", "control, MLP"),
}
# (table, network) -> AUROC and accuracy on test_unseen.
PUBLISHED_GRAPHS = {
    ("table3", "gcn"): (0.514, 0.547),
    ("table3", "sage"): (0.481, 0.625),
    ("table3", "gat"): (0.541, 0.499),
    ("table8", "gcn"): (0.514, 0.547),
    ("table8", "sage"): (0.481, 0.625),
    ("table8", "gat"): (0.564, 0.499),
}
GRAPH_NOTES = {
    "sage": "0.625 is the accuracy of predicting that no meme is hateful.",
    "gat": "The paper's table 3 has an AUROC of 0.541, its table 8 one of 0.564.",
    "hetero": "R-GCN over memes: trained only on the graph of the training memes.",
}
# Network of a row that has another name, and options of its config.
NETWORKS = {"hetero": "rgcn"}
OPTIONS = {"hetero": "kind=hetero"}
# Published hyperparameters that differ from GCN's.
PAPER_GRAPHS = {"sage": {"graph.optimizer.groups.all.lr": 0.01}}
DEMO_GRAPHS = {"graph.epochs": 5.0}


def _graph(name: str, table: str, preset: str) -> Row:
    """Row of a network on graphs of stored features."""
    title, kind = GRAPHS[name]
    auroc, accuracy = PUBLISHED_GRAPHS.get((table, name), (None, None))
    more: Mapping[str, Any] = DEMO_GRAPHS if preset == "demo" else {}
    if preset == "paper":
        more = PAPER_GRAPHS.get(name, {})
    network = NETWORKS.get(name, name)
    return Row(
        name=name,
        run=f"graph-{name}",
        method=title,
        architecture=kind,
        size="",
        config=GRAPH_CONFIG,
        overrides={**PROTOCOL, "graph.network": network, **more},
        arm=network,
        published_auroc=Spread(auroc),
        published_accuracy=Spread(accuracy),
        note=GRAPH_NOTES.get(name, ""),
        run_by="" if table == "table3" else "table3",
        options=OPTIONS.get(name, ""),
    )


def rows(table: str, *, preset: str) -> list[Row]:
    """Return the rows of a table.

    In the demo two small picture sizes stand for the papers' two.

    Args:
        table: one of `TABLES`.
        preset: one of `PRESETS`.

    Raises:
        ValueError: if there is no such table or preset.
    """
    if table not in TABLES:
        raise ValueError(f"unknown table {table!r}: choose one of {sorted(TABLES)}")
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: choose one of {sorted(PRESETS)}")
    make = _demo_row if preset == "demo" else _row
    found = [
        make(name, arm, size)
        for arm in TABLES[table]
        # In the papers' order: by size, then by method.
        for size in BOTH_SIZES
        for name, method in METHODS.items()
        if size in method.sizes
    ]
    # Controls and unpublished networks are only in table 3.
    graphs = {
        "table3": tuple(GRAPHS),
        "table8": [n for t, n in PUBLISHED_GRAPHS if t == table],
    }
    return found + [_graph(name, table, preset) for name in graphs.get(table, ())]


def encoder_row() -> Row:
    """Row of the demo whose encoders give the features of its table 3."""
    return _demo_row("cass_mm", "cnn", 384)


def _row(name: str, arm: str, size: int) -> Row:
    """Row at the papers' scale."""
    return _make(name, arm, size, size, ARCHITECTURES[arm], {})


def _demo_row(name: str, arm: str, size: int) -> Row:
    """Row of small models."""
    overrides = DEMO_FINETUNE | (DEMO_PRETRAIN if METHODS[name].pretrains else {})
    if name == "dino" and DEMO_SIZES[size] < 48:
        overrides = overrides | DEMO_CROPS
    return _make(name, arm, size, DEMO_SIZES[size], SMALL[arm], overrides)


def _make(
    name: str,
    arm: str,
    published_size: int,
    size: int,
    architecture: str,
    overrides: Mapping[str, Any],
) -> Row:
    method = METHODS[name]
    auroc, accuracy = PUBLISHED[name, arm, published_size]
    alone = {} if method.both else {"arms": (arm,)}
    return Row(
        name=f"{name}-{arm}-{size}",
        run=f"{name}-{size}" if method.both else f"{name}-{arm}-{size}",
        method=method.title,
        architecture=architecture,
        size=str(size)
        if size == published_size
        else f"{size} in place of {published_size}",
        config=method.config,
        overrides={**PROTOCOL, "data.image_size": size, **overrides, **alone},
        arm=arm,
        published_auroc=Spread(*auroc),
        published_accuracy=Spread(*accuracy),
    )
