"""Tensors of other libraries to our variables, and back.

Both directions rename, transpose and check; every name is accounted for. float32
tensors are not copied: the leaves are views on the given arrays, so that loading costs
no more than the transfer to a device that follows.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from memejax.models.encoders import Encoder
from memejax.weights.configs import MODULES
from memejax.weights.form import Form, rewrite
from memejax.weights.names import BETWEEN, FORMS, QUERY_KEY_VALUE, TOKEN_TYPES

Tensors = Mapping[str, np.ndarray]
Variables = dict[str, Any]
Classifier = dict[str, np.ndarray]
TreePath = tuple[str, ...]
Shape = tuple[int, ...]

# Number of names that an error lists for each kind of fault.
LISTED = 20
CLASSIFIER = "classifier"
TYPES = "token_types"


class Place(NamedTuple):
    """Position of one of our leaves in their tensors.

    Attributes:
        path: of our leaf; starts with the collection.
        name: of their tensor.
        ours: shape of our leaf.
        theirs: shape of their whole tensor.
        axes: our axes in the order of theirs.
        part: index in a tensor of stacked queries, keys and values, or None.
    """

    path: TreePath
    name: str
    ours: Shape
    theirs: Shape
    axes: tuple[int, ...]
    part: int | None


def to_variables(
    tensors: Tensors, *, form: str, sizes: Mapping[str, Any]
) -> tuple[Variables, Classifier | None]:
    """Convert the tensors of another library to variables of our module.

    In a BERT, the embedding of token type 0 is added to that of every position, as a
    caption is one segment: the only values that are not those of the file.

    Args:
        tensors: arrays of a float dtype by name; they are not changed.
        form: a key of FORMS.
        sizes: attributes of our module; a ViT's `grid` is the checkpoint's own.

    Returns:
        variables: `{"params": ...}`, for a ResNet `"batch_stats"` too; numpy float32,
            views on those of `tensors` that are float32.
        classifier: `{"kernel": [d, classes], "bias": [classes]}`, or None if there is
            none that is linear in the features.

    Raises:
        ValueError: for an unknown form, or naming every missing, unexpected and
            misshapen tensor.
    """
    known = _form(form)
    found, unexpected = _by_name(tensors, known)
    theirs = {name: np.shape(tensors[given]) for name, given in found.items()}
    places, features = _places(known, sizes)
    places += _classifier_places(known, features, _classes(theirs, known))
    if known.architecture == "bert":
        # Two types are usual; any number is accepted.
        table = (*theirs.get(TOKEN_TYPES, ()), 2)[0], features
        places.append(Place((TYPES,), TOKEN_TYPES, table, table, (0, 1), None))

    expected = {place.name: place for place in places}
    missing = [name for name in expected if name not in found]
    unexpected += [given for name, given in found.items() if name not in expected]
    misshapen = [
        f"{given} ({fault})"
        for name, given in found.items()
        if name in expected
        and (fault := _misfit(tensors[given], expected[name].theirs)) is not None
    ]
    _check(f"tensors do not fit the form {form!r}", missing, unexpected, misshapen)

    leaves = {p.path: _take(tensors[found[p.name]], p) for p in places}
    if (TYPES,) in leaves:
        first = leaves.pop((TYPES,))[:1]
        if np.any(first):
            leaves["params", "positions"] = leaves["params", "positions"] + first
    tree = traverse_util.unflatten_dict(leaves)
    return tree, tree.pop(CLASSIFIER, None)


def to_tensors(
    variables: Mapping[str, Any],
    *,
    form: str,
    sizes: Mapping[str, Any],
    classifier: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """Convert variables of our module to tensors of another library.

    The inverse of `to_variables`. A BERT's token types are written as zeros, as its
    positions include them; counters, poolers and other extras are not written.

    Args:
        variables: `{"params": ...}`, for a ResNet `"batch_stats"` too; float arrays.
        form: a key of FORMS.
        sizes: attributes of our module.
        classifier: `{"kernel": [d, classes], "bias": [classes]}`, or None.

    Returns:
        Contiguous float32 arrays by name.

    Raises:
        ValueError: for an unknown form, a classifier if the form has none, or naming
            every missing, unexpected and misshapen leaf.
    """
    known = _form(form)
    leaves = traverse_util.flatten_dict(jax.tree.map(np.asarray, dict(variables)))
    places, features = _places(known, sizes)
    if classifier is not None:
        if known.classifier is None:
            raise ValueError(f"got a classifier, which the form {form!r} does not have")
        classes = (*np.shape(classifier["kernel"]), 1)[1]
        places += _classifier_places(known, features, classes)
        leaves |= {(CLASSIFIER, k): np.asarray(v) for k, v in classifier.items()}

    expected = {place.path: place for place in places}
    misshapen = [
        f"{'/'.join(path)} ({fault})"
        for path, leaf in leaves.items()
        if path in expected
        and (fault := _misfit(leaf, expected[path].ours)) is not None
    ]
    missing = ["/".join(path) for path in expected if path not in leaves]
    unexpected = ["/".join(path) for path in leaves if path not in expected]
    what = f"variables do not fit the {known.architecture} of the form {form!r}"
    _check(what, missing, unexpected, misshapen)

    tensors: dict[str, np.ndarray] = {}
    for place in places:
        if place.name not in tensors:
            # The file formats need contiguous rows, not views.
            tensors[place.name] = np.empty(place.theirs, np.float32)
        _put(leaves[place.path], place, tensors[place.name])
    if known.architecture == "bert":
        tensors[TOKEN_TYPES] = np.zeros((2, features), np.float32)
    return tensors


def classes_of(shapes: Mapping[str, Shape], *, form: str) -> int | None:
    """Return the number of classes of the linear classifier among tensors.

    Args:
        shapes: shapes by name.
        form: a key of FORMS.

    Returns:
        Number of classes; None without a classifier that is linear in the features.
    """
    known = _form(form)
    found, _ = _by_name(shapes, known)
    return _classes({name: shapes[given] for name, given in found.items()}, known)


def _form(form: str) -> Form:
    if form not in FORMS:
        raise ValueError(f"got form {form!r}, expected one of {list(FORMS)}")
    return FORMS[form]


def _places(form: Form, sizes: Mapping[str, Any]) -> tuple[list[Place], int]:
    """Places of all leaves of the encoder, and the width of its features."""
    # Tuples, so that modules are hashable for the cache.
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in sizes.items()}
    module = MODULES[form.architecture](**fields)
    shapes, features = _shapes(module)
    if form.flat:
        sizes = {**sizes, "stage_sizes": module.stage_sizes}
    return [_place(path, shape, form, sizes) for path, shape in shapes], features


@functools.lru_cache(maxsize=32)
def _shapes(model: Encoder) -> tuple[tuple[tuple[TreePath, Shape], ...], int]:
    """Paths and shapes of a module's variables, and its feature width, cached.

    Nothing is computed, but tracing takes longer than reading a file: only one of
    several identical blocks (`Encoder.distinct_blocks`) is traced.
    """
    blocks, traced = model.block_counts(), model.distinct_blocks
    few = model.with_blocks(traced)

    def init(*inputs):
        return few.init_with_output(jax.random.key(0), *inputs, train=False)

    out, tree = jax.eval_shape(init, *model.smallest_inputs())
    found: list[tuple[TreePath, Shape]] = []
    for path, leaf in traverse_util.flatten_dict(tree).items():
        found.append((path, leaf.shape))
        block = re.fullmatch(r"(.*block)(\d+)", path[1])
        if block and int(block[2]) == traced - 1:
            found += [
                ((path[0], f"{block[1]}{i}", *path[2:]), leaf.shape)
                for i in range(traced, blocks[block[1]])
            ]
    return tuple(found), out.shape[-1]


def _place(path: TreePath, ours: Shape, form: Form, sizes: Mapping[str, Any]) -> Place:
    *within, leaf = path
    axes = tuple(range(len(ours)))
    if leaf == "kernel" and not form.flax:
        # [in, out] to [out, in], and [h, w, in, out] to [out, in, h, w].
        axes = (*axes[:-3:-1], *axes[:-2])
    theirs = tuple(ours[axis] for axis in axes)
    part = None
    if "attention" in within:
        projects = within[-1] in QUERY_KEY_VALUE
        if form.fused and projects and re.search(form.fused, ".".join(path[1:])):
            part = QUERY_KEY_VALUE.index(within[-1])
            theirs = (len(QUERY_KEY_VALUE) * theirs[0], *theirs[1:])
        elif form.flax and projects:
            theirs = (*ours[:-1], sizes["heads"], ours[-1] // sizes["heads"])
        elif form.flax and leaf == "kernel":
            theirs = (sizes["heads"], ours[0] // sizes["heads"], *ours[1:])
    theirs = (1,) * form.leading.get(leaf, 0) + theirs
    name = ".".join(path[1:])
    if form.flat and "stage_sizes" in sizes:
        name = _flat(name, sizes["stage_sizes"])
    name = rewrite(name, form.rules)
    return Place(path, name, ours, theirs, axes, part)


def _flat(name: str, stage_sizes: Sequence[int]) -> str:
    """Replace `stage<i>_block<j>` at the start by `block<n>`, counted over stages."""

    def number(match: re.Match[str]) -> str:
        stage, block = int(match[1]), int(match[2])
        return f"block{sum(stage_sizes[:stage]) + block}."

    return re.sub(r"^stage(\d+)_block(\d+)\.", number, name)


def _classifier_places(form: Form, features: int, classes: int | None) -> list[Place]:
    """Places of the classifier's kernel and bias, in this order, or an empty list."""
    if form.classifier is None or classes is None:
        return []
    names = ("/kernel", "/bias") if form.flax else (".weight", ".bias")
    shapes = {"kernel": (features, classes), "bias": (classes,)}
    places = [_place((CLASSIFIER, k), s, form, {}) for k, s in shapes.items()]
    return [
        place._replace(name=form.classifier + name)
        for place, name in zip(places, names, strict=True)
    ]


def _classes(shapes: Mapping[str, Shape], form: Form) -> int | None:
    """Classes by either tensor of a classifier, or None."""
    for place in reversed(_classifier_places(form, 1, 1)):
        if place.name in shapes:
            axis = 0 if not form.flax else -1
            return (shapes[place.name] or (1,))[axis]
    return None


def _by_name(given: Iterable[str], form: Form) -> tuple[dict[str, str], list[str]]:
    """Given names by the form's own, without extras, and the repeated ones."""
    found: dict[str, str] = {}
    twice: list[str] = []
    linear = True
    for one in given:
        name = rewrite(one.removeprefix(form.prefix), form.spellings)
        if re.match(form.extras, name):
            linear = linear and not re.match(BETWEEN, name)
        elif name in found:
            twice.append(one)
        else:
            found[name] = one
    for place in _classifier_places(form, 1, 1) if not linear else ():
        found.pop(place.name, None)
    return found, twice


def _misfit(tensor: np.ndarray, expected: Shape) -> str | None:
    """Describe the fault of an array, or return None."""
    # jax's issubdtype treats bfloat16 as a float, numpy's does not.
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        shape = list(tensor.shape)
        return f"got {tensor.dtype}{shape}, expected floats {list(expected)}"
    if tensor.shape != expected:
        return f"got {list(tensor.shape)}, expected {list(expected)}"
    return None


def _take(tensor: np.ndarray, place: Place) -> np.ndarray:
    if place.part is not None:
        tensor = np.split(tensor, len(QUERY_KEY_VALUE))[place.part]
    shape = tuple(place.ours[axis] for axis in place.axes)
    tensor = tensor.astype(np.float32, copy=False).reshape(shape)
    return tensor.transpose(np.argsort(place.axes))


def _put(leaf: np.ndarray, place: Place, tensor: np.ndarray) -> None:
    if place.part is not None:
        tensor = np.split(tensor, len(QUERY_KEY_VALUE))[place.part]
    tensor[...] = leaf.transpose(place.axes).reshape(tensor.shape)


def _check(what: str, missing: list, unexpected: list, misshapen: list) -> None:
    """Raise one ValueError that lists all faults, if there are any."""
    kinds = dict(missing=missing, unexpected=unexpected, misshapen=misshapen)
    if any(kinds.values()):
        listed = [f"{len(v)} {k}: {_listed(v)}" for k, v in kinds.items() if v]
        raise ValueError(f"{what}: {'; '.join(listed)}")


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
