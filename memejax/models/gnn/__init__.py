"""Graph networks: Linen modules that map a `jraph.GraphsTuple` to one.

A layer reads nodes `[N, d]` and replaces them; edges, globals and counts are kept.
Graphs need no padding. If `jraph.pad_with_graphs` or `memejax.graphs` padded them,
padding edges join only padding nodes, so padding does not affect real graphs: mask the
last graphs of the output.

    segments.py    reductions over the edges of a node or the nodes of a graph
    gcn.py, sage.py, gat.py, rgcn.py   the layers, as PyTorch Geometric defines them
    readout.py     one vector per graph from its nodes
    encoder.py     projection of several kinds of nodes to one width
    labels.py      labels of other memes as features of their nodes
    classifier.py  layers, readout and logit; `GNNS` lists the published networks
    controls.py    baselines on the same nodes without edges, or on the caption alone
    normalize.py   node normalisation of the published networks
"""

from memejax.models.gnn.classifier import GNNS as GNNS
from memejax.models.gnn.classifier import GraphClassifier as GraphClassifier
from memejax.models.gnn.classifier import MemeGraphNet as MemeGraphNet
from memejax.models.gnn.controls import MLP as MLP
from memejax.models.gnn.controls import DeepSets as DeepSets
from memejax.models.gnn.encoder import NodeEncoder as NodeEncoder
from memejax.models.gnn.encoder import Projection as Projection
from memejax.models.gnn.gat import GAT as GAT
from memejax.models.gnn.gat import GATv2 as GATv2
from memejax.models.gnn.gcn import GCN as GCN
from memejax.models.gnn.labels import LabelledNodes as LabelledNodes
from memejax.models.gnn.readout import AttentionPool as AttentionPool
from memejax.models.gnn.readout import mean_nodes as mean_nodes
from memejax.models.gnn.readout import node_at as node_at
from memejax.models.gnn.rgcn import RGCN as RGCN
from memejax.models.gnn.sage import GraphSAGE as GraphSAGE
from memejax.models.gnn.segments import edge_features as edge_features
from memejax.models.gnn.segments import segment_softmax as segment_softmax
