"""Hints of BERT and ViT: the squared error towards whitened states, KL of masked words, and who reads what."""

from __future__ import annotations

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import Batch, Patches, Text, make_batch
from singlestream.config import Config, ConfigError, DataConfig, ModelConfig
from singlestream.model.heads import HeadConfig
from singlestream.model.unimodal import Unimodal, pictures_alone, text_alone
from singlestream.objectives import build_objectives
from singlestream.objectives.distill_unimodal import regression
from singlestream.objectives.mlm import Options as MlmOptions
from singlestream.objectives.mlm import mask_tokens
from singlestream.objectives.total import total_loss
from tests.model.toy import CONFIG, SPEC, pack, random_batch

from .toy import KEY, FakeModel, check_slope, drawn, log_softmax

TINY = ModelConfig(width=8, num_layers=1, num_heads=2, mlp_dim=12, norm="post", modality="none", max_text_length=16)
WORDS = {"mlm": HeadConfig(kind="vocabulary", size=SPEC.vocab_size, source="text")}
BERT = Unimodal(
    reads="text",
    config=dataclasses.replace(TINY, image_stem="regions", image_positions="constant", region_dim=1, embed_norm=True),
    vocab_size=SPEC.vocab_size,
    heads=WORDS,
)
VIT = Unimodal(
    reads="image", config=dataclasses.replace(TINY, norm="pre", image_cls=True, patch_size=4, image_grid=(3, 3))
)
TEACHERS = {"text": BERT, "image": VIT}
LONG = dataclasses.replace(CONFIG, max_text_length=32)


KEYS = ("text", "image")


def build(models, *, model=CONFIG, data=None, options=None, **others):
    """The objective with teachers whose folders are named and not read, and `others` with their options."""
    name = "distill_unimodal"
    config = Config(
        objectives={name: 1.0, **dict.fromkeys(others, 1.0)},
        objective_options={name: {**dict.fromkeys(models, "folder"), **(options or {})}, **others},
        model=model,
        data=DataConfig(**{"text_length": 12, **(data or {})}),
    )
    return build_objectives(config, SPEC, {name: models})


@functools.cache
def state(*keys):
    """Of the objective: random parameters of its teachers."""
    rng = np.random.default_rng(7)
    found = {
        name: jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), TEACHERS[name].empty_params())
        for name in KEYS
    }
    return {"distill_unimodal": {name: found[name] for name in keys}}


@functools.cache
def _reader(name):
    def fn(params, batch):
        teacher = TEACHERS[name].with_params(params)
        encoded = teacher(batch)
        return encoded, {head: logits(encoded) for head, logits in teacher.heads.items()}

    return jax.jit(fn)


def read(name, batch):
    """A teacher's states of a batch, and what its heads say."""
    return _reader(name)(state(*KEYS)["distill_unimodal"][name], batch)


def squared(wanted, found):
    """The mean over the numbers of each token, towards whitened states."""
    wanted = np.asarray(wanted, np.float64)
    apart = wanted - wanted.mean(-1, keepdims=True)
    return ((found - apart / np.sqrt((apart**2).mean(-1, keepdims=True) + 1e-6)) ** 2).mean(-1)


def test_the_error_is_that_of_whitened_states():
    rng = np.random.default_rng(0)
    wanted, found = (rng.normal(size=(3, 5, 8)) for _ in range(2))
    wanted = 4 * wanted + 3
    mask = rng.random((3, 5)) < 0.6
    with jax.enable_x64(True):
        total, count = regression(jnp.asarray(wanted), jnp.asarray(found), mask)
        np.testing.assert_allclose(total, squared(wanted, found)[mask].sum(), rtol=1e-6)
        nothing, _ = regression(jnp.asarray(wanted), jnp.zeros((3, 5, 8)), mask)
        np.testing.assert_allclose(nothing / count, 1, rtol=1e-5)  # so much has a map to 0


def test_each_term_is_what_the_papers_say():
    """Two texts of one picture beside a padded row: the teachers' states are those of each text and picture alone."""
    rng = np.random.default_rng(1)
    ids = rng.integers(5, SPEC.vocab_size, (2, 6), np.int32)
    segments = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]], np.int32)
    part = np.array([[1, 1, 2, 2, 2, 0], [0] * 6], np.int32)
    image = random_batch(1, rows=2).image
    shown = np.array([[1] * 6, [1] * 4 + [0] * 2], np.int32)
    image = dataclasses.replace(image, segments=shown)
    batch = make_batch(text=Text(ids=ids, segments=segments, part=part), image=image)
    said = {f"teacher_{name}": rng.normal(size=(2, 6, 8)).astype(np.float32) for name in KEYS}
    said["mlm"] = rng.normal(size=(2, 6, SPEC.vocab_size)).astype(np.float32)
    objectives = build(TEACHERS, options={"words": True}, mlm={"rate": 0.5})
    student = FakeModel(**said)
    compute = jax.jit(lambda batch, state: total_loss(student, objectives, batch, SPEC, KEY, state, train=True))
    metrics, after = compute(batch, {**state(*KEYS), "mlm": {}})
    assert len(student.calls) == 2  # the batch, and `mlm`'s
    jax.tree.map(np.testing.assert_array_equal, after["distill_unimodal"], state(*KEYS)["distill_unimodal"])

    masked, chosen = mask_tokens(batch, SPEC, jax.random.fold_in(jax.random.split(KEY)[1], 1), MlmOptions(rate=0.5))
    places = [(0, slice(0, 2)), (0, slice(2, 5)), (1, slice(0, 2))]
    rows, hidden = np.zeros((2, 3, 3), np.int32)
    for i, (row, here) in enumerate(places):
        rows[i, : here.stop - here.start] = ids[row, here]
        hidden[i, : here.stop - here.start] = np.asarray(masked.text.ids)[row, here]
    there = (rows > 0).astype(np.int32)
    states = read("text", make_batch(text=Text(ids=rows, segments=there)))[0].text
    wanted = read("text", make_batch(text=Text(ids=hidden, segments=there)))[1]["mlm"]
    error = divergence = 0.0
    for i, (row, here) in enumerate(places):
        length = here.stop - here.start
        error += squared(states[i, :length], said["teacher_text"][row, here]).sum()
        p, q = log_softmax(np.asarray(wanted[i, :length], np.float64)), log_softmax(said["mlm"][row, here])
        divergence += ((np.exp(p) * (p - q)).sum(-1) * np.asarray(chosen)[row, here]).sum()
    np.testing.assert_allclose(metrics["distill_unimodal/text_loss"], (error, 7), rtol=1e-6)
    np.testing.assert_allclose(metrics["distill_unimodal/words_loss"], (divergence, chosen.sum()), rtol=1e-6)
    empty = Text(ids=np.zeros((2, 0), np.int32))
    one = Batch(
        inputs={**make_batch(text=empty, image=image).inputs},
        examples=np.array([[[1, 0]]] * 2, np.int32),
        example_mask=np.ones((2, 1), bool),
        picture=np.zeros((2, 1), np.int32),
    )
    error = squared(read("image", one)[0].image, said["teacher_image"])[shown > 0].sum()
    np.testing.assert_allclose(metrics["distill_unimodal/image_loss"], (error, 10), rtol=1e-6)


def test_every_picture_stands_alone():
    """One shared by two texts, two of one example, and none: each is a segment with one class token."""
    index = np.array([[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]], np.int32)
    segments = np.array([[1, 1, 1, 0], [2, 2, 2, 2], [0] * 4], np.int32)
    pixels = np.arange(3 * 4 * 4 * 4 * 3).reshape(3, 4, 48).astype(np.uint8)
    image = Patches(
        pixels=pixels,
        yx=np.zeros((3, 4, 2), np.int32),
        grid=np.ones((3, 4, 2), np.int32),
        index=index,
        segments=segments,
    )
    text = Text(
        ids=np.full((3, 2), 9, np.int32),
        segments=np.array([[1, 1], [2, 2], [1, 1]], np.int32),
        part=np.array([[1, 2], [0, 0], [0, 0]], np.int32),
    )
    alone = pictures_alone(make_batch(text=text, image=image), patch_size=2, num_images=2)
    found, classes = np.asarray(alone.image.segments), np.asarray(alone.examples[..., 0])
    first, second, third = found[0, 0], found[1, 0], found[1, 2]
    np.testing.assert_array_equal(found, [[first] * 3 + [0], [second] * 2 + [third] * 2, [0] * 4])
    assert len({0, second, third}) == 3 and first > 0
    assert [sorted(row[row > 0].tolist()) for row in classes] == [[first], sorted([second, third]), []]
    assert not np.asarray(alone.image.index).any() and not np.asarray(alone.image.part).any()
    inner = pixels.reshape(3, 4, 4, 4, 3)[:, :, 1:3, 1:3].reshape(3, 4, 12)
    np.testing.assert_array_equal(alone.image.pixels, inner)
    assert text_alone(alone).image.segments.shape == (3, 0) and alone.text.ids.shape == (3, 0)


@functools.cache
def _sums(dtype):
    """The terms of a model of small numbers, and its parameters; compiled once."""
    model = dataclasses.replace(CONFIG, dtype=dtype)
    objectives = build(TEACHERS, model=model)
    graph, own = drawn(model, objectives["distill_unimodal"].heads(model, SPEC))

    def sums(own, state, batch):
        return total_loss(nnx.merge(graph, own), objectives, batch, SPEC, KEY, state, train=False)[0]

    return sums, own


@pytest.mark.parametrize("places", [(0, 0, 1, 1), (0, 1, 2, 2)])
def test_padding_and_packing_change_nothing(places):
    sums, own = _sums("float32")
    found = jax.jit(functools.partial(sums, own, state(*KEYS)))
    batches = [random_batch(seed, rows=1, text=2 + seed, grid=(1 + seed % 2, 3)) for seed in range(4)]
    alone = pack(list(zip(batches, range(4), strict=True)), text_slot=5, num_patches=6, rows=4, slots=1)
    packed = pack(
        [(batches[i], row) for i, row in zip([2, 0, 3, 1], places, strict=True)],
        text_slot=8,
        num_patches=7,
        rows=3,
        slots=2,
    )
    expected, packed = found(alone), found(packed)
    for name, pair in expected.items():
        np.testing.assert_allclose(packed[name], pair, rtol=2e-5, err_msg=name)
    assert [int(expected[f"distill_unimodal/{name}_loss"][1]) for name in KEYS] == [14, 18]


def test_the_gradient_is_that_of_differences_and_none_goes_into_the_teachers():
    with jax.enable_x64(True):
        sums, own = _sums("float64")
        batch = random_batch(3, rows=2)

        def loss(own, teachers):
            return sum(total / count for total, count in sums(own, teachers, batch).values())

        check_slope(lambda own: loss(own, state(*KEYS)), own)
        gradient = jax.jit(jax.grad(loss, argnums=1))(own, state(*KEYS))
        assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))


def test_mistakes_are_named():
    key = "config.objective_options.distill_unimodal"
    regions = dataclasses.replace(CONFIG, image_stem="regions", image_positions="boxes")
    dumb = dataclasses.replace(BERT, heads={})
    for models, changes, message in (
        ({}, {}, f"{key}: set .text to the folder of a BERT"),
        ({"image": VIT}, {"options": {"words": True}}, f"{key}.words=True: .* set {key}.text"),
        ({"text": VIT}, {}, f"{key}.text: a BERT is needed, this model reads image"),
        ({"text": dumb}, {"options": {"words": True}, "mlm": {}}, "came without its head of masked words"),
        ({"text": BERT}, {"options": {"words": True}}, "needs config.objectives.mlm above 0"),
        ({"text": BERT}, {"data": {"text_length": 16}, "model": LONG}, ""),
        ({"text": BERT}, {"data": {"text_length": 17}, "model": LONG}, "text_length=17 is more than the 16 positions"),
        ({"image": VIT}, {"model": regions}, "a ViT reads patches, but config.model.image_stem='regions'"),
        (
            {"image": VIT},
            {"model": dataclasses.replace(CONFIG, patch_size=8)},
            "config.model.patch_size=8, but the patches of the ViT .* set it to 4",
        ),
    ):
        with pytest.raises(ConfigError, match=message) if message else contextlib.nullcontext():
            build(models, **changes)
