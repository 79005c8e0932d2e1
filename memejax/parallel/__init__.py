"""Devices and processes; no other package refers to them.

A step is a pure function of (state, batch). Here it is compiled for the devices of all
processes: the batch is split over the axis `data`, the state is replicated or its large
arrays are divided over the same axis, and XLA inserts the reductions, so BatchNorm and
the losses are over the global batch. Under pmap a step contains the reductions itself.
"""

from memejax.parallel.cache import keep_compiled as keep_compiled
from memejax.parallel.compiled import jit_predict as jit_predict
from memejax.parallel.compiled import jit_step as jit_step
from memejax.parallel.compiled import pmap_step as pmap_step
from memejax.parallel.device_placement import abstract_like as abstract_like
from memejax.parallel.device_placement import copy_like as copy_like
from memejax.parallel.device_placement import gather_parameters as gather_parameters
from memejax.parallel.device_placement import put_batch as put_batch
from memejax.parallel.device_placement import put_like as put_like
from memejax.parallel.device_placement import put_state as put_state
from memejax.parallel.device_placement import put_whole as put_whole
from memejax.parallel.device_placement import replicated as replicated
from memejax.parallel.device_placement import split as split
from memejax.parallel.device_placement import state_shardings as state_shardings
from memejax.parallel.meshes import can_branch as can_branch
from memejax.parallel.meshes import check_batch as check_batch
from memejax.parallel.meshes import mesh as mesh
from memejax.parallel.meshes import own_rows as own_rows
from memejax.parallel.processes import Agreement as Agreement
from memejax.parallel.processes import count as count
from memejax.parallel.processes import ending_together as ending_together
from memejax.parallel.processes import fetch as fetch
from memejax.parallel.processes import first_before_others as first_before_others
from memejax.parallel.processes import from_first as from_first
from memejax.parallel.processes import is_first as is_first
from memejax.parallel.processes import leave as leave
from memejax.parallel.processes import start as start
from memejax.parallel.processes import sync as sync
from memejax.parallel.rendezvous import ProcessError as ProcessError
from memejax.parallel.seeds import device_per_core as device_per_core
from memejax.parallel.seeds import devices_for_seeds as devices_for_seeds
from memejax.parallel.seeds import jit_seeds as jit_seeds
from memejax.parallel.threads import (
    reserve_collective_threads as reserve_collective_threads,
)
