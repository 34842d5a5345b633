import jax
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import without_image
from tests.model.toy import CONFIG, random_batch, replace, run, toy_model

LATE = replace(CONFIG, late_layers=1)  # after two on the text alone
TEXT = 5  # words of a `random_batch`


@pytest.fixture(scope="module")
def batch():
    return random_batch(0)


def test_the_first_layers_read_the_text_alone(batch):
    found, alone = run(batch, LATE)[0], run(without_image(batch), LATE)[0]
    embedded = np.asarray(jax.jit(toy_model(LATE).embed)(batch).x)
    for states, without in zip(found.hidden[:2], alone.hidden[:2], strict=True):
        np.testing.assert_array_equal(states[:, :TEXT], without[:, :TEXT])
        np.testing.assert_allclose(states[:, TEXT:], embedded[:, TEXT:], atol=1e-6)
    assert len(found.hidden) == LATE.depth == 3
    assert np.abs(np.asarray(found.text) - np.asarray(alone.text)).max() > 1e-2
    assert np.abs(np.asarray(found.hidden[2])[:, TEXT:] - embedded[:, TEXT:]).max() > 1e-2


def test_attention_is_that_of_all_layers(batch):
    weights = np.asarray(toy_model(LATE)(batch, attention=True).attention["self"])
    assert weights.shape[0] == 3
    np.testing.assert_allclose(weights[:2, ..., :TEXT, :TEXT].sum(-1), 1, atol=1e-6)
    assert not weights[:2, ..., TEXT:].any() and not weights[:2, ..., TEXT:, :].any()
    np.testing.assert_allclose(weights[2].sum(-1), 1, atol=1e-6)
    assert (weights[2] > 0).all()


def test_scanned_layers_agree(batch):
    params = nnx.state(toy_model(LATE))
    scanned = nnx.merge(nnx.graphdef(toy_model(replace(LATE, layers="scan"))), params)
    found, expected = scanned(batch), run(batch, LATE)[0]
    np.testing.assert_allclose(found.pooled, expected.pooled, atol=1e-5)
    for states, others in zip(found.hidden, expected.hidden, strict=True):
        np.testing.assert_allclose(states, others, atol=1e-5)
