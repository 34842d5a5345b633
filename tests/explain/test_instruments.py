"""Every instrument against a loop, or an identity that holds exactly, in one stream and in two."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import Text, make_batch
from singlestream.explain.embedded import blank
from singlestream.explain.instruments import explain, instrument_names
from singlestream.explain.question import answer_reads
from singlestream.model.heads import HeadConfig
from singlestream.model.single_stream import SingleStream
from tests.explain.toy_questions import CONFIG, along, everything, forward, model_of, one_stream_batch, question
from tests.model import toy

NAMES = ("one", "shared", "paired")
# What attends one after another in the toy models of two streams, by hand: (name, layer of `Encoded.attention`).
ORDER = {
    "shared": [
        *(("text", 0), ("text", 1), ("image", 0)),
        *(("cross", 0), ("text", 2), ("image", 1)),
        *(("cross", 1), ("text", 3), ("image", 2)),
    ],
    "paired": [
        *(("text", 0), ("cross", 0), ("text", 1), ("image", 0), ("cross", 1)),
        *(("text", 2), ("image", 1)),
    ],
}


def _close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, atol=tolerance)


def _matrices(name, weights):
    """One [B, L, L] a layer from weights averaged over heads, text first."""
    if name == "one":
        return list(weights["self"].mean(2))
    rows, words, regions = weights["text_to_image"].shape[1], *weights["text_to_image"].shape[3:]
    layers = []
    for kind, number in ORDER[name]:
        layer = np.zeros((rows, words + regions, words + regions))
        if kind == "cross":
            layer[:, :words, words:] = weights["text_to_image"][number].mean(1)
            layer[:, words:, :words] = weights["image_to_text"][number].mean(1)
        else:
            side = slice(words) if kind == "text" else slice(words, None)
            layer[:, side, side] = weights[kind][number].mean(1)
        layers.append(layer)
    return layers


def _holds(name, said, matrix):
    """The answer's row and the words' of a matrix; the answer is read from [CLS], in `paired` also from region 0."""
    asked = question(name)
    words = asked.batch.text.ids.shape[1]
    row = matrix[:, 0] if name != "paired" else (matrix[:, 0] + matrix[:, words]) / 2
    text, image = asked.batch.text.segments > 0, asked.batch.image.segments > 0
    _close(said.text, row[:, :words] * text)
    _close(said.image, row[:, words : words + image.shape[1]] * image)
    own = text[:, :, None] & image[:, None]
    _close(said.words, matrix[:, :words, words : words + image.shape[1]] * own)


@pytest.mark.parametrize("name", ["one", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
def test_means_and_products_of_attention_by_loops(name):
    said, (attention, gradient) = everything(name)
    layers = _matrices(name, attention)
    _holds(name, said["mean_attention"], np.mean(layers, 0))
    product = np.eye(layers[0].shape[-1])[None]
    for layer in layers:
        mixed = layer + np.eye(layer.shape[-1])
        product = mixed / mixed.sum(-1, keepdims=True) @ product
    _holds(name, said["rollout"], product)
    raising = {key: np.maximum(gradient[key] * attention[key], 0) for key in attention}
    _holds(name, said["attention_gradient"], np.mean(_matrices(name, raising), 0))


@pytest.mark.slow
def test_raw_attention_is_the_layers():
    said, (attention, _) = everything("one")
    _holds("one", said["attention"], attention["self"][-1].mean(1))
    _holds("one", said["one head"], attention["self"][0][:, 1])
    said, (attention, _) = everything("shared")
    _close(said["attention"].words, attention["text_to_image"][-1].mean(1) * (said["attention"].words > 0))
    assert not said["attention"].text.any()


def test_chefer_in_one_stream_by_a_loop():
    said, (attention, gradient) = everything("one")
    relevance = np.eye(attention["self"].shape[-1])[None]
    for weights, slope in zip(attention["self"], gradient["self"], strict=True):
        relevance = relevance + np.maximum(weights * slope, 0).mean(1) @ relevance
    _holds("one", said["chefer"], relevance)


@pytest.mark.parametrize("name", ["shared", pytest.param("paired", marks=pytest.mark.slow)])
def test_chefer_in_two_streams_by_loops(name):
    """Row by row, with the rules as the paper writes them (R_ss, R_sq; equations 6 to 11)."""
    said, (attention, gradient) = everything(name)
    mean = {key: np.maximum(attention[key] * gradient[key], 0).mean(2) for key in attention}
    whole = []
    for row in range(2):
        words, regions = mean["text_to_image"].shape[2:]
        r = {"tt": np.eye(words), "ii": np.eye(regions), "ti": np.zeros((words, regions))}
        r["it"] = r["ti"].T
        for kind, number in ORDER[name]:
            if kind != "cross":
                s, q, a = kind[0], "ti".replace(kind[0], ""), mean[kind][number, row]
                r[s + s], r[s + q] = r[s + s] + a @ r[s + s], r[s + q] + a @ r[s + q]
                continue
            bar = {}
            for s in "ti":
                added = r[s + s] - np.eye(len(r[s + s]))
                sums = added.sum(-1, keepdims=True)
                bar[s] = np.divide(added, sums, out=np.zeros_like(added), where=sums > 0) + np.eye(len(added))
            a = {"t": mean["text_to_image"][number, row], "i": mean["image_to_text"][number, row]}
            new = {s + q: r[s + q] + bar[s].T @ a[s] @ bar[q] for s, q in ("ti", "it")}
            new |= {s + s: r[s + s] + a[s] @ r[q + s] for s, q in ("ti", "it")}
            r = new
        whole.append(np.block([[r["tt"], r["ti"]], [r["it"], r["ii"]]]))
    _holds(name, said["chefer"], np.stack(whole))


def test_blank_is_where_the_way_begins():
    asked = question("one")
    _close(forward(asked)[0], along("one", 1.0))
    _close(forward(dataclasses.replace(asked, batch=blank(asked)))[0], along("one", 0.0))
    ids = np.array([[2, 6, 7, 8, 9, 3], [2, 6, 3, 3, 0, 0]], np.int32)
    text = dataclasses.replace(asked.batch.text, ids=ids)
    empty = blank(dataclasses.replace(asked, batch=asked.batch.replace(text=text)))
    np.testing.assert_array_equal(empty.text.ids, [[2, 4, 4, 4, 4, 3], [2, 4, 3, 3, 0, 0]])
    assert (empty.image.pixels == 127).all()


@pytest.mark.parametrize("name", ["one", "shared"])
def test_integrated_gradients_are_complete(name):
    """Over all tokens they add up to the answer's logit, less that of the blank batch."""
    said, apart = everything(name)[0]["integrated_gradients"], along(name, 1.0) - along(name, 0.0)
    assert np.abs(apart).min() > 0.01
    _close(said.text.sum(-1) + said.image.sum(-1), apart, 2e-4)


def test_gradient_times_input_is_the_slope_towards_blank():
    said = everything("one")[0]["gradient_input"]
    slope = (along("one", 1.01) - along("one", 0.99)) / 0.02
    _close(said.text.sum(-1) + said.image.sum(-1), slope, 1e-3)


def test_occlusion_hides_one_token_at_a_time():
    asked, said = question("one"), everything("one")[0]["occlusion"]
    whole, states = forward(asked)
    for side, number, found in (("image", 4, said.image), ("text", 2, said.text)):
        tokens = getattr(asked.batch, side)
        segments = np.array(tokens.segments)
        segments[:, number] = 0
        hidden = asked.batch.replace(**{side: dataclasses.replace(tokens, segments=segments)})
        left, moved = forward(dataclasses.replace(asked, batch=hidden))
        _close(found[:, number], np.where(tokens.segments[:, number], whole - left, 0))
        if side == "image":
            _close(said.words[0, :, number], np.linalg.norm(states - moved, axis=-1)[0])


def test_padding_and_other_rows_do_not_matter():
    """Neither what lies under the padding of a row, nor what another row holds, changes what is said of it."""
    said, _ = everything("one")
    other, _ = everything("one", question("one", one_stream_batch(padding=9)))
    batch, swapped = one_stream_batch(), one_stream_batch(seed=1)
    for side, name in (("text", "ids"), ("image", "pixels")):
        getattr(getattr(swapped, side), name)[1] = getattr(getattr(batch, side), name)[1]
    beside, _ = everything("one", question("one", swapped))
    for name in instrument_names():
        for mine, padded, second in zip(said[name], other[name], beside[name], strict=True):
            if mine is not None:
                _close(padded, mine)
                _close(second[1], mine[1])
        assert not said[name].text[1, 4:].any() and not said[name].image[1, 3:].any()
        assert said[name].words is None or not (said[name].words[1, 4:].any() or said[name].words[1, :, 3:].any())


@pytest.mark.parametrize(
    ("changes", "source", "share"),
    [({}, "pooled", [1, 0, 0, 0]), ({"pooling": "mean"}, "pooled", [1 / 4] * 4), ({}, "second_last", [0, 0, 1, 0])],
)
def test_where_an_answer_is_read(changes, source, share):
    """Of the second row, which has four words."""
    heads = {"vqa": HeadConfig(size=7, source=source)}
    model = nnx.eval_shape(
        lambda: SingleStream(toy.replace(CONFIG, **changes), toy.SPEC, heads=heads, rngs=nnx.Rngs(0))
    )
    text, image = answer_reads(model, question("one"))
    _close(text[1], [*share, 0, 0])
    assert not np.any(image)


def test_what_cannot_be_explained_is_refused():
    asked, model = question("one"), model_of("one")
    text, image = asked.batch.text, asked.batch.image
    two = np.array([[1, 1, 1, 2, 2, 2]] * 2, np.int32)
    several = make_batch(text=Text(ids=text.ids, segments=two), image=dataclasses.replace(image, segments=two))
    for name, changes, message in (
        ("saliency", {}, "no instrument 'saliency'; there are attention, attention_gradient, chefer"),
        ("occlusion", {"head": "mlm"}, "the head 'mlm' reads 'text' and gives no answer to explain"),
        ("occlusion", {"head": "", "target": None}, "no answer is asked about: choose an instrument that needs none"),
        ("occlusion", {"batch": several}, "rows have 2 answers each, an instrument explains one"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(functools.partial(explain, name, model), dataclasses.replace(asked, **changes))
