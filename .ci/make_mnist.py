"""Files of MNIST's format, of a few digits drawn at random, in a folder."""

import pathlib
import struct
import sys

import numpy as np

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(0)
for part, count in (("train", 1200), ("t10k", 200)):
    for name, shape, most in (
        ("images-idx3-ubyte", (count, 28, 28), 256),
        ("labels-idx1-ubyte", (count,), 10),
    ):
        head = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
        body = rng.integers(0, most, shape, np.uint8).tobytes()
        (folder / f"{part}-{name}").write_bytes(head + body)
