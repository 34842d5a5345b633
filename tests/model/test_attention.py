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
