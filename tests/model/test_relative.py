"""What the distance of two tokens does to their score: each way against its definition, pair by pair."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import IMAGE, TEXT
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.module import Attention
from singlestream.model.attention.relative.bias import BUCKETS, bucket
from singlestream.model.visibility import Visibility
from tests.model.test_two_stream import PAIRED
from tests.model.toy import CONFIG, replace

HEADS, SIZE = 2, 8
# One segment: a word and a text of part 1, a text of part 2; two pictures and a token that is no patch.
PART = [0, 1, 1, 1, 2, 2, 0, 0, 0, 0, 0]
PLACE = [0, 0, 1, 30, 0, 1, 0, 0, 0, 0, 0]
WHERE = [(-1, -1, -1)] * 6 + [(0, 0, 0), (0, 2, 1), (1, 0, 0), (1, 0, 12), (-1, -1, -1)]
LENGTH, NUM_TEXT = len(PART), 6
OTHERS = 32 + 32 * 32  # where the table's part for pairs without a distance begins


def stream(place=0, row=0, column=0) -> Visibility:
    """One row; every word `place` further on in its text, and every patch `row` down and `column` to the right."""
    modality = np.where(np.arange(LENGTH) < NUM_TEXT, TEXT, IMAGE).astype(np.int32)
    return Visibility(
        segments=np.ones((1, LENGTH), np.int32),
        part=np.array([PART], np.int32),
        modality=modality[None],
        place=np.array([PLACE], np.int32) + place,
        where=np.array([WHERE], np.int32) + np.array([0, row, column], np.int32),
        num_text=NUM_TEXT,
    )


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def drawn(relative: str):
    """Attention with that, its table drawn, and queries and keys [B, H, L, C]."""
    config = AttentionConfig(relative=relative)
    graph, state = nnx.split(Attention(config, HEADS, SIZE, rate=0.0, dtype=jnp.dtype("float64"), rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape), nnx.to_pure_dict(state))
    q, k = rng.normal(size=(2, 1, HEADS, LENGTH, SIZE))
    scores = jax.jit(lambda q, k, sees: nnx.merge(graph, params).scores(q, k, sees))
    return scores, params, q, k


def t5_bucket(distance: int) -> int:
    """As Raffel et al.'s code has it, for both directions, 32 buckets and 128 tokens."""
    number, distance = 16 * (distance > 0), abs(distance)
    if distance < 8:
        return number + distance
    return number + min(8 + int(np.floor(np.log(distance / 8) / np.log(16) * 8 + 1e-9)), 15)


def kind_of(i: int, j: int) -> str:
    if PART[i] == PART[j] and i < NUM_TEXT and j < NUM_TEXT:
        return "text"
    both = i >= NUM_TEXT and j >= NUM_TEXT
    return "picture" if both and WHERE[i][0] == WHERE[j][0] >= 0 else "other"


def biased(i, j, q, k, table):
    """q.k / sqrt(C), and what the table holds for the pair."""
    down, right = (WHERE[j][axis] - WHERE[i][axis] for axis in (1, 2))
    number = {
        "text": t5_bucket(PLACE[j] - PLACE[i]),
        "picture": 32 + 32 * t5_bucket(down) + t5_bucket(right),
        "other": OTHERS + 3 * (i >= NUM_TEXT) + (j >= NUM_TEXT),
    }[kind_of(i, j)]
    return q @ k / np.sqrt(SIZE) + table[number]


def turned(x, i, kind):
    """Pairs of channels as complex numbers, each times e^(i angle)."""
    pairs = x[: SIZE // 2] + 1j * x[SIZE // 2 :]
    if kind == "other":
        return pairs
    if kind == "text":
        return pairs * np.exp(1j * PLACE[i] / 10_000 ** (np.arange(4) / 4))
    slow = 1 / 100 ** (np.arange(2) / 2)
    return pairs * np.exp(1j * np.concatenate([WHERE[i][1] * slow, WHERE[i][2] * slow]))


def rotated(i, j, q, k, table):
    kind = kind_of(i, j)
    return (turned(q, i, kind) @ turned(k, j, kind).conj()).real / np.sqrt(SIZE)


@pytest.mark.parametrize("relative, definition", [("bias", biased), ("rope", rotated)])
def test_it_is_the_definition_and_knows_distances_alone(relative, definition):
    """Pair by pair; the same for a stretch of the tokens; the same where all words and patches are moved alike."""
    scores, params, q, k = drawn(relative)
    table = params["relative"]["table"] if relative == "bias" else [None] * HEADS
    found = np.asarray(scores(q, k, stream()))
    for h, i, j in np.ndindex(HEADS, LENGTH, LENGTH):
        np.testing.assert_allclose(found[0, h, i, j], definition(i, j, q[0, h, i], k[0, h, j], table[h]), atol=1e-6)
    chosen = np.array([[7, 2, 9]], np.int32)
    some = scores(q[:, :, chosen[0]], k, stream().at(chosen).towards(stream()))
    np.testing.assert_allclose(some, found[:, :, chosen[0]], atol=1e-6)
    np.testing.assert_allclose(scores(q, k, stream(place=5, row=3, column=2)), found, atol=1e-6)


def test_regions_have_no_rows():
    """Words keep their distance; a region's score is that of its content, or of its modality."""
    regions = dataclasses.replace(stream(), where=None)
    words = (slice(None), slice(None), slice(NUM_TEXT), slice(NUM_TEXT))
    for relative in ("bias", "rope"):
        scores, params, q, k = drawn(relative)
        found, plain = np.asarray(scores(q, k, regions)), np.einsum("bhqc,bhkc->bhqk", q, k) / np.sqrt(SIZE)
        np.testing.assert_allclose(found[words], np.asarray(scores(q, k, stream()))[words], atol=1e-6)
        beside = (found - plain)[:, :, NUM_TEXT:, NUM_TEXT:]
        expected = params["relative"]["table"][:, OTHERS + 4, None, None] if relative == "bias" else 0 * beside
        np.testing.assert_allclose(beside, np.broadcast_to(expected, beside.shape), atol=1e-6)


def test_buckets_are_t5s():
    distances = np.arange(-300, 301)
    np.testing.assert_array_equal(bucket(distances.astype(np.int32)), [t5_bucket(d) for d in distances])
    assert len(set(map(t5_bucket, distances))) == BUCKETS - 1  # 0 has one sign


def test_two_streams_tell_the_places_of_words_alone():
    config = dataclasses.replace(PAIRED, attention=AttentionConfig(relative="bias"))
    assert config.text_side.attention.relative == "bias" and config.image_side.attention.relative == "none"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AttentionConfig(relative="near"), r"relative='near': choose one of bias, rope, none"),
        (
            lambda: AttentionConfig(relative="rope", score="additive"),
            r"relative='rope' does not go with config.model.attention.score='additive': .* cosine, dot, scaled_dot",
        ),
        (
            lambda: replace(CONFIG, num_heads=4, attention=AttentionConfig(relative="rope")),
            r"relative='rope' does not go with config.model.width=24 and config.model.num_heads=4: heads of 6 channels",
        ),
        (lambda: replace(CONFIG, text_period=0), r"config.model.text_period=0: must be at least 1"),
    ],
    ids=["name", "score", "channels", "period"],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
