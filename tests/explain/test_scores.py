"""Intervals and calibration against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from singlestream.explain.scores import auroc, calibration, wilson_interval


def test_wilson_interval_of_a_known_case():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(st.integers(1, 10_000), st.data())
def test_wilson_interval_holds_the_share_and_mirrors(count, data):
    hits = data.draw(st.integers(0, count))
    low, high = wilson_interval(hits, count)
    assert 0 <= low <= hits / count <= high <= 1
    assert wilson_interval(count - hits, count) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_interval_refuses_more_hits_than_cases():
    with pytest.raises(ValueError, match="hits=3 must be between 0 and count=2"):
        wilson_interval(3, 2)


def test_calibration_by_hand():
    probability = np.array([0.95, 0.95, 0.55, 1.0])
    error, bins = calibration(probability, np.array([True, False, True, True]))
    assert [(b.low, b.count, b.accuracy) for b in bins] == [(0.5, 1, 1.0), (0.9, 3, pytest.approx(2 / 3))]
    assert error == pytest.approx((1 * 0.45 + 3 * abs(2.9 / 3 - 2 / 3)) / 4)
    assert calibration(np.zeros(0), np.zeros(0, bool)) == (0.0, ())


def test_answers_that_are_as_often_right_as_they_say_are_calibrated():
    rng = np.random.default_rng(0)
    probability = rng.random(200_000)
    assert calibration(probability, rng.random(200_000) < probability)[0] < 0.01


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_area_under_the_curve_counts_pairs(examples):
    positive, negative = ([score for score, has in examples if has == wanted] for wanted in (True, False))
    scores, has = np.array([s for s, _ in examples], np.float32), np.array([h for _, h in examples])
    if not positive or not negative:
        with pytest.raises(ValueError, match="an area under the ROC curve needs both"):
            auroc(scores, has)
        return
    pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    assert auroc(scores, has) == pytest.approx(np.mean(pairs), abs=1e-12)
