"""Image-text contrast and the hard negatives of matching, against loops written from the papers."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from singlestream.batch import Regions, Text, make_batch
from singlestream.config import ConfigError
from singlestream.model.heads import HeadConfig
from singlestream.objectives import itc
from singlestream.objectives.itm import MISMATCH, mismatch, picture_logits
from singlestream.objectives.total import SharedEncode
from tests.model.toy import SPEC, random_batch

from .toy import MODEL, FakeModel, build, log_softmax, run, unit

TAU, WIDTH = 0.2, 5
PICTURES = np.array([[1, 1], [2, 3], [1, 0], [4, 9]], np.int32)  # row 0 shares one; row 2 shows that of row 0


def _batch():
    """Two texts on one picture; two packed examples; one; one, and one that has no picture."""
    segments = np.array([[1, 1, 1, 1], [1, 1, 2, 2], [1, 1, 0, 0], [1, 1, 2, 2]], np.int32)
    part = np.array([[1, 1, 2, 2], *[[0] * 4] * 3], np.int32)
    image = np.array([[1, 1, 1], [1, 2, 2], [1, 1, 0], [1, 1, 1]], np.int32)
    return make_batch(
        text=Text(ids=np.full((4, 4), 7, np.int32), segments=segments, part=part),
        image=Regions(features=np.zeros((4, 3, 2), np.float32), segments=image),
        picture=PICTURES,
    )


def _model(seed=0):
    rng = np.random.default_rng(seed)
    text, image = (rng.normal(size=(4, size, WIDTH)).astype(np.float32) for size in (4, 3))
    return FakeModel(itc_text=text, itc_image=image, itc_scale=np.full((4, 2, 1), -np.log(TAU), np.float32))


def _vectors(model):
    """Of each example that counts: its text, its picture's mean, the picture, and the (row, segment) it lies in."""
    text, image = (np.asarray(model.heads[name](None), np.float64) for name in ("itc_text", "itc_image"))
    found = [
        (text[0, 0], image[0].mean(0), 1, (0, 1)),
        (text[0, 2], image[0].mean(0), 1, (0, 1)),
        (text[1, 0], image[1, 0], 2, (1, 1)),
        (text[1, 2], image[1, 1:].mean(0), 3, (1, 2)),
        (text[2, 0], image[2, :2].mean(0), 1, (2, 1)),
        (text[3, 0], image[3].mean(0), 4, (3, 1)),
    ]
    return [(unit(t), unit(v), picture, place) for t, v, picture, place in found]


def _reference(own, candidates):
    """Sum over examples of both cross-entropies (ALBEF, equation 2), each against the right one and true negatives."""
    total = 0.0
    for i, (text, image, picture, _) in enumerate(own):
        others = [c for c in candidates if c[2] != picture]
        images = {place: v for _, v, _, place in others}.values()  # a picture is one candidate, whatever its texts
        for query, right, wrong in (
            (text, candidates[i][1], images),
            (image, candidates[i][0], [t for t, *_ in others]),
        ):
            logits = np.array([query @ each for each in (right, *wrong)]) / TAU
            total -= log_softmax(logits)[0] / 2
    return total


def test_both_directions_against_all_examples_of_the_batch():
    model, batch = _model(), _batch()
    metrics, _ = run(build({"itc": 1.0}), batch, model)
    own = _vectors(model)
    np.testing.assert_allclose(metrics["itc/loss"], (_reference(own, own), 6), rtol=1e-6)
    np.testing.assert_allclose(metrics["itc/temperature"], (TAU, 1), rtol=1e-6)
    assert len(model.calls) == 1  # texts and pictures are read side by side
    read = model.calls[0][0]
    for row, (text, image) in enumerate(zip(read.text.segments, np.asarray(read.image.segments), strict=True)):
        assert not set(text) & set(image) - {0}, f"row {row}: they see each other"


def test_the_mask_of_examples_is_kept():
    model, batch = _model(), _batch()
    mask = batch.example_mask.copy()
    mask[0, 0] = mask[1, 1] = False
    metrics, _ = run(build({"itc": 1.0}), batch.replace(example_mask=mask), model)
    own = [example for i, example in enumerate(_vectors(model)) if i not in (0, 3)]
    np.testing.assert_allclose(metrics["itc/loss"], (_reference(own, own), 4), rtol=1e-6)


def test_a_queue_holds_what_the_teacher_said_of_the_last_examples():
    """ALBEF, equation 1: own vectors against the teacher's of this batch and of earlier ones, the oldest replaced."""
    objectives = build({"itc": 1.0}, itc={"queue": 8, "size": WIDTH}, ema_decay=0.9)
    batch, state, seen = _batch(), None, []
    for step in range(3):
        model, teacher = _model(step), _model(10 + step)
        metrics, state = run(objectives, batch, model, state=state, teacher=teacher)
        said = [(*vectors, (step, *place)) for *vectors, place in _vectors(teacher)]
        candidates = [*said, *seen[-8:]]
        np.testing.assert_allclose(metrics["itc/loss"], (_reference(_vectors(model), candidates), 6), rtol=1e-6)
        seen += said
    kept = {name: np.asarray(value) for name, value in state["itc"].items()}
    np.testing.assert_allclose(np.roll(kept["text"], -kept["next"], 0), [t for t, *_ in seen[-8:]], rtol=1e-5)
    assert np.roll(kept["picture"], -kept["next"]).tolist() == [p for *_, p, _ in seen[-8:]]


def test_a_queue_smaller_than_a_batch_keeps_the_last_ones():
    objectives = build({"itc": 1.0}, itc={"queue": 4, "size": WIDTH}, ema_decay=0.9)
    model = _model()
    _, state = run(objectives, _batch(), model, teacher=model)
    np.testing.assert_allclose(
        np.roll(state["itc"]["image"], -int(state["itc"]["next"]), 0),
        [v for _, v, *_ in _vectors(model)[-4:]],
        rtol=1e-5,
    )


def test_the_temperature_has_a_floor_from_which_it_can_come_back():
    """As in CLIP, section 2.5, scores are never multiplied by more than 100."""

    def scale(log):
        model = FakeModel(itc_scale=jnp.full((4, 2, 1), log))
        return itc.similarity_scale(SharedEncode(model, None), _batch())

    for log, expected in ((2.0, np.exp(2.0)), (6.0, 100.0)):
        value, slope = jax.value_and_grad(scale)(log)
        np.testing.assert_allclose((value, slope), (expected, expected), rtol=1e-5)
    head = build({"itc": 1.0})["itc"].heads(MODEL, SPEC)["itc_scale"]
    assert np.isclose(np.exp(head.start), 1 / 0.07)
    with pytest.raises(ValueError, match="start=1.0 goes with kind='constant', not with 'linear'"):
        HeadConfig(size=1, start=1.0)


def test_hard_negatives_are_drawn_by_their_similarity():
    """ALBEF, section 3.2: the probability of a picture is the softmax over all those of another identity."""
    rng = np.random.default_rng(3)
    batch = random_batch(0, rows=4, text=2, picture=np.array([[1], [1], [2], [3]], np.int32))
    text, image = (rng.normal(size=(4, size, WIDTH)).astype(np.float32) for size in (2, 6))
    model = FakeModel(itc_text=text, itc_image=image, itc_scale=np.zeros((4, 1, 1), np.float32))
    logits = unit(text[:, 0]) @ unit(image.sum(1)).T
    found = np.asarray(picture_logits(SharedEncode(model, None), batch))
    arrays = jax.tree.map(jnp.asarray, batch)
    np.testing.assert_allclose(found[:, 0], logits, rtol=1e-5)

    @jax.jit
    def source(key):
        mixed, match = mismatch(arrays, key, jnp.asarray(found))
        return mixed.image.pixels[:, 0, 0], match[:, 0]

    draws = 3000
    pixels, match = jax.vmap(source)(jax.random.split(jax.random.key(1), draws))
    for row, others in ((0, (2, 3)), (1, (2, 3)), (2, (0, 1, 3)), (3, (0, 1, 2))):
        wrong = np.asarray(match[:, row]) == MISMATCH
        expected = np.exp(log_softmax(logits[row, list(others)]))
        taken = np.asarray(pixels[:, row])[wrong]
        assert np.isin(taken, batch.image.pixels[list(others), 0, 0]).all()
        shares = [(taken == batch.image.pixels[other, 0, 0]).mean() for other in others]
        assert abs(np.array(shares) - expected).max() < 4 * np.sqrt(0.25 / wrong.sum())


def test_packed_rows_and_rows_without_another_picture_are_as_without_hard_negatives():
    batch, key = _batch(), jax.random.key(3)
    plain, match = mismatch(batch, key)
    hard, hard_match = mismatch(batch, key, jnp.zeros((4, 2, 4)))
    np.testing.assert_array_equal(match[1], hard_match[1])
    np.testing.assert_array_equal(plain.image.segments[1], hard.image.segments[1])
    same = dataclasses.replace(batch, picture=np.ones_like(batch.picture))
    assert (np.asarray(mismatch(same, key, jnp.zeros((4, 2, 4)))[1]) == 1).all()


def test_mistakes_in_the_settings_are_named():
    for objectives, options, message in (
        ({"itm": 1.0}, {"itm": {"hard": True}}, "config.objectives.itm needs config.objectives.itc above 0, too"),
        (
            {"itc": 1.0},
            {"itc": {"queue": 8}},
            r"config.objectives.itc needs a moving average .* config.train.ema_decay",
        ),
        ({"itc": 1.0}, {"itc": {"temperature": 0.0}}, "config.objective_options.itc.temperature=0.0: must be at least"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(objectives, **options)
    with pytest.raises(ConfigError, match="config.objectives.itc: .* config.model.direction='causal'"):
        build({"itc": 1.0}, model=dataclasses.replace(MODEL, direction="causal"))
