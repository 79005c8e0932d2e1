"""Checkpoints of other libraries, in and out.

    loaded = weights.load("facebook/dino-vits16", grid=6)
    models.vit.ViT(**loaded.architecture.sizes).apply(loaded.variables, images, ...)

checkpoint.py  a checkpoint as a whole: opened, loaded, saved; start here
files.py       what a name stands for, and its tensors; formats.py: safetensors and npz,
               pickles.py: PyTorch's, hub.py: names on the hub
forms.py       what a checkpoint is, told from its config or its names
names.py       tables: our names beside theirs
convert.py     tensors to variables and back
configs.py     config.json and preprocessor_config.json
maskrcnn.py    torchvision's Mask R-CNN
inspect.py     python -m memejax.weights.inspect PATH
"""

from memejax.weights.checkpoint import Checkpoint as Checkpoint
from memejax.weights.checkpoint import Loaded as Loaded
from memejax.weights.checkpoint import load as load
from memejax.weights.checkpoint import open_checkpoint as open_checkpoint
from memejax.weights.checkpoint import save as save
from memejax.weights.configs import Architecture as Architecture
from memejax.weights.configs import Preprocessing as Preprocessing
