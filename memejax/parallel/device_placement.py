"""Arrays on devices: split batches, and states replicated or divided.

All placement of arrays on devices is in this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = Any

# Minimum number of elements of a divided array. A smaller one takes at most 64 kB in
# float32: gathering it costs a message, replicating it next to nothing.
SMALLEST = 2**14


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding with the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """Return the sharding that splits the leading axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(mesh: Mesh, batch: Tree) -> Tree:
    """Start the transfer of a host batch to its devices, without waiting for it.

    Args:
        mesh: devices that the batch is split over.
        batch: this process's rows, `own_rows`; the first axis of all leaves.

    Returns:
        The batch of all processes.
    """
    return jax.make_array_from_process_local_data(split(mesh), batch)


def put_whole(tree: Tree, shardings: Tree) -> Tree:
    """Put arrays on devices, from identical whole copies in every process.

    Args:
        tree: arrays, which may be PRNG keys.
        shardings: a matching tree, or one sharding for all.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def put(x: Any, sharding: NamedSharding) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = put(jax.random.key_data(x), replicated(sharding.mesh))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        host = np.asarray(x)
        # device_put would compare every array between the processes first.
        return jax.make_array_from_callback(host.shape, sharding, lambda i: host[i])

    if isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda x: put(x, shardings), tree)
    return jax.tree.map(put, tree, shardings)


def state_shardings(mesh: Mesh, state: Tree, *, smallest: int = SMALLEST) -> Tree:
    """Return shardings that divide a state's large arrays over the devices (FSDP).

    An array of at least `smallest` elements is divided along its longest axis (on ties
    the last) that the mesh size divides; others, and those without such an axis, are
    replicated. Parameters, their optimizer states, a teacher and an average have the
    same shapes, so they are divided alike.

    Args:
        mesh: of one axis, `data`.
        state: arrays, or anything with shapes (`jax.eval_shape`).
        smallest: minimum number of elements of a divided array.

    Returns:
        A tree like the state, with a NamedSharding per leaf.

    References:
        Rajbhandari et al., ZeRO, 1910.02054, stage 3.
    """

    def sharding_of(leaf: Any) -> NamedSharding:
        shape = np.shape(leaf)
        axes = [i for i, n in enumerate(shape) if n and n % mesh.size == 0]
        if not axes or np.prod(shape, dtype=np.int64) < smallest:
            return replicated(mesh)
        longest = max(axes, key=lambda i: (shape[i], i))
        spec: list[str | None] = [None] * len(shape)
        spec[longest] = mesh.axis_names[0]
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(sharding_of, state)


def gather_parameters(
    apply_fn: Callable[..., Any], mesh: Mesh, *, smallest: int = SMALLEST
) -> Callable[..., Any]:
    """Wrap `apply_fn` to gather variables that `state_shardings` divides.

    Left to itself, XLA propagates the division: it divides activations by features and
    communicates those instead of the parameters, which are smaller. A gradient is
    divided like its parameter, so that no device holds all of them.

    Args:
        apply_fn: `(variables, ...) -> anything`.
        mesh: of one axis, `data`.
        smallest: as for `state_shardings`.
    """

    def gathered(variables: Tree, *args: Any, **more: Any) -> Any:
        shardings = state_shardings(mesh, variables, smallest=smallest)
        return apply_fn(jax.tree.map(_gather, variables, shardings), *args, **more)

    return gathered


def _gather(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Replicate an array; its gradient is divided like the array."""
    whole = replicated(sharding.mesh)
    if sharding == whole:
        return x
    constrain = jax.lax.with_sharding_constraint

    @jax.custom_vjp
    def gather(x: jax.Array) -> jax.Array:
        return constrain(x, whole)

    gather.defvjp(
        lambda x: (gather(x), None),
        lambda _, gradient: (constrain(gradient, sharding),),
    )
    return gather(x)


def abstract_like(tree: Tree, shardings: Tree) -> Tree:
    """Return shapes and dtypes with shardings, the template to restore a checkpoint.

    Args:
        tree: arrays, or anything with shapes (`jax.eval_shape`).
        shardings: a matching tree, or one sharding for all.

    Returns:
        `jax.ShapeDtypeStruct`s.
    """
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        tree,
        shardings,
    )


def copy_like(tree: Tree, like: Tree) -> Tree:
    """Copy arrays to the shardings of others; the originals may be donated afterwards.

    Args:
        tree: arrays, on the host or on devices of this or of all processes.
        like: a matching tree of arrays, or of shapes with shardings.
    """
    shardings = jax.tree.map(lambda x: x.sharding, like)
    copy = jax.jit(lambda x: jax.tree.map(jnp.copy, x), out_shardings=shardings)
    return copy(tree)


def put_like(host: np.ndarray, like: Any) -> jax.Array:
    """Copy a host array, whole in every process, to the sharding of another array.

    A transposed view of a memory-mapped file is copied in one pass, and the result does
    not reference the file.
    """
    if jax.process_count() == 1:
        return jax.device_put(host, like.sharding, may_alias=False)
    return jax.make_array_from_callback(host.shape, like.sharding, lambda i: host[i])


def put_state(mesh: Mesh, state: Tree, *, shardings: Tree | None = None) -> Tree:
    """Copy the state to the devices; the caller's arrays survive donation.

    Args:
        mesh: the devices.
        state: arrays.
        shardings: from `state_shardings`; None: replicated.
    """
    if shardings is None:
        shardings = jax.tree.map(lambda _: replicated(mesh), state)
    return put_whole(jax.tree.map(_copy, state, shardings), shardings)


def _copy(x: Any, sharding: NamedSharding) -> Any:
    """Copy an array before placement, as device_put may alias the caller's buffers.

    An array to be divided is copied on the host: no device has to hold all of it.
    """
    divided = not sharding.is_fully_replicated
    if isinstance(x, jax.Array):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        if is_key or x.sharding.is_equivalent_to(sharding, x.ndim):
            divided = False
    return np.array(x) if divided else jnp.copy(x)
