"""Every loss against a plain numpy reference written from its definition; what objectives draw, and what they share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from singlestream.batch import ALL, NONE, Regions, Spec, Text, make_batch
from singlestream.config import Config, ConfigError, DataConfig, TrainConfig
from singlestream.objectives import build_objectives, objective_names
from singlestream.objectives.itm import MATCH, mismatch
from singlestream.objectives.locate import single_centre
from singlestream.objectives.mlm import Options as MlmOptions
from singlestream.objectives.mlm import mask_tokens
from singlestream.objectives.total import loss_weights
from tests.model.toy import SPEC, random_batch

from .toy import KEY, MODEL, FakeModel, build, log_softmax, run


def test_vqa_is_the_cross_entropy_of_known_answers():
    """Of two known answers, one that training never saw (a miss without a loss), a caption, and padding."""
    rng = np.random.default_rng(0)
    batch = random_batch(0, rows=5, targets={"answer": np.array([[2], [0], [7], [-1], [6]], np.int32)})
    batch = batch.replace(example_mask=np.array([[True], [True], [True], [True], [False]]))
    logits = rng.normal(size=(5, 1, 7)).astype(np.float32)
    metrics, _ = run(build({"vqa": 1.0}), batch, FakeModel(vqa=logits))
    expected = -(log_softmax(logits)[0, 0, 2] + log_softmax(logits)[1, 0, 0])
    np.testing.assert_allclose(metrics["vqa/loss"], (expected, 2), rtol=1e-6)
    hits = (logits[0, 0].argmax() == 2) + (logits[1, 0].argmax() == 0)
    assert metrics["vqa/accuracy"] == (hits, 3)


def test_mlm_masks_as_bert_does():
    rng = np.random.default_rng(0)
    ids = rng.integers(5, SPEC.vocab_size, (64, 100), np.int32)
    ids[:, 0], ids[:, -1] = SPEC.cls_id, SPEC.sep_id
    segments = np.ones_like(ids)
    segments[:, 90:] = 0
    batch = make_batch(text=Text(ids=ids, segments=segments))
    masked, chosen = mask_tokens(batch, SPEC, KEY, MlmOptions())
    new, chosen = np.asarray(masked.text.ids), np.asarray(chosen)
    assert not chosen[:, 0].any() and not chosen[:, 90:].any()
    assert (new == ids)[~chosen].all()
    count = chosen.sum()
    # Four standard deviations of a binomial with the published rates.
    assert abs(count / (64 * 89) - 0.15) < 4 * np.sqrt(0.15 * 0.85 / (64 * 89))
    for share, rate in (((new == SPEC.mask_id)[chosen].mean(), 0.8), ((new == ids)[chosen].mean(), 0.1 + 0.1 / 35)):
        assert abs(share - rate) < 4 * np.sqrt(rate * (1 - rate) / count)
    assert new[chosen & (new != SPEC.mask_id)].min() > SPEC.mask_id


def test_whole_words_are_masked_together():
    ids = np.tile(np.array([[2, 20, 10, 11, 21, 22, 10, 3]], np.int32), (200, 1))  # 10 and 11 continue a word
    _, chosen = mask_tokens(make_batch(text=Text(ids=ids)), SPEC, KEY, MlmOptions(whole_word=True, rate=0.5))
    chosen = np.asarray(chosen)
    assert (chosen[:, 1] == chosen[:, 2]).all() and (chosen[:, 1] == chosen[:, 3]).all()
    assert (chosen[:, 5] == chosen[:, 6]).all()
    assert (chosen[:, 1] != chosen[:, 4]).any() and (chosen[:, 4] != chosen[:, 5]).any()


def test_only_words_that_name_something_are_masked():
    boxes = np.zeros((50, 6, 2, 4), np.float32)
    boxes[:, [1, 4], 1] = [0.1, 0.1, 0.2, 0.2]
    batch = random_batch(0, rows=50, text=6, targets={"word_boxes": boxes})
    _, chosen = mask_tokens(batch, SPEC, KEY, MlmOptions(named=True, rate=0.5))
    assert np.asarray(chosen).any(0).tolist() == [False, True, False, False, True, False]
    assert build({"mlm": 1.0}, mlm={"named": True})["mlm"].targets == ("word_boxes",)


def test_mlm_predicts_the_original_token_where_it_was_drawn():
    rng = np.random.default_rng(1)
    batch = random_batch(0, rows=3, text=8)
    logits = rng.normal(size=(3, 8, SPEC.vocab_size)).astype(np.float32)
    model = FakeModel(mlm=logits)
    metrics, _ = run(build({"mlm": 1.0}, mlm={"rate": 0.4}), batch, model)
    masked = model.calls[0][0].text.ids
    changed = np.asarray(masked) != batch.text.ids
    total, count = metrics["mlm/loss"]
    assert count >= changed.sum() > 0
    # The same draw again, from the definition.
    key = jax.random.fold_in(jax.random.split(KEY)[1], 0)
    _, chosen = mask_tokens(batch, SPEC, key, MlmOptions(rate=0.4))
    nll = -np.take_along_axis(log_softmax(logits), batch.text.ids[..., None], -1)[..., 0]
    np.testing.assert_allclose(total, nll[np.asarray(chosen)].sum(), rtol=1e-6)


def test_itm_never_takes_the_same_picture():
    batch = random_batch(0, rows=6, picture=np.array([[1], [1], [2], [2], [3], [3]], np.int32))
    for seed in range(20):
        mixed, match = mismatch(batch, jax.random.key(seed))
        match = np.asarray(match)[:, 0]
        pixels = np.asarray(mixed.image.pixels)
        for row in range(6):
            source = next(i for i in range(6) if (batch.image.pixels[i] == pixels[row]).all())
            assert (source == row) == bool(match[row])
            assert match[row] or batch.picture[source, 0] != batch.picture[row, 0]


def test_itm_is_the_cross_entropy_of_what_the_model_was_shown():
    """Of the batch that it drew itself, whose last row is padding."""
    logits = np.random.default_rng(0).normal(size=(6, 1, 2)).astype(np.float32)
    batch = random_batch(0, rows=6).replace(example_mask=np.arange(6)[:, None] < 5)
    model = FakeModel(itm=logits)
    metrics, _ = run(build({"itm": 1.0}), batch, model)
    match = (model.calls[0][0].image.pixels == batch.image.pixels).all((1, 2)).astype(int)[:5]
    assert 0 < match.sum() < 5
    expected = -log_softmax(logits)[np.arange(5), 0, match].sum()
    np.testing.assert_allclose(metrics["itm/loss"], (expected, 5), rtol=1e-6)
    assert metrics["itm/accuracy"] == ((logits[:5, 0].argmax(-1) == match).sum(), 5)


def test_itm_changes_half_of_the_rows():
    batch = random_batch(0, rows=4)
    match = np.concatenate([np.asarray(mismatch(batch, jax.random.key(s))[1])[:, 0] for s in range(200)])
    assert abs(match.mean() - 0.5) < 4 * np.sqrt(0.25 / match.size)


def test_itm_keeps_a_row_for_which_there_is_no_other_picture():
    batch = random_batch(0, rows=3, picture=np.array([[5], [5], [5]], np.int32))
    for seed in range(5):
        mixed, match = mismatch(batch, jax.random.key(seed))
        assert (np.asarray(match) == MATCH).all()
        np.testing.assert_array_equal(mixed.image.pixels, batch.image.pixels)


def _packed(pictures):
    """One row of three examples with two tokens and two patches each."""
    text = np.array([[1, 1, 2, 2, 3, 3]], np.int32)
    plain = random_batch(0, rows=1, text=6, grid=(1, 6))
    return make_batch(
        text=dataclasses.replace(plain.text, segments=text, positions=None),
        image=dataclasses.replace(plain.image, segments=text),
        picture=np.array([pictures], np.int32),
    )


def test_itm_rotates_the_segments_of_a_packed_row():
    batch, seen = _packed([7, 8, 9]), set()
    for seed in range(20):
        mixed, match = mismatch(batch, jax.random.key(seed))
        segments = tuple(np.asarray(mixed.image.segments)[0].tolist())
        seen.add(segments)
        assert (np.asarray(match) == (segments == (1, 1, 2, 2, 3, 3))).all()
        np.testing.assert_array_equal(mixed.image.pixels, batch.image.pixels)
    assert seen == {(1, 1, 2, 2, 3, 3), (2, 2, 3, 3, 1, 1), (3, 3, 1, 1, 2, 2)}


def test_itm_does_not_rotate_onto_the_same_picture():
    for seed in range(10):
        _, match = mismatch(_packed([7, 7, 9]), jax.random.key(seed))
        assert (np.asarray(match) == MATCH).all()


def test_itm_does_not_rotate_a_row_with_a_text_that_has_no_picture():
    """Of several corpora one may be texts alone: no picture at all would tell which text got a wrong one."""
    batch = _packed([7, 8, 9])
    image = dataclasses.replace(batch.image, segments=np.array([[1, 1, 0, 0, 3, 3]], np.int32))
    for seed in range(10):
        mixed, match = mismatch(batch.replace(image=image), jax.random.key(seed))
        assert (np.asarray(match) == MATCH).all()
        np.testing.assert_array_equal(mixed.image.segments, image.segments)


def test_itm_leaves_out_the_words_of_regions():
    """They point into the text that a picture came with, and so would tell whether it is this one."""
    plain = random_batch(0, rows=2)
    image = Regions(features=np.ones((2, 3, 4), np.float32), words=np.zeros((2, 3, 1), np.int32))
    mixed, _ = mismatch(make_batch(text=plain.text, image=image), jax.random.key(0))
    assert mixed.image.words is None and mixed.image.features.shape == (2, 3, 4)


def test_itm_takes_a_pictures_edges_with_it():
    """Tokens 0 and 1 are words, 2 to 5 patches; what would join a word and a patch is left out."""
    edges = np.array([[[0, 1], [2, 2 + i], [5, ALL], [1, 3]] for i in (1, 2)], np.int32)
    batch = random_batch(0, rows=2, text=2, grid=(2, 2)).replace(targets={"edges": edges})
    seen = set()
    for seed in range(10):
        mixed, match = mismatch(batch, jax.random.key(seed))
        for row, matches in enumerate(np.asarray(match)[:, 0].tolist()):
            patch = 3 + (row if matches else 1 - row)
            found = [tuple(edge) for edge in np.asarray(mixed.targets["edges"])[row].tolist() if edge[0] != NONE]
            assert sorted(found) == [(0, 1), (2, patch), (5, ALL)]
            seen.add(matches)
    assert seen == {0, 1}


def test_single_centre_takes_words_that_name_one_thing():
    boxes = np.zeros((1, 3, 5, 4), np.float32)
    boxes[0, 0, 0] = [0.2, 0.4, 0.4, 0.8]
    boxes[0, 1, :2] = [0.1, 0.1, 0.2, 0.2]
    centre, one = single_centre(boxes)
    np.testing.assert_allclose(centre[0, 0], [0.3, 0.6], rtol=1e-6)
    assert np.asarray(one).tolist() == [[True, False, False]]


def test_locate_is_its_three_cross_entropies():
    rng = np.random.default_rng(0)
    batch = random_batch(0, rows=1, text=2)
    classes = np.array([[[0, 0], [3, 2], [1, 1], [-1, -1], [0, 0], [2, 0]]], np.int32)
    centre = np.full((1, 6, 2), -1, np.float32)
    centre[0, 1], centre[0, 2], centre[0, 5] = (0.1, 0.9), (0.5, 0.5), (1.0, 0.0)
    boxes = np.zeros((1, 2, 5, 4), np.float32)
    boxes[0, 1, 0] = [0.0, 0.5, 0.5, 1.0]
    batch = batch.replace(targets={"region_class": classes, "region_centre": centre, "word_boxes": boxes})
    region, places, words = (rng.normal(size=s).astype(np.float32) for s in ((1, 6, 7), (1, 6, 8), (1, 2, 8)))
    model = FakeModel(locate_region=region, locate_centre=places, locate_word=words)
    objectives = build({"locate": 2.0}, locate={"bins": 4, "layer": 2})
    metrics, _ = run(objectives, batch, model)

    known = classes[0, :, 0] >= 0
    expected = sum(
        -log_softmax(region[0, :, start : start + size])[np.arange(6), classes[0, :, a]][known].sum()
        for a, (start, size) in enumerate(((0, 4), (4, 3)))
    )
    np.testing.assert_allclose(metrics["locate/region_loss"], (expected, 10), rtol=1e-6)
    bins = {1: (0, 3), 2: (2, 2), 5: (3, 0)}
    expected = sum(-log_softmax(places[0, n, 4 * a : 4 * a + 4])[bins[n][a]] for n in bins for a in range(2))
    np.testing.assert_allclose(metrics["locate/centre_loss"], (expected, 6), rtol=1e-6)
    expected = -log_softmax(words[0, 1, :4])[1] - log_softmax(words[0, 1, 4:])[3]
    np.testing.assert_allclose(metrics["locate/word_loss"], (expected, 2), rtol=1e-6)
    assert loss_weights(objectives, {"locate": 2.0}) == {
        "locate/region_loss": 2.0,
        "locate/centre_loss": 1.0,
        "locate/word_loss": 2.0,
    }


def test_objectives_share_equal_calls_and_draw_different_noise():
    batch = random_batch(0, rows=2, text=6, targets={"answer": jnp.zeros((2, 1), jnp.int32)})
    logits = {"vqa": np.zeros((2, 1, 7), np.float32), "mlm": np.zeros((2, 6, 40), np.float32)}
    model = FakeModel(**logits, itm=np.zeros((2, 1, 2), np.float32))
    objectives = build({"vqa": 1.0, "mlm": 1.0, "itm": 1.0})
    run({**objectives, "vqa_again": objectives["vqa"]}, batch, model, train=True)
    assert len(model.calls) == 3  # itm's and mlm's batches, and one for both vqa objectives
    assert len({jax.random.key_data(key).tobytes() for _, key in model.calls}) == 3
    evaluated = FakeModel(**logits, itm=np.zeros((2, 1, 2), np.float32))
    run(objectives, batch, evaluated)
    assert {key for _, key in evaluated.calls} == {None}


def test_mistakes_in_the_settings_are_named():
    assert {"itc", "itm", "locate", "mlm", "vqa"} <= set(objective_names()) and "base" not in objective_names()
    for objectives, options, message in (
        ({"vqaa": 1.0}, {}, "config.objectives.vqaa: no such objective; there are .*itm, locate, .*vqa"),
        ({"mlm": 1.0}, {"mlm": {"rat": 0.1}}, "config.objective_options.mlm.rat: no such key"),
        ({"mlm": 1.0}, {"mlm": {"rate": 1.5}}, r"config.objective_options.mlm.rate=1.5: must be in \(0, 1\)"),
        ({"locate": 1.0}, {"locate": {"layer": 9}}, "layer=9 is more than config.model.num_layers=3"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(objectives, **options)
    bare = Spec(vocab_size=10)
    for name, message in (("vqa", "0 different answers"), ("locate", "no region classes")):
        with pytest.raises(ConfigError, match=message):
            build_objectives(Config(objectives={name: 1.0}, model=MODEL, data=DataConfig()), bare)


@pytest.mark.parametrize("size", [1, 8])
def test_negatives_need_a_second_row(size):
    """Alone in its part every row would keep its own picture: all match, nothing to learn."""
    config = Config(objectives={"itm": 1.0}, train=TrainConfig(batch_size=size, accumulate=size))
    with pytest.raises(ConfigError, match="config.objectives.itm needs other rows .* each part has one row"):
        build_objectives(config, SPEC)
    build_objectives(dataclasses.replace(config, data=DataConfig(examples_per_row=2)), SPEC)
    build_objectives(dataclasses.replace(config, train=TrainConfig(batch_size=2 * size, accumulate=size)), SPEC)


def test_an_objective_of_weight_zero_is_left_out():
    assert list(build({"vqa": 1.0, "locate": 0.0})) == ["vqa"]
