"""What attention looks like, and how maps are scored: against loops, and on maps whose answer one can read off."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from singlestream.batch import Patches, Text, make_batch
from singlestream.explain.agreement import rank_correlation, scrambled
from singlestream.explain.localisation import locate, locate_answer, locate_words
from singlestream.explain.measures import coverage, crossing, entropy, fertility, head_similarity, mutual
from singlestream.explain.modes import modes
from singlestream.explain.question import Relevance
from singlestream.explain.scores import bootstrap_interval

RNG = np.random.default_rng(0)
WORDS = np.array([[True] * 3, [True, True, False]])


def _weights(*shape):
    return RNG.dirichlet(np.ones(shape[-1]), shape[:-1]).astype(np.float32)


def _batch(boxes=None):
    """Two rows of three words and four patches, the second of two words and three patches."""
    yx = np.array([[[0, 0], [0, 1], [1, 0], [1, 1]]] * 2, np.int32)
    segments = np.array([[1] * 4, [1, 1, 1, 0]], np.int32)
    pixels = np.zeros((2, 4, 3), np.uint8)
    return make_batch(
        text=Text(ids=np.full((2, 3), 7, np.int32), segments=WORDS.astype(np.int32)),
        image=Patches(pixels=pixels, yx=yx, grid=np.full_like(yx, 2), segments=segments),
        targets={} if boxes is None else {"word_boxes": boxes},
    )


def test_entropy_counts_what_is_read():
    weights = np.array([[0.5, 0.5, 0], [0, 1, 0], [0.2, 0.2, 0.2], [0, 0, 0]], np.float32)
    np.testing.assert_allclose(np.exp(entropy(weights)), [2, 1, 3, 1], rtol=1e-6)


def test_coverage_and_fertility_by_a_loop():
    weights = _weights(2, 3, 4)
    covered, total = jax.jit(lambda w: (coverage(w, WORDS), fertility(w, WORDS)))(weights)
    for row in range(2):
        received = np.zeros(4)
        for word in range(3):
            received += weights[row, word] * WORDS[row, word]
            np.testing.assert_allclose(covered[row, word], received, rtol=1e-6)
        np.testing.assert_allclose(total[row], received, rtol=1e-6)


def test_what_crosses_between_the_modalities():
    attention, batch = {"self": _weights(2, 2, 3, 7, 7)}, _batch()
    attention["self"][1, 0, :, 5] = 0  # pruned: it reads nothing, and does not count
    share = jax.jit(lambda a: crossing(a, batch=batch))(attention)
    both = mutual(attention, batch=batch)
    for layer in range(2):
        patches = batch.image.segments > 0
        patches[0, 2] &= layer == 0
        for head in range(3):
            of = attention["self"][layer, :, head]
            np.testing.assert_allclose(
                share["text_to_image"][layer, head], of[:, :3, 3:].sum(-1)[WORDS].mean(), rtol=1e-5
            )
            np.testing.assert_allclose(
                share["image_to_text"][layer, head], of[:, 3:, :3].sum(-1)[patches].mean(), rtol=1e-5
            )
            np.testing.assert_allclose(both[layer, 0, head, 1, 2], np.sqrt(of[0, 1, 5] * of[0, 5, 1]), rtol=1e-5)


def test_heads_that_attend_alike():
    """By a loop over pairs; a head equals itself, and one that reads other keys shares nothing with it."""
    weights = _weights(2, 2, 2, 3, 4)
    weights[0, :, 0], weights[0, :, 1] = [1, 0, 0, 0], [0, 0, 0.5, 0.5]
    weights[1, 0, :, 1] = 0  # a token that was pruned is compared with nothing
    found = jax.jit(head_similarity)(weights, WORDS)
    heads = [(layer, head) for layer in range(2) for head in range(2)]

    def bits(p):
        return -sum(x * np.log2(x) for x in p if x > 0)

    for i, (k, h) in enumerate(heads):
        for j, (m, g) in enumerate(heads):
            apart = []
            for row, word in np.argwhere(WORDS):
                if 1 in (k, m) and (row, word) == (0, 1):
                    continue
                p, q = weights[k, row, h, word].astype(float), weights[m, row, g, word].astype(float)
                apart.append(bits((p + q) / 2) - (bits(p) + bits(q)) / 2)
            np.testing.assert_allclose(found[i, j], 1 - np.mean(apart), atol=1e-5)
    np.testing.assert_allclose(found[0, :2], [1, 0], atol=1e-6)


def test_planted_modes_are_found():
    """Two pairs of words and patches, of other strengths, and padding that is not to be a mode."""
    words, patches = np.eye(4)[[0, 2]], np.array([[0, 0.6, 0.8, 0], [1, 0, 0, 0]])
    maps = 0.2 * np.outer(words[0], patches[0]) + 0.5 * np.outer(words[1], patches[1])
    maps[3, 3] = 9.0
    own = np.ones((4, 4), bool)
    own[3] = False
    found = jax.jit(functools.partial(modes, number=2))(maps.astype(np.float32), own)
    np.testing.assert_allclose(found.strength, [0.5, 0.2], atol=1e-6)
    np.testing.assert_allclose(found.words, words[::-1], atol=1e-6)
    np.testing.assert_allclose(found.patches, patches[::-1], atol=1e-6)


def test_locating_by_hand():
    true = np.array([[True, False, False, False], [True, True, False, False], [False] * 4, [True, True, False, False]])
    maps = np.array([[0.4, 0.3, 0.1, 9], [-1, 0.2, 0.3, 9], [1, 1, 1, 9], [-1, -2, -3, 9]], np.float32)
    found = locate(maps, true, np.array([[True, True, True, False]] * 4))
    np.testing.assert_array_equal(found.pointing, [1, 0, 0, 0])  # what is negative points nowhere
    np.testing.assert_allclose(found.inside, [0.5, 0.4, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(found.overlap, [1 / 2, 1 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(found.chance, [1 / 3, 2 / 3, 0, 2 / 3], rtol=1e-6)
    np.testing.assert_array_equal(found.counted, [True, True, False, True])


def test_locating_by_a_loop():
    """In float64, of maps without ties, a few without a number above 0."""
    rng = np.random.default_rng(1)
    own = rng.random((30, 8)) < 0.8
    own[:, 0] = True
    true, maps = own & (rng.random((30, 8)) < 0.4), rng.normal(size=(30, 8))
    maps[:3] = -np.abs(maps[:3])
    with jax.enable_x64(True):
        found = jax.device_get(jax.jit(locate)(maps, true, own))
    for row, (each, hit, mine) in enumerate(zip(maps, true, own, strict=True)):
        raised = {i: each[i] for i in np.flatnonzero(mine) if each[i] > 0}
        truth, total = set(np.flatnonzero(hit)), sum(raised.values())
        strong = {i for i, value in raised.items() if value >= max(raised.values()) / 2}
        assert found.pointing[row] == (max(raised, key=raised.get) in truth if raised else 0)
        inside = sum(value for i, value in raised.items() if i in truth) / (total or 1)
        np.testing.assert_allclose(found.inside[row], inside, rtol=1e-12)
        np.testing.assert_allclose(found.overlap[row], len(strong & truth) / max(len(strong | truth), 1), rtol=1e-12)


def test_words_and_answers_are_located():
    """A word by its own boxes, an answer by those of every word; what names nothing is no score."""
    boxes = np.zeros((2, 3, 5, 4), np.float32)
    boxes[0, 1, 0], boxes[0, 2, 0] = (0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)
    image = np.array([[0, 0, 0, 1], [1, 0, 0, 0]], np.float32)
    words = np.zeros((2, 3, 4), np.float32)
    words[0, 1, 0], words[0, 2, 1] = 1, 1
    relevance, batch = Relevance(np.zeros((2, 3), np.float32), image, words), _batch(boxes)
    of_words = locate_words(relevance, batch, ())
    np.testing.assert_array_equal(of_words.counted, [[False, True, True], [False] * 3])
    np.testing.assert_array_equal(of_words.pointing[0, 1:], [1, 0])
    of_answer = locate_answer(relevance, batch, ())
    np.testing.assert_array_equal(of_answer.counted, [True, False])
    assert of_answer.pointing[0] == 1 and of_answer.chance[0] == 0.5
    with pytest.raises(ValueError, match="explains the answer alone"):
        locate_words(relevance._replace(words=None), batch, ())


def test_rank_correlation_is_spearmans():
    """With ties and tokens that do not count; a constant map agrees with nothing."""
    a = np.array([[3, 1, 2, 9, 2], [1, 1, 1, 1, 1]], np.float32)
    b = np.array([[0.3, 0.1, 0.1, -5, 0.2], [1, 2, 3, 4, 5]], np.float32)
    own = np.array([[True, True, True, False, True], [True] * 5])
    x, y = np.array([4, 1, 2.5, 2.5]), np.array([4, 1.5, 1.5, 3])
    np.testing.assert_allclose(rank_correlation(a, b, own), [np.corrcoef(x, y)[0, 1], 0], atol=1e-6)


def test_scrambling_keeps_the_numbers_of_each_array():
    params = {"a": np.arange(20.0, dtype=np.float32).reshape(4, 5), "b": np.arange(3, dtype=np.float32)}
    mixed = scrambled(params, jax.random.key(0))
    assert mixed["a"].shape == (4, 5) and not np.array_equal(mixed["a"], params["a"])
    np.testing.assert_array_equal(np.sort(np.ravel(mixed["a"])), np.arange(20))


def test_bootstrap_interval():
    """Near the normal theory's for many values; the same each time; wide open where nothing is known."""
    values = RNG.normal(2.0, 1.0, 1000)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(1000)
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.01)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval(values[:1]) == (-np.inf, np.inf)
