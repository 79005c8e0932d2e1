"""Features of memes on disk: written once, read by index.

read.py    facts, keys and columns of a store
write.py   writer of a store, shard by shard
shards.py  one safetensors file of the columns of some memes
"""

from memejax.store.read import SplitFeatures as SplitFeatures
from memejax.store.read import Store as Store
from memejax.store.read import different_parts as different_parts
from memejax.store.read import open_store as open_store
from memejax.store.read import shard_path as shard_path
from memejax.store.read import store_key as store_key
from memejax.store.write import OtherStoreError as OtherStoreError
from memejax.store.write import StoreWriter as StoreWriter
