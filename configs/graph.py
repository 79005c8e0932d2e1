"""Graphs of memes: stored features of pictures, captions and entities, and networks on
them.

demo (default)
  command   python -m memejax.extract --config=configs/graph.py --out=STORE
              --config.extract.run=RUN
            python -m memejax.main --config=configs/graph.py --config.features=STORE
              --config.graph.network=gat       or gcn, sage, gatv2, rgcn;
                                               controls: mlp, deepsets, text
  hardware  2 CPU cores, a minute a network
  is        entities are the 3 x 3 tiles of a picture, as no detector comes with this;
            features are those of RUN, a finished run such as the demo of
            configs/supervised.py. Without one the encoders stay random, and it says so.
            All networks beside each other: python -m memejax.reproduce table3
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
            out along their boxes. Picture and caption are joined too, classes weighted
            alike, rates a hundredth of the published.

paper
  command   as full, with :paper
              --config.graph.network=sage
              --config.graph.optimizer.groups.all.lr=0.01     GraphSAGE's rate
  is        pictures at 224 pixels, not normalised, and an entity as the whole picture
            with all but the entity darkened by its soft mask, as published; then the
            published networks, which came to chance: Adam at a rate of 0.1, nodes
            normalised until they hardly differ, picture and caption joined through
            entities alone, classes as they are. Not kept: there the encoders are
            trained along with the graph network (in BatchNorms that saw the entities
            of one meme at a time), here their features are stored; there the detector
            sees pictures shrunk to 224 pixels, here the originals; there a dropout
            before the logit is on at test time too; Adam's decay of 5e-4 in the
            gradient; the last epoch is tested, here the best on the dev split.

After the colon, behind the preset (`configs/graph.py:full,kind=trained`):
  kind=stored|trained|hetero    one graph a meme of stored features, the same with its
                                encoders trained along, or one graph over all memes
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
            # The detector's: a file of torchvision's Mask R-CNN.
            weights=common.weights("image_cnn", "image_vit", "text", "detector"),
            data=common.data(preset, image_size=48 if preset == "demo" else 224),
            # What gives the features; which of its image encoders is extract.arm.
            model=common.model(
                preset,
                arm=dict(text_pooling="cls"),
                cnn_normalization="none" if preset == "paper" else "checkpoint",
            ),
            extract=extract(**EXTRACT[preset]),
            graph=section,
            # Networks on graphs run on one device, the extraction on these.
            parallel=dict(devices=placeholder(int)),
            pipeline=common.pipeline(preset),
            # Evaluations, checkpoints and lines at the same updates: a stretch of the
            # plan between two of them is one program.
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


def extract(**changes: Any) -> dict[str, Any]:
    """Features that `python -m memejax.extract` computes and stores."""
    section: dict[str, Any] = dict(
        # A finished run whose encoders are used; without one, those of `weights`
        # with this config's `model`.
        run=placeholder(str),
        # Of the run, or of model.image.
        arm="cnn",
        # Whether encoders without a run or a checkpoint may stay random.
        allow_random=False,
        # "detector", "grid" or "none".
        entities="grid",
        # Tiles a side, of "grid".
        grid=3,
        # Of "detector": the most entities a meme, and what their scores exceed.
        k=10,
        score=0.05,
        # "box" cuts an entity out, "mask" darkens the picture around it.
        crop="box",
        # Pictures are resized to these for the detector, as torchvision does.
        min_side=800,
        max_side=1333,
        # Pictures that it sees at once.
        detector_batch=8,
        # What else is stored: features of the caption's tokens; of "detector" its
        # own features of the boxes, and the masks.
        tokens=False,
        box_features=False,
        masks=False,
        # Of the stored features: "float32" or "float16".
        dtype="float32",
        # Memes a file, and memes (or entities) computed at once.
        chunk=256,
        batch=32,
    )
    return section | changes


def graph(preset: str, kind: str) -> dict[str, Any]:
    """The network that reads stored features, and how it is trained."""
    kinds: dict[str, dict[str, Any]] = {
        "stored": per_meme(preset),
        "trained": per_meme(preset) | dict(trained=trained(preset)),
        "hetero": dict(hetero=hetero()),
    }
    section = dict(
        kind=kind,
        # gcn, sage, gat, gatv2, rgcn; controls without edges: mlp on picture and
        # caption, deepsets on all nodes, text. Of "hetero": rgcn, sage; mlp, text.
        network="gat",
        # Of a projected node, and its dropout.
        width=256,
        projection_dropout=0.1,
        # Nodes made positive and of sum 1, as published.
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
    """Edges and readout of a graph of one meme."""
    joined = ("image_entity", "text_entity")
    return dict(
        # What joins its nodes; more of them in memejax.graphs.meme_graph.
        relations=joined if preset == "paper" else (*joined, "image_text"),
        # Of "overlap": the IoU that is exceeded; of "similar": neighbours an entity.
        overlap=0.3,
        similar=2,
        # Fields of the edges that gcn ("weight") or gatv2 (any) reads.
        edge_fields=(),
        # Of the networks with edges: "mean", "attention", or "node", the image's.
        readout="mean",
    )


def trained(preset: str) -> dict[str, Any]:
    """Encoders that are trained along.

    A batch has as many pictures to encode as memes and entities: some ten times the
    work of fine-tuning, with graph.batch=8 or so.
    """
    return dict(
        # None: the optimizer's own groups cover the encoders. 0 keeps them.
        encoder_lr=common.optional(float, None if preset == "paper" else 1e-5),
        # Pixels that a picture may be long before entities are cut out of it.
        longest=1024,
        # Parts that a batch is worked on in.
        accumulate=1,
    )


def hetero() -> dict[str, Any]:
    """The graph over all memes."""
    return dict(
        # Neighbours a node and type of edge, a number a hop. The pictures most
        # like a meme's own are two hops away, as other memes with its classes
        # are; the memes of those pictures, and of the same caption, three.
        fanouts=(8, 4),
        # Bits of 64 in which the hashes of pictures that are alike may differ.
        distance=4,
        # Pictures, and captions, that one is joined with.
        most=32,
        # Whether other training memes show their labels; no meme shows its own.
        label_features=False,
        # Whether the graph that is trained on has the memes of all splits, by
        # their features; False: of the training split alone. Scores are always
        # of the graph of all.
        transductive=False,
    )
