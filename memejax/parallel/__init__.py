"""Devices: the only package that names them.

A step is a pure function of (state, batch). Here it is compiled for all local
devices: the state is replicated, the batch is split over the axis `data`, and XLA
puts in the reductions, so BatchNorm and the losses are over the global batch.
"""

from memejax.parallel.cache import keep_compiled as keep_compiled
from memejax.parallel.compiled import jit_predict as jit_predict
from memejax.parallel.compiled import jit_step as jit_step
from memejax.parallel.meshes import check_batch as check_batch
from memejax.parallel.meshes import mesh as mesh
from memejax.parallel.meshes import put_batch as put_batch
from memejax.parallel.meshes import put_state as put_state
from memejax.parallel.meshes import replicated as replicated
from memejax.parallel.meshes import split as split
from memejax.parallel.seeds import device_a_core as device_a_core
from memejax.parallel.seeds import devices_for_seeds as devices_for_seeds
from memejax.parallel.seeds import jit_seeds as jit_seeds
