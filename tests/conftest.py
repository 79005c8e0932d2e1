"""Tests run on four fake CPU devices, with implicit rank promotion an error."""

import atexit
import fcntl
import gc
import os
import shutil
import tempfile

# Before jax is imported anywhere, so that it also holds for subprocesses.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
# See memejax.parallel.reserve_collective_threads: tests may use devices before it
# runs.
os.environ.setdefault("PJRT_NPROC", str(max(os.cpu_count() or 1, 8)))
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Many tests compile the same tiny programs; workers and subprocesses share them.
    cache = tempfile.mkdtemp(prefix="memejax-tests-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    # Not the user's own.
    os.environ["MEMEJAX_CACHE"] = cache
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

import jax  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402

from memejax.parallel import xla  # noqa: E402

# Compiling takes most of the time here. XLA reads its flags when it is first used.
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), xla.as_flags(xla.COMPILE_FAST)]
).strip()
# grain's worker processes read absl flags.
flags.FLAGS.mark_as_parsed()
jax.config.update("jax_numpy_rank_promotion", "raise")

# Scripts that made the golden files; they need torch.
collect_ignore_glob = ["golden/*.py"]

# By the seconds that they compute, most first; a file stays with one worker.
LONGEST = (
    "test_resuming",
    "test_processes",
    "test_pretraining",
    "test_train",
    "test_devices",
    "test_classify",
    "test_meme_curricula",
    "test_reproduce_study",
    "test_reproduce",
    "test_hetero_stage",
    "test_extract",
    "test_graph_stage",
    "test_image",
    "test_loop",
    "test_graph_along",
    "test_build",
    "test_maskrcnn",
)


def pytest_xdist_auto_num_workers():
    """One more than cores: a test compiles on one core, or waits for a subprocess."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items):
    """The longest files first: no worker is left alone with one at the end."""
    order = {f"tests/{name}.py": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.nodeid.split("::")[0], len(order)))


def pytest_collection_finish():
    """Collects less often, and never what the imports made: it took a tenth of all."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


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
