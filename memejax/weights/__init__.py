"""Checkpoints of other libraries: import and export.

    loaded = weights.load("facebook/dino-vits16", grid=6)
    models.vit.ViT(**loaded.architecture.sizes).apply(loaded.variables, images, ...)

checkpoint.py  a checkpoint as a whole: opened, loaded, saved; start here
files.py       files of a checkpoint by name, and their tensors; formats.py: safetensors
               and npz, pickles.py, torch_pickles.py: PyTorch's, hub.py: names on the
               hub, installed.py: files inside packages
forms.py       form and sizes of a checkpoint, from its config or tensor names
names.py       tables: our names beside theirs; form.py: a row of them, tower_names.py:
               CLIP's and SigLIP's
convert.py     tensors to variables and back
configs.py     config.json, read; written.py: and written; preprocessing.py:
               preprocessor_config.json
maskrcnn.py    torchvision's Mask R-CNN
inspect.py     python -m memejax.weights.inspect PATH
"""

from typing import TYPE_CHECKING

from memejax.lazy import exports

if TYPE_CHECKING:
    from memejax.weights.checkpoint import Checkpoint as Checkpoint
    from memejax.weights.checkpoint import Loaded as Loaded
    from memejax.weights.checkpoint import load as load
    from memejax.weights.checkpoint import open_checkpoint as open_checkpoint
    from memejax.weights.checkpoint import save as save
    from memejax.weights.configs import Architecture as Architecture
    from memejax.weights.preprocessing import Preprocessing as Preprocessing

__getattr__, __dir__ = exports(
    __name__,
    {
        "Checkpoint": "memejax.weights.checkpoint",
        "Loaded": "memejax.weights.checkpoint",
        "load": "memejax.weights.checkpoint",
        "open_checkpoint": "memejax.weights.checkpoint",
        "save": "memejax.weights.checkpoint",
        "Architecture": "memejax.weights.configs",
        "Preprocessing": "memejax.weights.preprocessing",
    },
)
