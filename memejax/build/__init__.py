"""From a config to objects, by closed dict literals: the only reader of its sections.

`pretrain`, `finetune` and `graph` give a `Stage`: what the loop needs, already made of
callables and arrays. (`dataset.load` does the same for the section `data`.)
"""

from memejax.build.choices import RUNTIME as RUNTIME
from memejax.build.choices import choose as choose
from memejax.build.classifiers import SCORES as SCORES
from memejax.build.classifiers import Classifier as Classifier
from memejax.build.classifiers import classifier as classifier
from memejax.build.curricula import needs_baseline as needs_baseline
from memejax.build.finetuning import finetune as finetune
from memejax.build.graphs import GRAPH_NETWORKS as GRAPH_NETWORKS
from memejax.build.graphs import graph as graph
from memejax.build.graphs import graph_attention as graph_attention
from memejax.build.graphs import graph_data as graph_data
from memejax.build.graphs import graph_feeder as graph_feeder
from memejax.build.graphs import graph_network as graph_network
from memejax.build.maps import image_maps as image_maps
from memejax.build.modules import fusion_arms as fusion_arms
from memejax.build.modules import image_arms as image_arms
from memejax.build.optimizers import optimizer as optimizer
from memejax.build.pretrained import CheckpointError as CheckpointError
from memejax.build.pretrained import adopt as adopt
from memejax.build.pretraining import PRETRAIN as PRETRAIN
from memejax.build.pretraining import pretrain as pretrain
from memejax.build.stages import Refresh as Refresh
from memejax.build.stages import Refreshed as Refreshed
from memejax.build.stages import Stage as Stage
from memejax.build.stages import mesh as mesh
from memejax.build.stages import part_feeder as part_feeder
from memejax.build.stages import scoring_feeder as scoring_feeder
from memejax.build.variables import load_weights as load_weights
from memejax.build.variables import transfer as transfer
