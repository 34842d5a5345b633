"""Searches over a toy language whose every sentence can be enumerated."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from singlestream.model.decoding import beam_search, greedy, nucleus, sample

VOCAB, END, LENGTH = 4, 3, 3


def language(seed: int) -> np.ndarray:
    """Logits of the next token by place and by the two tokens before, [LENGTH, VOCAB, VOCAB, VOCAB]."""
    return np.random.default_rng(seed).normal(size=(LENGTH, VOCAB, VOCAB, VOCAB)).astype(np.float32) * 2


def next_token(table, cache, last, place):
    """The cache is the token before the last one, and the number of the sequence's own language."""
    which, before = cache
    return table[which, place, before, last], (which, last)


def start(count: int):
    return (jnp.arange(count), jnp.zeros(count, jnp.int32)), jnp.zeros(count, jnp.int32)


def score(table: np.ndarray, sentence: tuple[int, ...]) -> float:
    """Sum of the log probabilities up to the first end, by hand."""
    before, last, total = 0, 0, 0.0
    for place, token in enumerate(sentence):
        logits = table[place, before, last].astype(np.float64)
        total += logits[token] - np.log(np.exp(logits).sum())
        before, last = last, token
        if token == END:
            break
    return total


def sentences(length: int) -> list[tuple[int, ...]]:
    """Every sentence: after an end there are ends alone."""
    every = itertools.product(range(VOCAB), repeat=length)
    return [s for s in every if all(b == END for a, b in itertools.pairwise(s) if a == END)]


@functools.partial(jax.jit, static_argnames=("num_beams", "length", "length_penalty"))
def beam(table, num_beams, length, length_penalty=0.0):
    step = functools.partial(next_token, table)
    settings = dict(length=length, end_id=END, num_beams=num_beams, length_penalty=length_penalty)
    return beam_search(step, *start(len(table)), **settings)


@jax.jit
def one_by_one(table):
    return greedy(functools.partial(next_token, table), *start(len(table)), length=LENGTH, end_id=END)


@pytest.mark.parametrize(("num_beams", "length"), [(VOCAB, 2), (VOCAB**2, 3)])
@given(seed=st.integers(0, 10_000))
def test_a_beam_that_holds_every_beginning_is_exhaustive_search(num_beams, length, seed):
    """Two sequences side by side, each with a language of its own."""
    tables = np.stack([language(seed), language(seed + 1)])
    found = beam(tables, num_beams, length)
    for i, table in enumerate(tables):
        best = max(sentences(length), key=lambda sentence: score(table, sentence))
        assert tuple(found.tokens[i].tolist()) == best
        assert float(found.scores[i]) == pytest.approx(score(table, best), abs=1e-5)


@given(seed=st.integers(0, 10_000))
def test_one_beam_is_greedy(seed):
    tables = np.stack([language(seed), language(seed + 1)])
    found = beam(tables, 1, LENGTH)
    other = one_by_one(tables)
    np.testing.assert_array_equal(found.tokens, other.tokens)
    np.testing.assert_allclose(found.scores, other.scores, atol=1e-5)
    for table, tokens, total in zip(tables, other.tokens, other.scores, strict=True):
        assert score(table, tuple(tokens.tolist())) == pytest.approx(float(total), abs=1e-5)


def test_a_length_penalty_chooses_among_what_survived():
    """Ending at once has probability 0.4, going on to the end 0.6 x 0.6: longer is worth more per token."""
    table = np.full((LENGTH, VOCAB, VOCAB, VOCAB), -1e9, np.float32)
    table[0, :, :, END], table[0, :, :, 1] = np.log(0.4), np.log(0.6)
    table[1, :, :, 1], table[1, :, :, 2] = np.log(0.6), np.log(0.4)
    table[2, :, :, END] = 0.0
    assert beam(table[None], 4, LENGTH, 0.0).tokens[0].tolist() == [END] * 3
    assert beam(table[None], 4, LENGTH, 2.0).tokens[0].tolist() == [1, 1, END]


def test_a_nucleus_is_the_fewest_that_hold_the_mass():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]]))
    for top_p, kept in ((0.4, [1, 0, 0, 0]), (0.5, [1, 0, 0, 0]), (0.6, [1, 1, 0, 0]), (1.0, [1, 1, 1, 1])):
        found = np.isfinite(nucleus(logits, top_p)).astype(int)
        np.testing.assert_array_equal(found, [kept, kept[::-1]])


def test_samples_follow_the_language():
    """The first token of many draws: frequencies within five standard errors; ends stay ends."""
    count = 4000
    table = np.repeat(language(7)[None], 1, axis=0)
    cache = (jnp.zeros(count, jnp.int32), jnp.zeros(count, jnp.int32))
    step = functools.partial(next_token, jnp.asarray(table))
    found = sample(step, cache, jnp.zeros(count, jnp.int32), length=LENGTH, end_id=END, key=jax.random.key(0))
    expected = np.asarray(jax.nn.softmax(table[0, 0, 0, 0]))
    seen = np.bincount(found.tokens[:, 0], minlength=VOCAB) / count
    assert (np.abs(seen - expected) < 5 * np.sqrt(expected * (1 - expected) / count)).all()
    ended = np.asarray(found.tokens) == END
    assert (ended[:, 1:] >= ended[:, :-1]).all()
    for tokens, total in zip(found.tokens[:5], found.scores, strict=False):
        assert score(table[0], tuple(tokens.tolist())) == pytest.approx(float(total), abs=1e-4)
