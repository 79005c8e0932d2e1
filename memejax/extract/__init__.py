"""The offline pass: memes to a store of their features and entities.

    python -m memejax.extract --config=configs/graph.py --out=STORE

extraction.py  the pass itself: start here
memes.py       which memes
sources.py     which encoders
encoders.py    features of pictures and captions
entities.py    what is in a picture: tiles, or nothing
detector.py    what is in a picture: objects, by Mask R-CNN
cutting.py     entities cut out of their pictures
features.py    all of it for some memes: the columns of a shard

`memejax.store.read` reads what this writes.
"""

from memejax.extract.extraction import extract as extract
