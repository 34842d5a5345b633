"""Next fit: nothing lost, nothing twice, no row beyond its budget, and a state to go on from."""

from __future__ import annotations

import dataclasses
import json

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from singlestream.batch import check_batch
from singlestream.config import ConfigError
from singlestream.data.pipeline import train_iterator
from singlestream.data.record import DataError


@pytest.fixture
def uneven(source):
    """The toys, but every record with a picture of another size: 1 to 24 patches of 8 pixels."""
    sized = type("Uneven", (type(source),), {"__getitem__": _uneven_record})
    source.__class__ = sized
    return source


def _uneven_record(self, i):
    whole = super(type(self), self).__getitem__(i)
    rows, cols = 1 + i % 4, 1 + i % 6
    return dataclasses.replace(whole, images=(whole.images[0][: 8 * rows, : 8 * cols],))


def _stream(source, make_processor, **settings):
    processor = make_processor(examples_per_row=4, row_patches=40, **settings)
    return train_iterator(source, processor, batch_size=2, seed=0)


def test_rows_hold_the_stream_in_order_within_budget(uneven, make_processor):
    plain = train_iterator(uneven, make_processor(), batch_size=1, seed=0)
    expected = [int(next(plain).picture[0, 0]) for _ in range(60)]
    stream = _stream(uneven, make_processor)
    rows = []
    for batch in (next(stream) for _ in range(6)):
        check_batch(batch)
        assert batch.image.pixels.shape[1] == 40
        for row in range(2):
            segments = batch.image.segments[row]
            count = int(batch.example_mask[row].sum())
            assert set(segments[segments > 0]) == set(range(1, count + 1))
            rows.append((batch.picture[row, :count].tolist(), int((segments > 0).sum())))
    packed = [picture for pictures, _ in rows for picture in pictures]
    assert packed == expected[: len(packed)]
    assert len({len(pictures) for pictures, _ in rows}) > 1 and len(packed) > 24
    for (pictures, used), (following, _) in zip(rows, rows[1:], strict=False):
        i = following[0] - 1
        assert len(pictures) == 4 or used + (1 + i % 4) * (1 + i % 6) > 40


@hypothesis.given(st.integers(0, 7), st.integers(1, 4))
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_a_restored_packing_goes_on_where_it_was(uneven, make_processor, before, after):
    stream = _stream(uneven, make_processor)
    for _ in range(before):
        next(stream)
    state = json.loads(json.dumps(stream.get_state()))
    expected = [next(stream) for _ in range(after)]
    other = _stream(uneven, make_processor)
    other.set_state(state)
    jax.tree.map(np.testing.assert_array_equal, [next(other) for _ in range(after)], expected)


def test_a_picture_larger_than_a_row_is_an_error(source, make_processor):
    processor = make_processor(examples_per_row=2, row_patches=20)
    with pytest.raises(DataError, match=r"record toy-\d+: its pictures do not fit the row's 20 image tokens"):
        next(train_iterator(source, processor, batch_size=1, seed=0))


def test_a_budget_needs_packing(make_processor):
    with pytest.raises(ConfigError, match=r"config\.data\.row_patches=20"):
        make_processor(row_patches=20)
