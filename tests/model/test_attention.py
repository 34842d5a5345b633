import jax
import jax.numpy as jnp
import numpy as np
import pytest

from singlestream.model.attention.attend import attend
from singlestream.model.visibility import Visibility

ROWS, TEXTS, SLOT, PATCHES, HEADS, SIZE = 2, 3, 4, 5, 2, 6
LENGTH = TEXTS * SLOT + PATCHES


def _inputs(direction="full", slots=1):
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, ROWS, LENGTH, HEADS, SIZE)).astype(np.float32)
    part = np.concatenate([np.repeat(np.arange(1, TEXTS + 1), SLOT), np.zeros(PATCHES, int)])
    segments = np.ones((ROWS, LENGTH), np.int32)
    segments[0, SLOT - 1] = segments[0, -1] = segments[1, SLOT : 2 * SLOT] = 0
    visibility = Visibility(
        segments=segments,
        part=np.broadcast_to(part, segments.shape).astype(np.int32),
        modality=np.broadcast_to(np.arange(LENGTH) >= TEXTS * SLOT, segments.shape).astype(np.int32),
        direction=direction,
        num_text=TEXTS * SLOT,
        slots=slots,
    )
    return q, k, v, visibility


def _by_loops(q, k, v, visible):
    """Attention as the definition has it, one query at a time, in float64."""
    out, weights = np.zeros(q.shape), np.zeros((ROWS, HEADS, LENGTH, LENGTH))
    for b, i, h in np.ndindex(ROWS, LENGTH, HEADS):
        keys = np.flatnonzero(visible[b, i])
        if len(keys):
            scores = np.array([q[b, i, h].astype(float) @ k[b, j, h] for j in keys]) / np.sqrt(SIZE)
            p = np.exp(scores - scores.max())
            weights[b, h, i, keys] = p / p.sum()
            out[b, i, h] = (p / p.sum()) @ v[b, keys, h]
    return out, weights


@pytest.mark.parametrize("direction, slots", [("full", 1), ("prefix", 1), ("prefix", TEXTS)])
def test_equals_the_definition(direction, slots):
    q, k, v, visibility = _inputs(direction, slots)
    expected, _ = _by_loops(q, k, v, np.asarray(visibility.mask()))
    out, weights = attend(q, k, v, visibility)
    seen = np.asarray(visibility.segments) > 0
    np.testing.assert_allclose(np.asarray(out)[seen], expected[seen], atol=1e-6)
    assert weights is None and np.isfinite(out).all()


def test_returns_the_weights_that_it_applied():
    q, k, v, visibility = _inputs("prefix", TEXTS)
    expected_out, expected = _by_loops(q, k, v, np.asarray(visibility.mask()))
    out, weights = attend(q, k, v, visibility, weights=True)
    seen = np.asarray(visibility.segments) > 0
    rows = np.broadcast_to(seen[:, None, :], weights.shape[:3])
    np.testing.assert_allclose(np.asarray(weights)[rows], expected[rows], atol=1e-6)
    np.testing.assert_allclose(np.asarray(out)[seen], expected_out[seen], atol=1e-6)


def test_slotted_has_the_plain_gradients():
    q, k, v, visibility = _inputs("prefix", TEXTS)
    seen = jnp.asarray(visibility.segments > 0)[..., None, None]

    def loss(q, k, v, implementation):
        out, _ = attend(q, k, v, visibility, implementation=implementation)
        return jnp.where(seen, jnp.sin(out), 0).sum()

    for a, b in zip(
        jax.grad(loss, (0, 1, 2))(q, k, v, "auto"), jax.grad(loss, (0, 1, 2))(q, k, v, "plain"), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.parametrize("slots", [1, TEXTS])
def test_bfloat16_is_divided_before_it_is_rounded(slots):
    """A rounded sum of weights would move all of a query's output: an error of 1.7e-3 here, and of 1.5e-3 without."""
    q, k, v, visibility = _inputs("prefix", slots)
    rounded = [jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)]
    run = jax.jit(lambda *x: attend(*x, visibility)[0].astype(jnp.float32))
    error = np.asarray(run(*rounded) - run(*(x.astype(jnp.float32) for x in rounded)))
    assert np.sqrt(np.mean(error[np.asarray(visibility.segments) > 0] ** 2)) < 1.6e-3


def test_softmax_runs_in_float32_for_bfloat16_inputs():
    q, k, v, visibility = _inputs()
    out, weights = attend(*(jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)), visibility, weights=True)
    assert out.dtype == jnp.bfloat16 and weights.dtype == jnp.float32
    seen = np.asarray(visibility.segments) > 0
    np.testing.assert_allclose(np.asarray(weights.sum(-1)).swapaxes(1, 2)[seen], 1, atol=1e-6)


RATE = 0.3


def test_dropout_drops_each_weight_or_scales_it_up():
    q, k, v, visibility = _inputs("prefix")
    visible = np.asarray(visibility.mask())[:, None]
    _, expected = _by_loops(q, k, v, visible[:, 0])
    out, weights = attend(q, k, v, visibility, rate=RATE, key=jax.random.key(0), weights=True)
    seen = np.asarray(visibility.segments) > 0
    rows = np.broadcast_to(seen[:, None, :], weights.shape[:3])
    kept = np.asarray(weights) > 0
    np.testing.assert_allclose(np.asarray(weights)[rows], np.where(kept, expected / (1 - RATE), 0)[rows], atol=1e-6)
    applied = np.einsum("bhqk,bkhc->bqhc", weights, v)
    np.testing.assert_allclose(np.asarray(out)[seen], applied[seen], atol=1e-5)
    drawn = np.broadcast_to(visible, kept.shape)
    count = drawn.sum()
    assert abs(kept[drawn].mean() - (1 - RATE)) < 4 * np.sqrt(RATE * (1 - RATE) / count)


@pytest.mark.parametrize("slots", [1, TEXTS])
def test_dropout_of_weights_is_right_in_the_mean(slots):
    """Over keys the mean is the plain result, and the scatter what independent draws give.

    An output is sum_j w_j m_j v_j with m_j 0 or 1 / (1 - r): its variance is s^2 = r / (1 - r) sum_j (w_j v_j)^2. A
    term is at most |w_j v_j| < 1.6 s from its mean, so by Bernstein's inequality one of the 408 means of 1,000 draws is
    more than 6 of its standard deviations off in less than one of 10^4 seeds. A sample's variance has a relative
    standard deviation of at most sqrt(2 / 1000), and 50 queries and heads draw apart: their sum is within 5%.
    """
    q, k, v, visibility = _inputs("prefix", slots)
    expected, weights = _by_loops(q, k, v, np.asarray(visibility.mask()))
    draws = jax.random.split(jax.random.key(0), 1000)
    found = np.asarray(jax.jit(jax.vmap(lambda key: attend(q, k, v, visibility, rate=RATE, key=key)[0]))(draws))
    variance = RATE / (1 - RATE) * np.einsum("bhqk,bkhc->bqhc", weights**2, v.astype(float) ** 2)
    seen = np.asarray(visibility.segments) > 0
    z = (found.mean(0) - expected)[seen] / np.sqrt(variance[seen] / len(draws))
    assert np.abs(z).max() < 6
    np.testing.assert_allclose(((found - expected) ** 2).mean(0)[seen].sum(), variance[seen].sum(), rtol=0.05)


@pytest.mark.parametrize("slots", [1, TEXTS])
def test_dropout_is_off_without_a_key_or_a_rate(slots):
    q, k, v, visibility = _inputs("prefix", slots)
    plain = attend(q, k, v, visibility)[0]
    np.testing.assert_array_equal(attend(q, k, v, visibility, rate=RATE)[0], plain)
    np.testing.assert_array_equal(attend(q, k, v, visibility, key=jax.random.key(0))[0], plain)
