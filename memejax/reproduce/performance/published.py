"""The paper's tables of performance, as printed.

Times are per epoch unless it says otherwise; utilisation is of the GPU's cores and of
its memory, as shares.

References:
    "Exploring Emerging Properties in Multimodal Neural Networks", tables 4 to 7 and
    figure 4.
"""

from __future__ import annotations

from typing import NamedTuple

TITLES = {
    "table4": "Table 4, epochs in batches of 4",
    "table5": "Table 5, epochs in batches of 32",
    "table6": "Table 6, two machines",
    "table7": "Table 7, graph networks",
    "figure4": "Figure 4, one forward pass",
}
TABLES = tuple(TITLES)


class Epoch(NamedTuple):
    """A published row of tables 4 to 6.

    Attributes:
        on: devices, in words.
        seconds: per epoch.
        core: utilisation of the cores.
        memory: utilisation of the memory.
        speed_up: to one device.
        efficiency: speed-up per device.
    """

    on: str
    seconds: float
    core: float
    memory: float
    speed_up: float | None = None
    efficiency: float | None = None


# Table -> (devices, how a step is compiled) -> the row beside ours. The paper's several
# devices ran under PyTorch's DataParallel, and one of its single ones did.
_FOUR_4 = Epoch("4 RTX 8000", 304.8, 0.4431, 0.1564, 1.74, 0.4347)
_FOUR_32 = Epoch("4 RTX 8000", 133.0, 0.7643, 0.4213, 3.05, 0.7632)
EPOCHS: dict[str, dict[tuple[int, str], Epoch]] = {
    "table4": {
        (1, "jit"): Epoch("1 RTX 8000", 531.0, 0.97, 0.63),
        (1, "pmap"): Epoch("1 RTX 8000, DataParallel", 530.0, 0.83, 0.54),
        (4, "jit"): _FOUR_4,
        (4, "pmap"): _FOUR_4,
    },
    "table5": {
        (1, "jit"): Epoch("1 RTX 8000", 406.0, 0.9501, 0.5831),
        (4, "jit"): _FOUR_32,
        (4, "pmap"): _FOUR_32,
    },
    "table6": {(1, "jit"): Epoch("1 V100", 337.0, 0.9542, 0.4629)},
}
# The other machine of table 6 is table 5's.
OTHER_MACHINE = EPOCHS["table5"][1, "jit"]

# Network -> hours for 20 epochs in all, as printed. They are what a progress bar said
# was left after the first epoch, or had taken before the last.
GRAPH_HOURS = {"gcn": (5, 48), "gat": (6, 29), "sage": (5, 46)}
GRAPH_CORE, GRAPH_MEMORY = 0.8776, 0.6293
GRAPH_EPOCHS, GRAPH_MEMES = 20, 8500

# Figure 4: convolutions' share of one cold forward pass's time, and of its FLOPs.
CONVOLUTION_TIME, CONVOLUTION_FLOPS = 0.8043, 0.1644
