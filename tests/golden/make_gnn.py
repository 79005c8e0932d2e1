"""Makes the graph layers' golden file: PyTorch Geometric's with random weights.

    python tests/golden/make_gnn.py

Written with torch 2.13 and torch_geometric 2.8.1. The file holds graphs (`few/...`
with every oddity, `none/...` without an edge) and for each case `<case>/ours` (JSON:
our class and attributes), `<case>/params/<path>` (under our names), and outputs.
`net_<name>/...` are the published classifiers, made narrow.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch_geometric import nn as pyg
from torch_geometric.nn import aggr

HERE = Path(__file__).parent
IN, EDGE, RELATIONS = 5, 3, 3

# Our class, our attributes, PyTorch Geometric's layer, and what it is called with.
CASES = {
    "gcn": ("GCN", dict(features=4), pyg.GCNConv(IN, 4), ()),
    "gcn_weighted": (
        "GCN",
        dict(features=4, weight_field="weight"),
        pyg.GCNConv(IN, 4),
        ("weight",),
    ),
    "sage_mean": (
        "GraphSAGE",
        dict(features=4, aggregate="mean"),
        pyg.SAGEConv(IN, 4, aggr="mean"),
        (),
    ),
    "sage_max": (
        "GraphSAGE",
        dict(features=4, aggregate="max"),
        pyg.SAGEConv(IN, 4, aggr="max"),
        (),
    ),
    "gat_concat": (
        "GAT",
        dict(features=4, heads=3),
        pyg.GATConv(IN, 4, heads=3),
        (),
    ),
    "gat_mean": (
        "GAT",
        dict(features=4, heads=3, concat=False),
        pyg.GATConv(IN, 4, heads=3, concat=False),
        (),
    ),
    "gatv2_edges": (
        "GATv2",
        dict(features=4, heads=3, edge_fields=("box",)),
        pyg.GATv2Conv(IN, 4, heads=3, edge_dim=EDGE),
        ("box",),
    ),
    "gatv2_shared": (
        "GATv2",
        dict(features=4, heads=2, concat=False, share_weights=True),
        pyg.GATv2Conv(IN, 4, heads=2, concat=False, share_weights=True),
        (),
    ),
    "rgcn": (
        "RGCN",
        dict(features=4, relations=RELATIONS),
        pyg.RGCNConv(IN, 4, RELATIONS),
        ("type",),
    ),
}
# Names of PyTorch Geometric -> ours.
NAMES = {
    "GCN": {"lin.weight": "linear/kernel", "bias": "bias"},
    "GraphSAGE": {
        "lin_l.weight": "neighbours/kernel",
        "lin_l.bias": "bias",
        "lin_r.weight": "root/kernel",
    },
    "GAT": {
        "lin.weight": "linear/kernel",
        "att_src": "att_sender",
        "att_dst": "att_receiver",
        "bias": "bias",
    },
    "GATv2": {
        "lin_l.weight": "sender/kernel",
        "lin_l.bias": "sender/bias",
        "lin_r.weight": "receiver/kernel",
        "lin_r.bias": "receiver/bias",
        "lin_edge.weight": "edge/kernel",
        "att": "att",
        "bias": "bias",
    },
    "RGCN": {"weight": "kernel", "root": "root", "bias": "bias"},
}


def graphs(seed=0):
    """Random features of a graph with every oddity, and of one without an edge.

    Self loops (two at node 2), edges that stand twice, a node that nothing reaches
    (5), one without any edge (6), and a second graph of nodes 6 to 9.
    """
    rng = np.random.default_rng(seed)
    senders = [0, 1, 1, 2, 2, 2, 3, 4, 4, 0, 5, 0, 7, 8, 9, 8]
    receivers = [1, 0, 2, 2, 2, 3, 2, 3, 3, 0, 1, 1, 8, 7, 8, 9]
    counts = {"few": ([6, 4], [12, 4]), "none": ([2, 1], [0, 0])}
    for name, (n_node, n_edge) in counts.items():
        n, e = sum(n_node), sum(n_edge)
        yield (
            name,
            {
                "nodes": rng.normal(size=(n, IN)).astype(np.float32),
                "weight": rng.uniform(0.2, 2.0, size=e).astype(np.float32),
                "box": rng.normal(size=(e, EDGE)).astype(np.float32),
                # Type 2 stands at no edge of most nodes.
                "type": rng.integers(0, RELATIONS, size=e).astype(np.int32),
                "senders": np.array(senders[:e], np.int32),
                "receivers": np.array(receivers[:e], np.int32),
                "n_node": np.array(n_node, np.int32),
                "n_edge": np.array(n_edge, np.int32),
            },
        )


def randomise(layer, seed):
    """Every weight and bias becomes a random number."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
    return layer.eval()


def edge_index(graph):
    """Senders and receivers as PyTorch Geometric has them."""
    both = np.stack([graph["senders"], graph["receivers"]])
    return torch.from_numpy(both.astype(np.int64))


def called(layer, graph, fields, nodes=None):
    """Output of a layer; nodes as given, or the graph's."""
    nodes = torch.from_numpy(graph["nodes"]) if nodes is None else nodes
    extra = [torch.from_numpy(graph[name]) for name in fields]
    if fields == ("type",):
        extra = [extra[0].long()]
    return layer(nodes, edge_index(graph), *extra)


def attention(layer, graph, fields):
    """Weights of the edges that are no self loops, then of one loop a node."""
    nodes = torch.from_numpy(graph["nodes"])
    extra = [torch.from_numpy(graph[name]) for name in fields]
    _, (_, weights) = layer(
        nodes, edge_index(graph), *extra, return_attention_weights=True
    )
    return weights.detach().numpy()


def renamed(ours, tensors):
    """PyTorch Geometric's tensors `{name: array}` under our names, in our shapes."""
    params = {}
    for name, value in tensors.items():
        if name.endswith("weight") and name != "weight":
            value = value.T
        elif name.startswith("att"):
            value = value[0]
        params[NAMES[ours][name]] = value
    return params


def parameters(ours, layer):
    """Parameters of a layer under our names; a shared one once."""
    tensors = {k: v.detach().numpy() for k, v in layer.named_parameters()}
    return renamed(ours, tensors)


class Published(torch.nn.Module):
    """A published classifier at test time: layers, the nodes' mean, one logit."""

    def __init__(self, name, widths, *, inputs, heads=()):
        super().__init__()
        self.name, layers = name, []
        for i, width in enumerate(widths):
            if name == "gat":
                last = i + 1 == len(widths)
                layer = pyg.GATConv(inputs, width, heads=heads[i], concat=not last)
                inputs = width * heads[i]
            else:
                layer = {"gcn": pyg.GCNConv, "sage": pyg.SAGEConv}[name](inputs, width)
                inputs = width
            layers.append(layer)
        self.layers = torch.nn.ModuleList(layers)
        self.logit = torch.nn.Linear(widths[-1], 1)

    def forward(self, graph):
        """Logits, one a graph."""
        x, edges = torch.from_numpy(graph["nodes"]), edge_index(graph)
        activation = {
            "gcn": torch.tanh,
            "sage": torch.relu,
            "gat": torch.nn.functional.elu,
        }[self.name]
        for i, layer in enumerate(self.layers):
            x = layer(x, edges)
            if self.name == "gcn" or i + 1 < len(self.layers):
                x = activation(x)
        ids = np.repeat(np.arange(len(graph["n_node"])), graph["n_node"])
        x = pyg.global_mean_pool(x, torch.from_numpy(ids))
        return self.logit(x)[:, 0]

    def parameters_of_ours(self):
        """All parameters under our names."""
        ours = {"gcn": "GCN", "sage": "GraphSAGE", "gat": "GAT"}[self.name]
        out = {
            "classifier/logit/kernel": self.logit.weight.detach().numpy().T,
            "classifier/logit/bias": self.logit.bias.detach().numpy(),
        }
        for i, layer in enumerate(self.layers):
            for name, value in parameters(ours, layer).items():
                out[f"layer{i}/{name}"] = value
        return out


# Narrow ones for the file.
NETS = {
    "gcn": dict(widths=(6, 5, 3)),
    "sage": dict(widths=(6, 5, 3)),
    "gat": dict(widths=(3, 4), heads=(2, 1)),
}


def pooled(graph, seed):
    """A score of nodes, and the attention pool that it makes."""
    gate = randomise(torch.nn.Linear(IN, 1), seed)
    ids = np.repeat(np.arange(len(graph["n_node"])), graph["n_node"])
    pool = aggr.AttentionalAggregation(gate)
    with torch.no_grad():
        out = pool(torch.from_numpy(graph["nodes"]), torch.from_numpy(ids))
    kernel, bias = gate.weight.detach().numpy().T, gate.bias.detach().numpy()
    return {"score/kernel": kernel, "score/bias": bias}, out.numpy()


def main():
    """Writes the file."""
    file = {}
    known = dict(graphs())
    for name, graph in known.items():
        file |= {f"{name}/{field}": value for field, value in graph.items()}
    for seed, (case, (ours, attributes, layer, fields)) in enumerate(CASES.items()):
        randomise(layer, seed)
        params = parameters(ours, layer)
        file |= {f"{case}/params/{k}": v for k, v in params.items()}
        file[f"{case}/ours"] = json.dumps([ours, attributes])
        for name, graph in known.items():
            with torch.no_grad():
                out = called(layer, graph, fields)
            file[f"{case}/{name}/out"] = out.numpy()
            if ours in ("GAT", "GATv2"):
                file[f"{case}/{name}/attention"] = attention(layer, graph, fields)
    params, out = pooled(known["few"], 99)
    file |= {f"pool/params/{k}": v for k, v in params.items()}
    file["pool/out"] = out
    for name, sizes in NETS.items():
        net = randomise(Published(name, **sizes, inputs=IN), 7)
        params = net.parameters_of_ours()
        file |= {f"net_{name}/params/{k}": v for k, v in params.items()}
        file[f"net_{name}/ours"] = json.dumps(sizes)
        with torch.no_grad():
            file[f"net_{name}/out"] = net(known["few"]).numpy()
    np.savez_compressed(HERE / "gnn.npz", **file)


if __name__ == "__main__":
    main()
