"""Tests run on four fake CPU devices, with implicit rank promotion an error."""

import atexit
import fcntl
import os
import shutil
import tempfile

# Before jax is imported anywhere, so that it also holds for subprocesses.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
# See memejax.parallel.room_for_collectives: a test may use devices before it does.
os.environ.setdefault("PJRT_NPROC", str(max(os.cpu_count() or 1, 8)))
# Compiling takes most of the time here, and -O0 halves it.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Many tests compile the same tiny programs; workers and subprocesses share them.
    cache = tempfile.mkdtemp(prefix="memejax-tests-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

import jax  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402

# grain's worker processes read absl flags.
flags.FLAGS.mark_as_parsed()
jax.config.update("jax_numpy_rank_promotion", "raise")

# Scripts that made the golden files; they need torch.
collect_ignore_glob = ["golden/*.py"]


def pytest_xdist_auto_num_workers():
    """One more than cores: a test compiles on one core, or waits for a subprocess."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A run of the whole job that nothing disturbed: its folder and its results."""
    # Imported here: not every worker needs it.
    from support import tiny

    from memejax import train

    where = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # One run for all workers: who comes second finds it finished.
        where = where.parent
    with (where / "whole.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        results = train.run(tiny(), where / "whole")
    return where / "whole", results
