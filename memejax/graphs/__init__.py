"""Meme graphs: from features of memes to `jraph.GraphsTuple` of static shape.

Everything here is numpy and pure; `memejax.models.gnn` consumes the graphs.

    features.py    features of memes: pictures, captions, entities
    meme_graph.py  one graph per meme
    hetero.py      one graph over all memes, sampled around each
    hashes.py      perceptual hashes: near-identical pictures
    links.py       edges by receiver, and draws of neighbours
    boxes.py       relative position of two boxes
    packing.py     slots to a padded graph
    stacked.py     graphs of all memes in slots of one shape: a batch by gathering
"""

from memejax.graphs.features import MemeFeatures as MemeFeatures
from memejax.graphs.hashes import cosine_hash as cosine_hash
from memejax.graphs.hashes import difference_hash as difference_hash
from memejax.graphs.hashes import near_pairs as near_pairs
from memejax.graphs.hetero import HeteroGraph as HeteroGraph
from memejax.graphs.hetero import hetero_graph as hetero_graph
from memejax.graphs.hetero import sample as sample
from memejax.graphs.meme_graph import batch as batch
from memejax.graphs.meme_graph import widths as widths
