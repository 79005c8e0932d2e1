"""Tests run on four fake CPU devices, with implicit rank promotion an error."""

import os

# Before jax is imported anywhere, so that it also holds for subprocesses.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")

import jax  # noqa: E402
from absl import flags  # noqa: E402

# grain's worker processes read absl flags.
flags.FLAGS.mark_as_parsed()
jax.config.update("jax_numpy_rank_promotion", "raise")
