"""Contents of an export, and code that loads them: a section of the model card."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from memejax.report.cells import Table


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of an export.

    Attributes:
        path: below the folder of the export.
        what: a description.
        kind: of an encoder: the architecture that transformers, or one of LIBRARIES,
            loads it as, or "memejax" if only memejax can; "" of anything else.
    """

    path: str
    what: str
    kind: str = ""


# Architecture -> the library that has its class, where it is not transformers.
LIBRARIES = {"efficientnet_lite": "efficientnet_lite_pytorch"}

_SCRIPT = """\
With jax, numpy and flatbuffers, without memejax. `run_predictor.py` in the same folder
does this from the command line; `predictor.json` has the shapes and checksums.

```python
import numpy as np
from jax import export
from PIL import Image
from tokenizers import Tokenizer

memes = [("meme.png", "its caption")]
with open("predictor/predictor.stablehlo", "rb") as file:
    predictor = export.deserialize(bytearray(file.read()))
weights = dict(np.load("predictor/predictor.npz"))
tokenizer = Tokenizer.from_file("tokenizer/tokenizer.json")  # cuts and pads
tokens = tokenizer.encode_batch([caption for _, caption in memes])
pictures = [
    np.asarray(Image.open(file).convert("RGB").resize((SIDE, SIDE), 2))  # bilinear
    for file, _ in memes
]
proba = predictor.call(
    weights,
    np.stack(pictures),
    np.array([t.ids for t in tokens], np.int32),
    np.array([t.attention_mask for t in tokens], np.int32),
)
```
"""
_SHORTER = """
The run brought a picture's shorter side to SIDE pixels and cropped the centre; do so in
place of `resize` above.
"""
_CUBIC = """
The run resized with `Image.Resampling.BICUBIC`; do so in place of `BILINEAR` above.
"""
_RESIZED = {
    "square": "",
    "square_bicubic": _CUBIC,
    "shorter": _SHORTER,
    "shorter_bicubic": _SHORTER + _CUBIC,
    "pad": """
The run brought a picture's longer side to SIDE pixels and filled with zeros at the
right or the bottom; do so in place of `resize` above.
""",
}

_THEIRS = """\
With PyTorch and transformers:

```python
from transformers import AutoModel, AutoTokenizer
LINES
```
"""

_OTHERS = """\
With memejax. NAMES: the tensors have the names of LIBRARY, whose module of the
same size loads them by `load_state_dict(..., strict=False)`.

```python
from memejax import models, weights

loaded = weights.load("FIRST")
encoder = models.EfficientNetLite(**loaded.architecture.sizes)
# encoder.apply(loaded.variables, ..., train=False)
```
"""

_OURS = """\
With memejax. transformers has no class for: NAMES. There the names are memejax's own.

```python
import importlib
import json

from flax import traverse_util
from safetensors.numpy import load_file

folder = "FIRST"
with open(f"{folder}/config.json") as file:
    made = json.load(file)["memejax"]
encoder = getattr(importlib.import_module(made["module"]), made["class"])(
    **made["attributes"]
)
variables = load_file(f"{folder}/model.safetensors")
variables = traverse_util.unflatten_dict(variables, sep="/")
# encoder.apply(variables, ..., train=False)
```
"""

_REST = """\
What joins the encoders is in `classifier.safetensors`, and how, in
`classifier.json`:

```python
from safetensors.numpy import load_file

layers = load_file("classifier.safetensors")  # by their paths, "params/..."
```
"""


def section(leaves: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """Return the parts of an export, and code that loads each.

    Args:
        leaves: dotted name -> value of the run's config.
        parts: of the export.

    Returns:
        Markdown; its Python runs in the export's folder.
    """
    rows = [[f"`{part.path}`", part.what] for part in parts]
    size = str(leaves["data.image_size"])
    text = [
        pipes(Table("", ("part", "contents"), rows)),
        _SCRIPT + _RESIZED[leaves["data.resize"]],
    ]
    ours = [part.path for part in parts if part.kind == "memejax"]
    others = [part for part in parts if part.kind in LIBRARIES]
    theirs = [p for p in parts if p.kind not in ("", "memejax", *LIBRARIES)]
    if theirs:
        lines = []
        for part in theirs:
            # Without the option transformers makes a pooler up.
            option = ", add_pooling_layer=False" if part.kind == "vit" else ""
            lines.append(f'encoder = AutoModel.from_pretrained("{part.path}"{option})')
            if part.path.endswith("text_encoder"):
                lines.append(
                    f'tokenizer = AutoTokenizer.from_pretrained("{part.path}")'
                )
        text.append(_THEIRS.replace("LINES", "\n".join(lines)))
    if others:
        names = ", ".join(f"`{part.path}`" for part in others)
        filled = _OTHERS.replace("NAMES", names).replace("FIRST", others[0].path)
        text.append(filled.replace("LIBRARY", f"`{LIBRARIES[others[0].kind]}`"))
    if ours:
        names = ", ".join(f"`{path}`" for path in ours)
        text.append(_OURS.replace("NAMES", names).replace("FIRST", ours[0]))
    text.append(_REST)
    return "\n\n".join(part.strip() for part in text).replace("SIDE", size)


def pipes(table: Table) -> str:
    """Format a table as Markdown."""
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
