"""Encoders, arms, heads and graph layers: Linen modules, pure in `init` and `apply`.

All modules are exported here (`memejax.models.ViT`), with their published sizes
(`VITS`, `RESNETS`, `EFFICIENTNETS`, `BERTS`, `CLIPS`, `SIGLIPS`, `GNNS`). Mask R-CNN is
`memejax.models.maskrcnn`.

    encoders.py                           base classes of the encoders
    vit.py resnet.py distilbert.py        encoders of images and of text
    efficientnet.py                       a small encoder of images, for weak devices
    clip.py siglip.py towers.py           both towers of a CLIP or SigLIP, their base
    convnet.py perceptron.py words.py     small networks and encoders
    image.py fusion.py heads.py           arms of an image encoder, alone or with text
    feature_heads/                        heads on stored features of a meme
    gnn/ maskrcnn/                        graph networks, the detector
    layers/ crops.py                      shared layers; boxes cropped from pictures
"""

from memejax.models import feature_heads as feature_heads
from memejax.models import gnn as gnn
from memejax.models import layers as layers
from memejax.models import maskrcnn as maskrcnn
from memejax.models.clip import CLIPS as CLIPS
from memejax.models.clip import ClipText as ClipText
from memejax.models.clip import ClipVision as ClipVision
from memejax.models.convnet import ConvNet as ConvNet
from memejax.models.distilbert import BERTS as BERTS
from memejax.models.distilbert import DistilBert as DistilBert
from memejax.models.efficientnet import EFFICIENTNETS as EFFICIENTNETS
from memejax.models.efficientnet import EfficientNetLite as EfficientNetLite
from memejax.models.encoders import Encoder as Encoder
from memejax.models.encoders import ImageEncoder as ImageEncoder
from memejax.models.encoders import TextEncoder as TextEncoder
from memejax.models.feature_heads import FEATURE_HEADS as FEATURE_HEADS
from memejax.models.feature_heads import ConcatMlp as ConcatMlp
from memejax.models.feature_heads import FeatureHead as FeatureHead
from memejax.models.feature_heads import HateClipper as HateClipper
from memejax.models.feature_heads import HeadOutput as HeadOutput
from memejax.models.feature_heads import LinearHead as LinearHead
from memejax.models.feature_heads import MemeClip as MemeClip
from memejax.models.fusion import Arm as Arm
from memejax.models.fusion import Arms as Arms
from memejax.models.gnn import GAT as GAT
from memejax.models.gnn import GCN as GCN
from memejax.models.gnn import GNNS as GNNS
from memejax.models.gnn import MLP as MLP
from memejax.models.gnn import RGCN as RGCN
from memejax.models.gnn import DeepSets as DeepSets
from memejax.models.gnn import GATv2 as GATv2
from memejax.models.gnn import GraphClassifier as GraphClassifier
from memejax.models.gnn import GraphSAGE as GraphSAGE
from memejax.models.gnn import MemeGraphNet as MemeGraphNet
from memejax.models.heads import Classifier as Classifier
from memejax.models.heads import DinoHead as DinoHead
from memejax.models.heads import Predictor as Predictor
from memejax.models.image import DinoArm as DinoArm
from memejax.models.image import ImageArm as ImageArm
from memejax.models.perceptron import Perceptron as Perceptron
from memejax.models.resnet import RESNETS as RESNETS
from memejax.models.resnet import ResNet as ResNet
from memejax.models.siglip import SIGLIPS as SIGLIPS
from memejax.models.siglip import SiglipText as SiglipText
from memejax.models.siglip import SiglipVision as SiglipVision
from memejax.models.vit import VITS as VITS
from memejax.models.vit import ViT as ViT
from memejax.models.words import AveragedWords as AveragedWords
