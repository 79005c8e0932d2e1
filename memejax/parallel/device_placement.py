"""Arrays on devices: batches split, states whole or with their large arrays divided.

The one file that puts an array anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = Any

# Elements from which an array is divided. A smaller one takes 64 kB in float32: to
# gather it costs a message, and to keep it whole next to nothing.
SMALLEST = 2**14


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(mesh: Mesh, batch: Tree) -> Tree:
    """Starts the transfer of a host batch to its devices; does not wait for it.

    Args:
        mesh: over which it is split.
        batch: of it this process's rows, `own_rows`; leaves have the axis of rows
            first.

    Returns:
        The batch of all processes.
    """
    return jax.make_array_from_process_local_data(split(mesh), batch)


def put_whole(tree: Tree, where: Tree) -> Tree:
    """Lays out arrays of which every process has the whole, and the same.

    Args:
        tree: arrays, PRNG keys among them.
        where: shardings, a tree as it or one for all.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, where)

    def put(x: Any, sharding: NamedSharding) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = put(jax.random.key_data(x), replicated(sharding.mesh))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        host = np.asarray(x)
        # device_put would compare every array between the processes first.
        return jax.make_array_from_callback(host.shape, sharding, lambda i: host[i])

    if isinstance(where, NamedSharding):
        return jax.tree.map(lambda x: put(x, where), tree)
    return jax.tree.map(put, tree, where)


def state_shardings(mesh: Mesh, state: Tree, *, smallest: int = SMALLEST) -> Tree:
    """Shardings that divide a state's large arrays over the devices (FSDP).

    An array of at least `smallest` elements is divided along its longest axis (of
    equals the last) that the mesh divides; others, and those without such an axis,
    lie whole on every device. Parameters, what an optimizer keeps for each of them, a
    teacher and an average have the same shapes, so they are divided alike.

    Args:
        mesh: of one axis, `data`.
        state: arrays, or anything with shapes (`jax.eval_shape`).
        smallest: elements of the smallest array that is divided.

    Returns:
        A tree as the state, a NamedSharding a leaf.

    References:
        Rajbhandari et al., ZeRO, 1910.02054, stage 3.
    """

    def of(leaf: Any) -> NamedSharding:
        shape = np.shape(leaf)
        axes = [i for i, n in enumerate(shape) if n and n % mesh.size == 0]
        if not axes or np.prod(shape, dtype=np.int64) < smallest:
            return replicated(mesh)
        longest = max(axes, key=lambda i: (shape[i], i))
        spec: list[str | None] = [None] * len(shape)
        spec[longest] = mesh.axis_names[0]
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(of, state)


def gather_parameters(
    apply_fn: Callable[..., Any], mesh: Mesh, *, smallest: int = SMALLEST
) -> Callable[..., Any]:
    """`apply_fn` on variables that `state_shardings` divides, each made whole for it.

    Left to itself XLA goes on with what is divided: it divides activations by their
    features, and sends those around instead of parameters, which are smaller. A
    gradient comes out divided as its parameter is, so that no device has all of them.

    Args:
        apply_fn: `(variables, ...) -> anything`.
        mesh: of one axis, `data`.
        smallest: as `state_shardings` was given it.
    """

    def gathered(variables: Tree, *args: Any, **more: Any) -> Any:
        where = state_shardings(mesh, variables, smallest=smallest)
        return apply_fn(jax.tree.map(_gather, variables, where), *args, **more)

    return gathered


def _gather(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """An array on all devices; its gradient is divided as the array was."""
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
    """Return shapes and dtypes with shardings, as checkpoints are restored by.

    Args:
        tree: arrays, or anything with shapes (`jax.eval_shape`).
        shardings: a tree as it, or one for all.

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
    """Copy arrays to where others lie; the originals may be donated afterwards.

    Args:
        tree: arrays, of this process or of all of them, numpy's or on devices.
        like: a tree as it, of arrays or of shapes with shardings.
    """
    shardings = jax.tree.map(lambda x: x.sharding, like)
    copy = jax.jit(lambda x: jax.tree.map(jnp.copy, x), out_shardings=shardings)
    return copy(tree)


def put_like(host: np.ndarray, like: Any) -> jax.Array:
    """Copy a host array, of which every process has the whole, to where another lies.

    A transposed view on a file's memory map is copied in one pass, and nothing of it
    hangs on the file.
    """
    if jax.process_count() == 1:
        return jax.device_put(host, like.sharding, may_alias=False)
    return jax.make_array_from_callback(host.shape, like.sharding, lambda i: host[i])


def put_state(mesh: Mesh, state: Tree, *, shardings: Tree | None = None) -> Tree:
    """A copy of the state on the devices; the caller's own survives donation.

    Args:
        mesh: of the devices.
        state: arrays.
        shardings: as `state_shardings` gives them; None: all of it on every device.
    """
    where = shardings
    if where is None:
        where = jax.tree.map(lambda _: replicated(mesh), state)
    return put_whole(jax.tree.map(_own, state, where), where)


def _own(x: Any, sharding: NamedSharding) -> Any:
    """A copy to lay out: device_put alone may hand out the caller's own buffers.

    What is to be divided is copied on the host: no device need hold the whole of it.
    """
    divided = not sharding.is_fully_replicated
    if isinstance(x, jax.Array):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        if is_key or x.sharding.is_equivalent_to(sharding, x.ndim):
            divided = False
    return np.array(x) if divided else jnp.copy(x)
