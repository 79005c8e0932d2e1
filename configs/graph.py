"""Networks on graphs of memes, with features of pictures, captions and entities.

demo (default)
  command   python -m memejax.extract --config=configs/graph.py --out=STORE
              --config.extract.run=RUN
            python -m memejax.main --config=configs/graph.py --config.features=STORE
              --config.graph.network=gat       or gcn, sage, gatv2, rgcn;
                                               controls: mlp, deepsets, text
  hardware  2 CPU cores, a minute per network
  is        entities are the 3 x 3 tiles of a picture, as no detector is included;
            features come from RUN, a finished run such as the demo of
            configs/supervised.py. Without one the encoders stay random, with a note.
            Comparison of all networks: python -m memejax.reproduce table3
            One graph over all memes, sampled around each:
              --config=configs/graph.py:kind=hetero
              --config.graph.network=rgcn      or sage; controls: mlp, text

full
  command   python -m memejax.extract --config=configs/graph.py:full --out=STORE
              --config.data.root=FOLDER --config.weights.image_cnn=RESNET50
              --config.weights.text=DISTILBERT --config.weights.detector=MASKRCNN
            python -m memejax.main --config=configs/graph.py:full
              --config.features=STORE --config.data.root=FOLDER
  hardware  one GPU or several; not run by us yet
  is        MASKRCNN is torchvision's file of maskrcnn_resnet50_fpn. Entities are cut
            out along their boxes. Picture and caption are joined too, classes are
            balanced, rates are a hundredth of the published ones.

paper
  command   as full, with :paper
              --config.graph.network=sage
              --config.graph.optimizer.groups.all.lr=0.01     GraphSAGE's rate
  is        pictures at 224 pixels, not normalised, and an entity as the whole picture
            with all but the entity darkened by its soft mask, as published; then the
            published networks, which score at chance: Adam at a rate of 0.1, nodes
            normalised until they hardly differ, picture and caption joined only through
            entities, unbalanced classes. Not kept: there the encoders are trained
            jointly with the graph network (in BatchNorms that saw the entities of one
            meme at a time), here their features are stored; there the detector sees
            pictures shrunk to 224 pixels, here the originals; there a dropout before
            the logit is on at test time too; Adam's decay of 5e-4 in the gradient; a
            cosine over 200 epochs of which 20 are run, 2 % lower at their end; the one
            epoch of the logged GraphSAGE; the last epoch is tested, here the best on a
            random fifth of train (data.dev=random_validation, for the extraction too).

After the colon, behind the preset (`configs/graph.py:full,kind=trained`):
  kind=stored|trained|hetero    one graph per meme on stored features, the same trained
                                jointly with its encoders, or one graph over all memes
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from memejax.configs import common


def get_config(text: str = "") -> ConfigDict:
    preset, chosen = common.parse(text, kind=("stored", "trained", "hetero"))
    section = graph(preset, chosen["kind"])
    return ConfigDict(
        dict(
            name="graph",
            preset=preset,
            seed=0,
            seeds=1,
            stages=("graph", "evaluate"),
            # The store to train on.
            features=placeholder(str),
            # detector: a file of torchvision's Mask R-CNN.
            weights=common.weights("image_cnn", "image_vit", "text", "detector"),
            data=common.data(preset, image_size=48 if preset == "demo" else 224),
            # Encoders of the features; extract.arm sets the image encoder.
            model=common.model(
                preset,
                arm=dict(text_pooling="cls"),
                cnn_normalization="none" if preset == "paper" else "checkpoint",
            ),
            # A network can score new memes only behind the encoders of its features.
            extract=common.extract(keep_encoders=True, **EXTRACT[preset]),
            graph=section,
            # For the extraction, and for kind=trained; networks on stored features
            # run on one device.
            parallel=dict(devices=placeholder(int)),
            pipeline=common.pipeline(preset),
            # Evaluate, save and log at the same updates: the plan's stretch between two
            # of them is one program.
            checkpoint=common.checkpoint(every=section["eval_every"]),
            log=common.log(every=section["eval_every"]),
            profile=common.profile(),
            report=common.report(),
        )
    ).lock()


EXTRACT: dict[str, dict[str, Any]] = {
    "demo": dict(entities="grid", allow_random=True),
    "full": dict(entities="detector", dtype="float16", box_features=True, masks=True),
    "paper": dict(entities="detector", crop="mask", masks=True),
}
GRAPH: dict[str, dict[str, Any]] = {
    "demo": {},
    "full": dict(epochs=30.0, patience=10),
    "paper": dict(
        network="gcn",
        normalize_features=True,
        epochs=20.0,
        batch=16,
        balance=False,
        eval_every=500,
        optimizer=dict(
            rule="adam",
            schedule="constant",
            warmup=0,
            weight_decay=0.0,
            clip=0.0,
            groups=dict(all=dict(pattern=".*", lr=0.1)),
        ),
    ),
}


def graph(preset: str, kind: str) -> dict[str, Any]:
    """The network on stored features, and its training."""
    kinds: dict[str, dict[str, Any]] = {
        "stored": per_meme(preset),
        "trained": per_meme(preset) | dict(trained=trained(preset)),
        "hetero": dict(hetero=hetero()),
    }
    section = dict(
        kind=kind,
        # gcn, sage, gat, gatv2, rgcn; controls without edges: mlp on picture and
        # caption, deepsets on all nodes, text. For "hetero": rgcn, sage; mlp, text.
        network="gat",
        # Width and dropout of a projected node.
        width=256,
        projection_dropout=0.1,
        # Whether to make nodes positive with sum 1, as published.
        normalize_features=False,
        epochs=10.0,
        batch=64,
        balance=True,
        eval_every=100,
        patience=0,
        optimizer=common.optimizer(
            dict(
                encoder=dict(pattern="encoder/.*", lr=1e-3),
                head=dict(pattern="head/.*", lr=1e-3),
            ),
            warmup=50,
        ),
    )
    return section | kinds[kind] | GRAPH[preset]


def per_meme(preset: str) -> dict[str, Any]:
    """Edges and readout of one graph per meme."""
    joined = ("image_entity", "text_entity")
    return dict(
        # Edges between its nodes; all are in memejax.graphs.meme_graph.
        relations=joined if preset == "paper" else (*joined, "image_text"),
        # For "overlap": minimum IoU; for "similar": neighbours per entity.
        overlap=0.3,
        similar=2,
        # Edge fields for gcn ("weight") or gatv2 (any).
        edge_fields=(),
        # For networks with edges: "mean", "attention", or "node", the image's.
        readout="mean",
    )


def trained(preset: str) -> dict[str, Any]:
    """Encoders trained jointly with the network.

    A batch has as many pictures to encode as memes and entities: about ten times the
    work of fine-tuning; use graph.batch=8 or so.
    """
    return dict(
        # None: the optimizer's own groups cover the encoders. 0 freezes them.
        encoder_lr=common.optional(float, None if preset == "paper" else 1e-5),
        # Maximum side in pixels of the pictures that entities are cut out of.
        longest=1024,
        # Number of parts that a batch is split into.
        accumulate=1,
    )


def hetero() -> dict[str, Any]:
    """The graph over all memes."""
    return dict(
        # Neighbours per node and type of edge, one number per hop. The pictures most
        # similar to a meme's own are two hops away, and so are other memes with its
        # classes; the memes of those pictures, and of the same caption, three.
        fanouts=(8, 4),
        # Bits of 64 in which the hashes of similar pictures may differ.
        distance=4,
        # Maximum number of similar pictures, or captions, joined to one.
        most=32,
        # Whether labels of other training memes are features; never a meme's own.
        label_features=False,
        # Whether the training graph has the features of the memes of all splits;
        # False: of the training split alone. Scores always use the graph of all.
        transductive=False,
    )
