"""Meme graphs: from features of memes to `jraph.GraphsTuple` of static shape.

Everything here is numpy and pure; `memejax.models.gnn` reads what it makes.

    features.py    what is known of memes: pictures, captions, entities
    meme_graph.py  one graph a meme
    hetero.py      one graph over all memes, sampled around each
    hashes.py      which pictures are near-identical
    links.py       who is joined to whom, and draws of neighbours
    boxes.py       how two boxes lie to each other
    packing.py     slots to a padded graph
    stacked.py     all memes' graphs in slots of one shape: a batch by gathering
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
