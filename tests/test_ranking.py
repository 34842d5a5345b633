"""Ranks against a loop over everything, with many equals, and of what is no number."""

from __future__ import annotations

import numpy as np
import pytest

from singlestream.ranking import first_stage, recall, reranked
from singlestream.train.errors import NonFiniteError


def test_ranks_by_sorting_everything(monkeypatch):
    monkeypatch.setattr("singlestream.ranking._CELLS", 40)  # several blocks
    rng = np.random.default_rng(0)
    queries, items = rng.normal(size=(9, 4)), rng.normal(size=(12, 4))
    own = [np.array([i, 11]) for i in range(9)]
    best, ranks = first_stage(queries, items, own, 5)
    order = np.argsort(-(queries @ items.T), axis=1)
    np.testing.assert_array_equal(best, order[:, :5])
    places = [min(list(row).index(i) for i in mine) + 1 for row, mine in zip(order, own, strict=True)]
    assert ranks.tolist() == places
    assert first_stage(queries, items, own, 99)[0].shape == (9, 12)


def rank(scores, own):
    """1 and how many of the others do not score less than the best of its own, one by one."""
    best = max(scores[i] for i in own)
    return 1 + sum(score >= best for i, score in enumerate(scores) if i not in own)


def test_equals_are_ahead_of_ones_own():
    rng = np.random.default_rng(0)
    queries, items = rng.integers(-1, 2, size=(20, 3)) * 1.0, rng.integers(-1, 2, size=(15, 3)) * 1.0  # many are equal
    own = [rng.choice(15, 2, replace=False) for _ in range(20)]
    best, ranks = first_stage(queries, items, own, 6)
    scores = queries @ items.T
    assert ranks.tolist() == [rank(row, set(mine)) for row, mine in zip(scores, own, strict=True)]
    true = np.stack([np.isin(found, mine) for found, mine in zip(best, own, strict=True)])
    other = rng.integers(0, 3, size=(20, 6)) * 1.0
    places = [set(np.flatnonzero(row)) for row in true]
    wanted = [rank(row, mine) if mine else first for row, mine, first in zip(other, places, ranks, strict=True)]
    assert reranked(other, true, ranks).tolist() == wanted
    assert all(first > 6 for mine, first in zip(places, ranks, strict=True) if not mine)  # behind the shortlist
    collapsed = np.ones((10, 4))
    assert first_stage(collapsed, collapsed, [np.array([i]) for i in range(10)], 3)[1].tolist() == [10] * 10


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_has_no_rank(value):
    own = [np.array([i]) for i in range(3)]
    with pytest.raises(
        NonFiniteError, match="retrieval: a similarity is no finite number; evaluate another --checkpoint"
    ):
        first_stage(np.full((3, 3), value), np.ones((3, 3)), own, 2)
    with pytest.raises(NonFiniteError, match="retrieval: a score is no finite number"):
        reranked(np.array([[value, 0]]), np.array([[True, False]]), np.array([1]))


def test_what_is_on_the_shortlist_is_put_in_order():
    scores = np.array([[0.1, 0.9, 0.5], [0.3, 0.3, 0.1], [3, 2, 1]])
    true = np.array([[False, False, True], [False, True, True], [False] * 3])
    ranks = reranked(scores, true, np.array([3, 2, 7]))
    assert ranks.tolist() == [2, 2, 7]
    assert recall("x", np.array([2, 1, 7])) == {"x/r1": 1 / 3, "x/r5": 2 / 3, "x/r10": 1, "x/median": 2}
