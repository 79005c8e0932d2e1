import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memejax.losses import knn_vote, mine

RNG = np.random.default_rng(0)
STORE = RNG.normal(size=(50, 6)).astype(np.float32)
LABELS = RNG.integers(0, 2, 50)
# The first are rows of the store, the last three are not in it.
QUERIES = np.concatenate([STORE[:20], RNG.normal(size=(3, 6))]).astype(np.float32)
ASKED = np.concatenate([LABELS[:20], [0, 1, 1]])
INDEX = np.concatenate([np.arange(20), [-1, -1, -1]])


def neighbours(query, store, labels, own):
    """The store's rows and cosines in order: float64, one pair at a time, sorted."""
    found = []
    for j, (row, label) in enumerate(zip(store, labels, strict=True)):
        if label >= 0 and j != own:
            lengths = np.sqrt(np.dot(query, query) * np.dot(row, row))
            found.append((-np.dot(query, row) / lengths if lengths else 0.0, j))
    return [(j, -negated) for negated, j in sorted(found)]


def mined(queries, store, asked, labels, index, within=None):
    """What `mine` should return, from the sorted neighbours."""
    result = []
    for query, label, own in zip(queries, asked, index, strict=True):
        nearest = [j for j, _ in neighbours(query, store, labels, own)][:within]
        same = [j for j in nearest if label >= 0 and labels[j] == label]
        other = [j for j in nearest if label >= 0 and labels[j] != label]
        result.append(
            ((same or [0])[0], (other or [0])[0], len(same) > 0, len(other) > 0)
        )
    return [np.array(column) for column in zip(*result, strict=True)]


def check(got, expected):
    for field, column in zip(got, expected, strict=True):
        assert field.dtype == (bool if column.dtype == bool else np.int32)
        np.testing.assert_array_equal(field, column)


@pytest.mark.parametrize("within", [None, 1, 2, 3, 12])
@pytest.mark.parametrize("chunk", [1, 7, 23, 1000])
def test_mine_agrees_with_sorted_neighbours(within, chunk):
    wide = [x.astype(np.float64) for x in (QUERIES, STORE)]
    for index in (INDEX, None):
        got = mine(
            QUERIES,
            STORE,
            query_labels=ASKED,
            store_labels=LABELS,
            query_index=index,
            within=within,
            chunk=chunk,
        )
        own = np.full(23, -1) if index is None else index
        expected = mined(*wide, ASKED, LABELS, own, within)
        check(got, expected)
        if within == 1:
            # Otherwise the masks of existence would not be tested.
            assert not expected[2].all() and not expected[3].all()
        if within is None and index is None:
            np.testing.assert_array_equal(got.positive[:20], np.arange(20))


def test_mine_golden():
    # Angles of 0, 10, 30, 70 and 100 degrees; the labels of row 1 and 4 differ.
    degrees = np.deg2rad([0, 10, 30, 70, 100])
    store = np.stack([np.cos(degrees), np.sin(degrees)], 1)
    labels = jnp.array([1, 0, 1, 1, 0])
    find = functools.partial(
        mine, store, store, query_labels=labels, store_labels=labels
    )
    everywhere = find(query_index=np.arange(5))
    check(
        everywhere,
        [
            np.array(x)
            for x in ([2, 4, 0, 2, 1], [1, 0, 1, 4, 3], [True] * 5, [True] * 5)
        ],
    )
    # The nearest of row 4 is row 3, of the other label; itself does not count.
    first = find(query_index=np.arange(5), within=1)
    np.testing.assert_array_equal(
        first.has_positive, [False, False, False, False, False]
    )
    np.testing.assert_array_equal(first.has_negative, [True, True, True, True, True])
    # Of row 2: row 1 at 20 degrees, row 0 at 30; as published itself has rank 1.
    assert bool(find(query_index=np.arange(5), within=2).has_positive[2])
    itself = find(within=2)
    assert int(itself.positive[2]) == 2 and int(itself.negative[2]) == 1


def test_equal_cosines_go_to_the_lower_index():
    """Cosines of 1 and 0 are exact, so that these are ties."""
    store = np.eye(3)[[1, 0, 0, 0, 0, 2]] * np.array([[3.0, 2, 1, 4, 5, 6]]).T
    labels = np.array([0, 1, 0, 1, 0, 1])
    query = np.array([[1.0, 0.0, 0.0]])
    find = functools.partial(
        mine, query, store, query_labels=np.array([0]), store_labels=labels
    )
    check(find(), [np.array([x]) for x in (2, 1, True, True)])
    # Order: 1, 2, 3, 4, then 0 and 5. Row 2 has rank 2, among equals.
    check(find(within=1), [np.array([x]) for x in (0, 1, False, True)])
    check(find(within=2), [np.array([x]) for x in (2, 1, True, True)])
    # Without row 1 and 2 the first is row 3, of the other label.
    hidden = np.array([0, -1, -1, 1, 0, 1])
    check(
        find(store_labels=hidden, within=1),
        [np.array([x]) for x in (0, 3, False, True)],
    )
    check(
        find(store_labels=hidden, query_index=np.array([3]), within=1),
        [np.array([x]) for x in (4, 0, True, False)],
    )


def test_labels_that_are_missing():
    find = functools.partial(mine, QUERIES, STORE, query_index=INDEX)
    got = find(query_labels=np.ones(23, int), store_labels=np.ones(50, int))
    assert got.has_positive.all() and not got.has_negative.any()
    got = find(query_labels=np.full(23, -1), store_labels=LABELS)
    assert not got.has_positive.any() and not got.has_negative.any()
    # Rows of unknown label are no neighbours, whatever they hold.
    labels = np.where(np.arange(50) % 3 == 0, -1, LABELS)
    store = np.where(labels[:, None] < 0, 1e3 * QUERIES[:1], STORE)
    got = mine(QUERIES, store, query_labels=ASKED, store_labels=labels, within=4)
    check(got, mined(QUERIES, store, ASKED, labels, np.full(23, -1), 4))


def test_several_classes():
    labels = RNG.integers(0, 4, 50)
    got = mine(
        STORE,
        STORE,
        query_labels=labels,
        store_labels=labels,
        query_index=np.arange(50),
    )
    check(got, mined(STORE, STORE, labels, labels, np.arange(50)))


def test_mine_under_jit_and_in_a_loss():
    @jax.jit
    def total(queries, store):
        got = mine(
            queries,
            store,
            query_labels=ASKED,
            store_labels=LABELS,
            query_index=INDEX,
            chunk=5,
        )
        return jnp.sum(queries * store[got.positive]), got

    (_, got), gradient = jax.value_and_grad(total, has_aux=True)(QUERIES, STORE)
    expected = mined(QUERIES, STORE, ASKED, LABELS, INDEX)
    check(got, expected)
    # By the product alone: the search has no gradient.
    np.testing.assert_array_equal(gradient, STORE[expected[0]])


def test_scale_and_order_do_not_matter():
    scales = RNG.uniform(0.1, 10, (50, 1)).astype(np.float32)
    order = RNG.permutation(50)
    place = np.argsort(order)
    expected = mined(QUERIES, STORE, ASKED, LABELS, INDEX, 12)
    got = mine(
        QUERIES * 3,
        (STORE * scales)[order],
        query_labels=ASKED,
        store_labels=LABELS[order],
        query_index=np.where(INDEX < 0, -1, place[INDEX]),
        within=12,
    )
    for name, column, exists in zip(
        ("positive", "negative"), expected[:2], expected[2:], strict=True
    ):
        back = order[np.asarray(getattr(got, name))]
        np.testing.assert_array_equal(back[exists], column[exists])


def test_a_zero_vector_has_cosine_zero():
    store = np.array([[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    labels = np.array([1, 1, 0])
    got = mine(
        np.array([[2.0, 0.0], [0.0, 0.0]]),
        store,
        query_labels=np.array([1, 1]),
        store_labels=labels,
    )
    # Nearer than the opposite; to a zero query all are equally near.
    check(got, [np.array(x) for x in ([0, 0], [2, 2], [True] * 2, [True] * 2)])


def votes(queries, store, labels, index, k):
    """The scores of `knn_vote`, from the sorted neighbours."""
    scores = []
    for query, own in zip(queries, index, strict=True):
        total = mass = 0.0
        nearest = neighbours(query, store, labels, own)[:k]
        for weight, (j, cosine) in zip(range(k, 0, -1), nearest, strict=False):
            total += weight * cosine * (2 * labels[j] - 1)
            mass += weight
        scores.append(total / mass if mass else 0.0)
    return np.array(scores)


@pytest.mark.parametrize("k", [1, 3, 20, 50])
@pytest.mark.parametrize("index", [INDEX, None])
def test_vote_agrees_with_sorted_neighbours(k, index):
    got = jax.jit(
        lambda q: knn_vote(
            q, STORE, store_labels=LABELS, k=k, query_index=index, chunk=4
        )
    )(QUERIES)
    own = np.full(23, -1) if index is None else index
    expected = votes(QUERIES.astype(np.float64), STORE, LABELS, own, k)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_vote_golden():
    store = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    vote = functools.partial(
        knn_vote, jnp.array([[2.0, 0.0]]), store, store_labels=jnp.array([0, 1, 1, 1])
    )
    # (3 x -1 + 2 x 0.6 + 1 x 0) / 6, and without the row itself, (3 x .6 - 1) / 6.
    np.testing.assert_allclose(vote(k=3), [-0.3], rtol=1e-6)
    own = jnp.array([0])
    np.testing.assert_allclose(vote(k=3, query_index=own), [0.8 / 6], rtol=1e-6)
    # Three neighbours for four votes: weights 4, 3, 2.
    np.testing.assert_allclose(vote(k=4, query_index=own), [0.4 / 9], rtol=1e-6)
    none = knn_vote(store, store, store_labels=jnp.full(4, -1), k=2)
    np.testing.assert_array_equal(none, np.zeros(4))


@pytest.mark.parametrize(
    "changes, match",
    [
        (dict(queries=np.ones(3)), r"queries of shape \(3,\), expected \[n, 6\]"),
        (dict(queries=np.ones((2, 5))), r"queries of shape \(2, 5\)"),
        (dict(store=np.ones((0, 6))), r"store of shape \(0, 6\)"),
        (dict(query_labels=np.zeros(2, int)), r"query_labels int\d+\[2\]"),
        (dict(store_labels=np.zeros(50)), r"store_labels float\d+\[50\], expected int"),
        (dict(query_index=np.zeros(23)), "query_index float"),
        (dict(within=0), "within 0"),
        (dict(chunk=0), "chunk 0"),
    ],
)
def test_mine_errors(changes, match):
    given = dict(queries=QUERIES, store=STORE, query_labels=ASKED, store_labels=LABELS)
    with pytest.raises(ValueError, match=match):
        mine(**given | changes)


@pytest.mark.parametrize(
    "changes, match",
    [
        (dict(k=0), "k 0"),
        (dict(k=51), "k 51 .* from 1 to 50"),
        (dict(chunk=0), "chunk 0"),
        (dict(store_labels=LABELS[:4]), r"expected integers \[50\]"),
    ],
)
def test_vote_errors(changes, match):
    with pytest.raises(ValueError, match=match):
        knn_vote(QUERIES, STORE, **dict(store_labels=LABELS) | changes)
