"""Offline extraction: memes to a store of their features and entities.

    python -m memejax.extract --config=configs/graph.py --out=STORE

extraction.py  the extraction itself: start here
memes.py       memes of a config
sources.py     encoders of a config
encoders.py    features of pictures and captions
entities.py    entities of a picture: tiles, or none
detector.py    entities of a picture: objects, by Mask R-CNN
cutting.py     crops of entities
features.py    columns of a shard: all of the above for some memes

`memejax.store.read` reads the store.
"""

from typing import TYPE_CHECKING

from memejax.lazy import exports

if TYPE_CHECKING:
    from memejax.extract.extraction import extract as extract

__getattr__, __dir__ = exports(
    __name__,
    {
        "extract": "memejax.extract.extraction",
    },
)
