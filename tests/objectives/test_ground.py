"""Grounding against loops over expressions, and on models."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import Patches, Regions, Text, make_batch
from singlestream.config import ConfigError, ModelConfig, TwoStreamConfig
from singlestream.objectives.total import total_loss
from tests.model.test_boxes import random_boxes, reference
from tests.model.toy import CONFIG, SPEC, pack, random_batch

from .toy import KEY, FakeModel, build, check_slope, drawn, log_softmax, run

REGIONS = ModelConfig(image_stem="regions", image_positions="boxes", region_dim=6)
A, B, C = random_boxes(5, 3)
# Row, its segment and part, the last token, the box, and the image tokens to choose from, of the phrases of `_batch`.
PHRASES = ((0, 2, A, [0, 1]), (0, 5, B, [2, 3, 4]), (1, 1, C, [0, 1, 2]), (1, 3, A, [0, 1, 2]), (1, 5, B, [0, 1, 2]))
TEXTS = ((0, 0, A, [0, 1]), (0, 1, B, [2, 3, 4]), (1, 1, B, [0, 1, 2]))  # the example in place of the token


def _boxes():
    """Of two packed texts, of two that share a picture (the first names two things), of one that does not count."""
    boxes = np.zeros((3, 6, 5, 4), np.float32)
    boxes[0, 1:3, 0], boxes[0, 5, 2] = A, B
    boxes[1, 1, 0], boxes[1, 2:4, 0], boxes[1, 4, :2], boxes[1, 5, 0] = C, A, (A, B), B
    boxes[2, 1, 0] = A
    return boxes


def _batch(image, *, texts):
    segments = np.array([[1, 1, 1, 2, 2, 2], [1] * 6, [1] * 6], np.int32)
    part = np.array([[0] * 6, [1, 1, 1, 1, 2, 2], [0] * 6], np.int32)
    boxes = _boxes()
    if texts:
        boxes[1, 4] = 0
    batch = make_batch(
        text=Text(ids=np.full((3, 6), 7, np.int32), segments=segments, part=part),
        image=dataclasses.replace(
            image,
            segments=np.array([[1, 1, 2, 2, 2], [1, 1, 1, 0, 1], [1] * 5], np.int32),
            index=np.array([[0] * 5, [0, 0, 0, 0, 1], [0] * 5], np.int32),
        ),
        targets={"word_boxes": boxes},
    )
    return batch.replace(example_mask=np.array([[True, True], [True, True], [False, False]]))


def _scores(of):
    """What the head says, and how it is read: at a row, and a token or an example."""
    rng = np.random.default_rng(0)
    favourite = np.array([9, 0, 0, 0, 0])  # a token that is no choice for some
    if of == "phrases":
        scores = (rng.normal(size=(3, 6, 5)) + favourite).astype(np.float32)
        return {"phrase": scores}, lambda row, k: scores[row, k], PHRASES
    scores = (rng.normal(size=(3, 5)) + favourite).astype(np.float32)[..., None]
    return {"grounding": scores}, lambda row, k: scores[row, :, 0], TEXTS


@pytest.mark.parametrize("of", ["phrases", "texts"])
def test_choice_among_regions(of):
    near = np.array([[A, C, A, C, A], [C, A, B, A, B], [A] * 5])
    near += np.random.default_rng(1).normal(size=near.shape) / 100
    logits, at, asked = _scores(of)
    batch = _batch(
        Regions(features=np.zeros((3, 5, 6), np.float32), boxes=near.astype(np.float32)), texts=of == "texts"
    )
    metrics, _ = run(build({"ground": 1.0}, ground={"of": of}, model=REGIONS), batch, FakeModel(**logits))
    loss, known, hits = 0.0, 0, 0
    for row, k, truth, tokens in asked:
        fit = [reference(batch.image.boxes[row, n].tolist(), truth.tolist())[0] for n in tokens]
        scores = at(row, k)[tokens]
        hits += fit[int(scores.argmax())] >= 0.5
        if max(fit) >= 0.5:
            loss, known = loss - log_softmax(scores)[int(np.argmax(fit))], known + 1
    assert 0 < known < len(asked) and 0 < hits < len(asked)
    np.testing.assert_allclose(metrics["ground/choice_loss"], (loss, known), rtol=1e-6)
    assert metrics["ground/accuracy"] == (hits, len(asked))


@pytest.mark.parametrize("of", ["phrases", "texts"])
def test_boxes_over_patches(of):
    yx = np.broadcast_to(np.array([[0, 0], [0, 1], [1, 0], [1, 1], [0, 2]], np.int32), (3, 5, 2))
    grid = np.broadcast_to(np.array([2, 3], np.int32), yx.shape)
    raw = np.random.default_rng(2).normal(size=(3, 5, 4)).astype(np.float32)
    logits, at, asked = _scores(of)
    batch = _batch(Patches(pixels=np.zeros((3, 5, 12), np.uint8), yx=yx, grid=grid), texts=of == "texts")
    model = FakeModel(**logits, ground_box=raw)
    metrics, _ = run(build({"ground": 1.0}, ground={"of": of}, model=ModelConfig()), batch, model)
    sums = np.zeros(4)
    for row, k, truth, tokens in asked:
        (x0, y0, x1, y1), log_share = truth.tolist(), log_softmax(at(row, k)[tokens].astype(float))
        middle, size = np.array([x0 + x1, y0 + y1]) / 2, np.array([x1 - x0, y1 - y0])
        cells = (yx[row, tokens][:, ::-1] + 0.5) / (3, 2)
        said = 1 / (1 + np.exp(-raw[row, tokens].astype(float)))
        odds = said[:, :2] / (1 - said[:, :2]) * cells / (1 - cells)
        centre, wide = np.exp(log_share) @ (odds / (1 + odds)), np.exp(log_share) @ said[:, 2:]
        fit, general = reference((*(centre - wide / 2), *(centre + wide / 2)), (x0, y0, x1, y1))
        near = int(np.square(cells - middle).sum(-1).argmin())
        sums += -log_share[near], np.abs(centre - middle).sum() + np.abs(wide - size).sum(), 1 - general, fit >= 0.5
    for name, total in zip(("choice_loss", "l1_loss", "giou_loss", "accuracy"), sums, strict=True):
        np.testing.assert_allclose(metrics[f"ground/{name}"], (total, len(asked)), rtol=1e-6, err_msg=name)


@functools.cache
def _on_model(of, dtype="float32"):
    """Random parameters of a small model, and (parameters, batch) -> metrics."""
    config = dataclasses.replace(CONFIG, dtype=dtype)
    objectives = build({"ground": 1.0}, ground={"of": of}, model=config)
    heads = objectives["ground"].heads(config, SPEC)
    graph, params = drawn(config, heads)

    def sums(params, batch):
        return total_loss(nnx.merge(graph, params), objectives, batch, SPEC, KEY, {"ground": {}}, train=False)[0]

    return params, jax.jit(sums)


@pytest.mark.parametrize("places", [(0, 0, 1, 1), (0, 1, 2, 2)])
@pytest.mark.parametrize("of", ["phrases", "texts"])
def test_padding_and_packing_change_nothing(of, places):
    params, sums = _on_model(of)
    batches = [random_batch(seed, rows=1, text=2 + seed, grid=(1 + seed % 2, 3)) for seed in range(4)]
    boxes = random_boxes(3, 4)

    def targets(batch, order):
        """Each text's words name its own box."""
        found = np.zeros((*batch.text.ids.shape, 5, 4), np.float32)
        for number, (row, segment) in order:
            found[row, batch.text.segments[row] == segment, 0] = boxes[number]
        return batch.replace(targets={"word_boxes": found})

    alone = pack(list(zip(batches, range(4), strict=True)), text_slot=5, num_patches=6, rows=4, slots=1)
    packed = pack(list(zip(batches, places, strict=True)), text_slot=8, num_patches=7, rows=3, slots=2)
    segments = [1 + places[:i].count(row) for i, row in enumerate(places)]
    alone = targets(alone, enumerate((row, 1) for row in range(4)))
    packed = targets(packed, enumerate(zip(places, segments, strict=True)))
    expected, found = sums(params, alone), sums(params, packed)
    for name, pair in expected.items():
        np.testing.assert_allclose(found[name], pair, rtol=2e-5, err_msg=name)
    assert float(expected["ground/choice_loss"][1]) == 4


@pytest.mark.parametrize("of", ["phrases", "texts"])
def test_the_gradient_is_that_of_differences(of):
    with jax.enable_x64(True):
        params, sums = _on_model(of, "float64")
        boxes = np.zeros((2, 5, 5, 4), np.float32)
        boxes[0, 1:3, 0], boxes[1, 2, 0] = A, B
        batch = random_batch(1, rows=2, targets={"word_boxes": boxes})

        def loss(params):
            found = sums(params, batch)
            return sum(w * found[f"ground/{name}_loss"][0] for name, w in (("choice", 1), ("l1", 5), ("giou", 2)))

        check_slope(loss, params)


def test_mistakes_in_the_settings_are_named():
    for options, model, message in (
        ({"of": "words"}, CONFIG, "ground.of='words': choose one of phrases, texts"),
        ({"of": "texts"}, dataclasses.replace(CONFIG, direction="prefix"), "config.model.direction='prefix' hides it"),
        ({}, TwoStreamConfig.named("vilbert_tiny", image_width=48), "config.model.image_width=48 must be equal"),
    ):
        with pytest.raises(ConfigError, match=message):
            build({"ground": 1.0}, ground=options, model=model)
