"""Training on batches of meme graphs: steps/s of ours and of PyTorch Geometric.

    python -m memejax.bench.graphs

Both sides train the published networks with the published loss, dropout and AdamW on
batches of 64 graphs of 12 nodes with 256 features each, of 2,048 memes in memory, in a
new order every pass. Ours gathers its batches inside one compiled program. The peer is
measured twice: with its DataLoader, which collates batches on the fly, and with batches
collated before the timing, which is impossible in training that shuffles. Each runs
with its best number of threads. Without torch_geometric only our side runs, with a
message.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from memejax.bench import pairs
from memejax.bench.command_line import Parser
from memejax.command_line import prepare
from memejax.errors import command

if TYPE_CHECKING:
    from memejax import graphs

NETWORKS = ("gcn", "sage", "gat")
MEMES, BATCH, ENTITIES, WIDTH = 2048, 64, 10, 256
LR, DECAY = 1e-3, 0.01


@command
def main() -> None:
    """Run the benchmark."""
    parser = Parser("graphs", __doc__, pairs=9)
    parser.number(
        "--steps", 4 * MEMES // BATCH, text="training steps in one run of a side"
    )
    parser.names(
        "--network", NETWORKS, default=NETWORKS, text="networks, from %(choices)s"
    )
    options = parser.parse_args()
    prepare()
    # Imported here to keep --help fast.
    import jax

    memes, labels = make_memes()
    found: dict[str, Any] = {}
    has_peer = importlib.util.find_spec("torch_geometric") is not None
    if not has_peer:
        print("torch_geometric cannot be imported: timing only our side")
    for name in options.network:
        ours = our_steps(name, memes, labels, steps_=options.steps)
        if not has_peer:
            ours()
            found[name] = {"ours": [ours() for _ in range(options.pairs)]}
            continue
        found[name] = _against_peer(name, ours, memes, labels, options)
        found[name]["parameters"] = _parameters(name)
    more = {"torch_geometric": _versions()} if has_peer else {}
    pairs.write(
        "graphs",
        {
            "unit": "steps/s",
            "batch": BATCH,
            "nodes": 2 + ENTITIES,
            "features": WIDTH,
            "steps": options.steps,
            "devices": [str(device) for device in jax.devices()],
            **more,
            **found,
        },
        options.out,
    )


def make_memes() -> tuple[graphs.MemeFeatures, np.ndarray]:
    """Make random features of memes with all their entities, and labels."""
    from memejax import graphs

    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    n, k = MEMES, ENTITIES
    memes = graphs.MemeFeatures(
        image=normal(n, WIDTH),
        text=normal(n, WIDTH),
        entities=normal(n, k, WIDTH),
        where=np.ones((n, k), bool),
        boxes=np.tile(np.array([0, 0, 9, 9], np.float32), (n, k, 1)),
        sizes=np.full((n, 2), 10),
        classes=np.zeros((n, k), int),
        scores=np.ones((n, k), np.float32),
    )
    return memes, rng.integers(0, 2, n).astype(np.int32)


def our_steps(
    name: str, memes: graphs.MemeFeatures, labels: np.ndarray, *, steps_: int
) -> Callable[[], float]:
    """Return a function that trains for `steps_` steps and returns steps/s."""
    import jax
    import optax

    from memejax import steps
    from memejax.data import plans
    from memejax.graphs.stacked import stack
    from memejax.models import gnn

    net = gnn.GraphClassifier(**gnn.GNNS[name])
    data = jax.device_put({"graph": stack(memes), "label": labels})

    def features(graph: Any) -> Any:
        return graph._replace(nodes=graph.nodes["features"])

    def apply_fn(variables: Any, graph: Any, *, train: bool, **more: Any) -> Any:
        logits, new = net.apply(variables, features(graph), train=train, **more)
        return {name: logits[::2]}, new

    tx = optax.adamw(LR, weight_decay=DECAY)
    step = steps.make_supervised_step(
        apply_fn, tx, views=lambda _, batch, **__: batch["graph"]
    )
    run_all = jax.jit(steps.gather_steps(step))
    variables = jax.jit(lambda key, graph: net.init(key, graph, train=False))(
        jax.random.key(0), features(data["graph"][np.arange(2)])
    )
    state = steps.init_state(variables, tx, key=jax.random.key(1))
    seeds = iter(range(10**6))

    def run() -> float:
        # The plan is timed, as the peer's shuffling is.
        began = time.perf_counter()
        plan = plans.shuffled(MEMES, batch=BATCH, steps=steps_, seed=next(seeds))
        jax.block_until_ready(run_all(state, plan.as_arrays(), data))
        return steps_ / (time.perf_counter() - began)

    return run


def _against_peer(
    name: str,
    ours: Callable[[], float],
    memes: graphs.MemeFeatures,
    labels: np.ndarray,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Time ours against the peer with its loader, and with batches collated before."""
    import torch
    from torch_geometric.loader import DataLoader

    loader = DataLoader(
        _peer_memes(memes, labels), batch_size=BATCH, shuffle=True, drop_last=True
    )
    ready = list(loader)
    found = {}
    for title, batches in (("loader", loader), ("ready batches", ready)):
        speeds = {}
        for threads in range(1, (os.cpu_count() or 1) + 1):
            torch.set_num_threads(threads)
            trial = peer_steps(name, batches, steps_=max(1, options.steps // 4))
            trial()
            speeds[threads] = trial()
        best = max(speeds, key=lambda threads: speeds[threads])
        torch.set_num_threads(best)
        peer = peer_steps(name, batches, steps_=options.steps)
        found[title] = {
            "threads": best,
            **pairs.in_turn(ours, peer, pairs=options.pairs),
        }
    return found


def _peer_memes(memes: graphs.MemeFeatures, labels: np.ndarray) -> list[Any]:
    """Convert the graphs to the peer's format, one by one."""
    import torch
    from torch_geometric.data import Data

    from memejax import graphs

    found = []
    for i in range(len(memes)):
        graph = graphs.batch(memes, [i])
        n, e = graph.n_node[0], graph.n_edge[0]
        ends = np.stack([graph.senders[:e], graph.receivers[:e]]).astype(np.int64)
        data = Data(
            x=torch.from_numpy(graph.nodes["features"][:n]),
            edge_index=torch.from_numpy(ends),
            y=torch.tensor(float(labels[i])),
        )
        found.append(data)
    return found


def peer_steps(
    name: str, batches: Iterable[Any], *, steps_: int
) -> Callable[[], float]:
    """Return a function that trains the peer for `steps_` steps and returns steps/s."""
    import torch
    from torch.nn import functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = _peer_network(name).to(device)
    tx = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=DECAY)

    def run() -> float:
        net.train()
        began, done = time.perf_counter(), 0
        while done < steps_:
            for batch in batches:
                batch = batch.to(device)
                logits = net(batch.x, batch.edge_index, batch.batch, BATCH)
                loss = functional.binary_cross_entropy_with_logits(logits, batch.y)
                tx.zero_grad()
                loss.backward()
                tx.step()
                done += 1
                if done == steps_:
                    break
        # Waits for the device.
        loss.item()
        return steps_ / (time.perf_counter() - began)

    return run


def _peer_network(name: str) -> Any:
    """The published network, built from the peer's layers."""
    import torch
    from torch import nn
    from torch_geometric import nn as layers

    from memejax.models import gnn

    recipe = gnn.GNNS[name]
    sizes = (WIDTH, *recipe["widths"])
    if name == "gat":
        convolutions = [
            layers.GATConv(WIDTH, 8, heads=8, dropout=0.6),
            layers.GATConv(64, 16, heads=1, concat=False, dropout=0.6),
        ]
    else:
        kind = {"gcn": layers.GCNConv, "sage": layers.SAGEConv}[name]
        convolutions = [kind(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
    activation = getattr(torch, recipe["activation"], nn.functional.elu)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolutions = nn.ModuleList(convolutions)
            self.logit = nn.Linear(sizes[-1], 1)

        def forward(self, x, edges, graph_of, count):
            for i, convolution in enumerate(self.convolutions):
                x = nn.functional.dropout(x, recipe["dropouts"][i], self.training)
                x = convolution(x, edges)
                if i + 1 < len(self.convolutions) or "last_activation" in recipe:
                    x = activation(x)
            x = layers.global_mean_pool(x, graph_of, size=count)
            x = nn.functional.dropout(x, recipe["dropouts"][-1], self.training)
            return self.logit(x)[:, 0]

    return Network()


def _parameters(name: str) -> int:
    """Number of parameters, the same for both networks.

    Raises:
        ValueError: if the networks have different numbers of parameters.
    """
    import jax
    import jax.numpy as jnp

    from memejax import graphs
    from memejax.models import gnn

    memes, _ = make_memes()
    graph = graphs.batch(memes, [0])
    graph = graph._replace(nodes=jnp.asarray(graph.nodes["features"]))
    net = gnn.GraphClassifier(**gnn.GNNS[name])
    shapes = jax.eval_shape(
        lambda key: net.init(key, graph, train=False), jax.random.key(0)
    )
    ours = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    theirs = sum(leaf.numel() for leaf in _peer_network(name).parameters())
    if ours != theirs:
        raise ValueError(
            f"{name}: ours has {ours} parameters, the peer {theirs}, expected the same "
            "number"
        )
    return ours


def _versions() -> dict[str, str]:
    import torch
    import torch_geometric

    return {"torch": torch.__version__, "version": torch_geometric.__version__}


if __name__ == "__main__":
    main()
