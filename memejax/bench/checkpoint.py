"""Cost of a checkpoint's digests: time until a save is whole on disk, with and without.

    python -m memejax.bench.checkpoint

The state is as large as that of the paper's multimodal CASS, 240 M parameters with
Adam's two moments, in arrays of 4 M numbers (2.9 GB). Timed are the call of `save`,
which the next step waits for, and the time until the checkpoint is committed and, on
our side, has its digests. The digests are written in the background.
"""

from __future__ import annotations

import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np

from memejax.bench import pairs
from memejax.bench.command_line import Parser
from memejax.command_line import prepare
from memejax.errors import command

if TYPE_CHECKING:
    from memejax import steps

# Numbers in one array.
SIZE = 4_000_000


@command
def main() -> None:
    """Run the benchmark."""
    parser = Parser("checkpoint", __doc__, pairs=3)
    parser.number("--parameters", 240, text="parameters, in millions")
    options = parser.parse_args()
    prepare()
    # Imported here to keep --help fast.
    import jax

    from memejax import digests

    state = _state(options.parameters * 1_000_000)
    blocked: dict[str, list[float]] = {"with": [], "without": []}

    def side(name: str, write: Callable[..., None]) -> Callable[[], float]:
        def run() -> float:
            with tempfile.TemporaryDirectory() as folder:
                with mock.patch.object(digests, "write", write):
                    call, whole = _timed(state, pathlib.Path(folder))
            blocked[name].append(call)
            return 1 / whole

        return run

    figures = pairs.in_turn(
        side("with", digests.write),
        side("without", lambda _: None),
        pairs=options.pairs,
    )
    figures |= {
        "unit": "checkpoints/s",
        "ours is": "with digests",
        "peer is": "without",
        "seconds in save()": {k: float(np.median(v[1:])) for k, v in blocked.items()},
        "bytes": sum(x.nbytes for x in jax.tree.leaves(state.params)) * 3,
    }
    pairs.write("checkpoint", figures, options.out)


def _state(parameters: int) -> steps.State:
    """Return a state of so many parameters and two moments each, random."""
    import jax
    import jax.numpy as jnp

    from memejax import parallel, steps

    rng = np.random.default_rng(0)

    def tree() -> dict[str, np.ndarray]:
        count = max(1, parameters // SIZE)
        return {f"w{i}": rng.random(SIZE, np.float32) for i in range(count)}

    made = steps.State(
        step=jnp.int32(0),
        params=tree(),
        batch_stats={},
        opt_state={"mu": tree(), "nu": tree()},
        average={},
        key=jax.random.key(0),
    )
    return parallel.put_state(parallel.mesh(), made)


def _timed(state: steps.State, folder: pathlib.Path) -> tuple[float, float]:
    """Save once; return the seconds of the call, and until it is on disk."""
    from memejax.checkpoint import Checkpoints

    with Checkpoints(folder, keep=1) as saves:
        began = time.perf_counter()
        saves.save(1, state, plan={"index": np.zeros(3, np.int32)}, position={})
        called = time.perf_counter() - began
        saves.wait()
        return called, time.perf_counter() - began


if __name__ == "__main__":
    main()
