"""What the tests of benchmarks share: a stage that counts instead of training."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax

from memejax import feeders, steps
from memejax.data import plans
from memejax.stages import pretrain


def counting_stage(monkeypatch):
    """`pretrain.make` makes a stage of five parameters: `devices`, `batches` seen."""
    seen = types.SimpleNamespace(devices=[], batches=[])
    variables = {"params": {"w": jnp.zeros(5)}}

    def make(config, data, *, seed, mesh):
        c, train = config.pretrain, data.splits["train"]
        n = len(train.ids)
        plan = plans.shuffled(n, batch=c.batch, steps=c.steps, seed=seed)
        seen.devices.append(mesh.size)

        def init():
            return steps.init_state(variables, optax.sgd(0.1), key=jax.random.key(0))

        def run_chunk(state, batch):
            assert len(batch["image"].sharding.device_set) == mesh.size
            seen.batches.append(np.asarray(batch["index"]).tolist())
            return state.replace(step=state.step + 1), {}

        return types.SimpleNamespace(
            init=init,
            abstract=jax.eval_shape(init),
            run_chunk=run_chunk,
            feeder=feeders.StreamFeeder(
                train.source,
                plan,
                mesh=mesh,
                threads=config.pipeline.threads,
                workers=config.pipeline.workers,
            ),
        )

    monkeypatch.setattr(pretrain, "make", make)
    return seen
