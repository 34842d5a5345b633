"""The pointing score on a row whose answer one can read off."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from singlestream.batch import Patches, Regions, Text, make_batch
from singlestream.explain.pointing import add_counts, attended_boxes, count_pointing
from singlestream.model.boxes import centres, inside
from singlestream.model.maps import image_to_text, text_to_image
from singlestream.model.mentions import pointed


def four_patches(segments: list[int] | None = None) -> Patches:
    """A 2 x 2 grid in raster order."""
    yx = np.array([[[0, 0], [0, 1], [1, 0], [1, 1]]], np.int32)
    return Patches(
        pixels=np.zeros((1, 4, 12), np.uint8),
        yx=yx,
        grid=np.full((1, 4, 2), 2, np.int32),
        segments=None if segments is None else np.array([segments], np.int32),
    )


def test_centres_are_x_then_y():
    wanted = [[[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]]
    np.testing.assert_allclose(centres(four_patches()), wanted)
    boxes = np.array([[[0.0, 0.2, 0.4, 0.4]]], np.float32)
    np.testing.assert_allclose(centres(Regions(features=np.zeros((1, 1, 3), np.float32), boxes=boxes)), [[[0.2, 0.3]]])


def test_a_box_of_zeros_holds_nothing():
    points = np.zeros((1, 1, 2), np.float32)
    assert not inside(points, np.zeros((1, 2, 5, 4), np.float32)).any()


def test_pointing_by_hand():
    """Four tokens: one that names the right column, its continuation, one that names nothing, one that names a corner.

    Head 0 looks at patch 1, head 1 at patch 2, whatever the word.
    """
    boxes = np.zeros((1, 4, 5, 4), np.float32)
    boxes[0, :2, 0] = 0.5, 0, 1, 1
    boxes[0, 3, 0] = 0, 0.5, 0.5, 1
    boxes[0, 3, 1] = 0.5, 0, 1, 0.5
    ids = np.array([[9, 50, 9, 9]], np.int32)
    batch = make_batch(text=Text(ids=ids), image=four_patches(), targets={"word_boxes": boxes})
    attention = np.zeros((1, 1, 2, 8, 8), np.float32)
    attention[0, 0, 0, :4, 4 + 1] = 0.6
    attention[0, 0, 1, :4, 4 + 2] = 0.6
    attention[..., :4, 0] = 0.9  # a word's own weight on words does not count
    counts = count_pointing({"self": attention}, batch=batch, continuations=(50,))
    np.testing.assert_array_equal(counts.hits, [[2, 1]])
    assert float(counts.words) == 2
    assert float(counts.chance) == pytest.approx(0.5 + 0.5)
    assert float(add_counts(counts, counts).words) == 4
    # The word of one thing: patch 1 is half of its column, an IoU of 0.5; patch 2 lies beside it.
    assert float(counts.single) == 1
    np.testing.assert_array_equal(counts.boxed, [[1, 0]])


def test_the_strongest_by_a_loop():
    """Maps without ties; then many ties, and maps of which nothing is above 0."""
    rng = np.random.default_rng(0)
    own = rng.random((40, 9)) < 0.7
    own[:, 0] = True
    true = own & (rng.random((40, 9)) < 0.4)
    apart, tied = rng.random((40, 9)), rng.integers(-2, 2, (40, 9)).astype(float)
    for maps, figures in ((apart, {0, 1}), (tied, {0, 1 / 3, 1 / 2, 1})):
        wanted = []
        for each, hit, mine in zip(maps, true, own, strict=True):
            most = each[mine].max()
            wanted.append(hit[mine & (each == most)].mean() if most > 0 else 0)
        with jax.enable_x64(True):
            np.testing.assert_allclose(pointed(maps, true, own), wanted, rtol=1e-12)
        assert figures <= set(wanted)
    assert (np.where(own, tied, -2).max(-1) <= 0).any()


def test_a_word_that_reads_nothing_points_nowhere():
    """Its picture was pruned, or is out of its reach: neither a hit nor a box around everything."""
    boxes = np.zeros((1, 1, 5, 4), np.float32)
    boxes[0, 0, 0] = 0, 0, 1, 1
    ids = np.array([[9]], np.int32)
    batch = make_batch(text=Text(ids=ids), image=four_patches(), targets={"word_boxes": boxes})
    count = jax.jit(lambda weights: count_pointing({"self": weights}, batch=batch, continuations=()))
    counts = count(np.zeros((1, 1, 1, 5, 5), np.float32))
    assert (float(counts.words), float(counts.single)) == (1, 1)
    assert (float(counts.hits[0, 0]), float(counts.boxed[0, 0])) == (0, 0)


def test_the_box_around_what_is_attended():
    """Everything from half of the strongest on; neither what is weaker, nor what belongs to another text."""
    maps = np.array([[0.1, 0.4, 0.2, 0.19], [0.1, 0.2, 0.9, 0.19]], np.float32)[None, None, None]
    own = np.array([[[True] * 4, [True, True, False, True]]])
    cells = np.array([[[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]], np.float32)
    found = attended_boxes(maps, own, cells)[0, 0, 0]
    np.testing.assert_array_equal(found, [[0, 0, 1, 1], [0, 0, 1, 1]])
    found = attended_boxes(maps * np.array([1, 1, 0.9, 1], np.float32), own, cells)[0, 0, 0]
    np.testing.assert_array_equal(found[0], [0.5, 0, 1, 0.5])


def test_padding_and_other_pictures_are_no_chance():
    """Patches 2 and 3 are padding: a box over the right column then holds one patch of two."""
    boxes = np.zeros((1, 2, 5, 4), np.float32)
    boxes[0, :, 0] = 0.5, 0, 1, 1
    segments = np.array([[1, 0]], np.int32)
    text = Text(ids=np.array([[9, 9]], np.int32), segments=segments)
    batch = make_batch(text=text, image=four_patches([1, 1, 0, 0]), targets={"word_boxes": boxes})
    counts = count_pointing({"self": np.ones((1, 1, 1, 6, 6), np.float32)}, batch=batch, continuations=())
    assert float(counts.words) == 1 and float(counts.chance) == 0.5


def test_blocks_of_attention():
    batch = make_batch(text=Text(ids=np.array([[9, 9]], np.int32)), image=four_patches())
    attention = np.arange(36, dtype=np.float32).reshape(1, 1, 1, 6, 6)
    np.testing.assert_array_equal(text_to_image({"self": attention}, batch=batch)[0, 0, 0], attention[0, 0, 0, :2, 2:])
    np.testing.assert_array_equal(image_to_text({"self": attention}, batch=batch)[0, 0, 0], attention[0, 0, 0, 2:, :2])


def test_two_streams_have_the_blocks_apart():
    batch = make_batch(text=Text(ids=np.array([[9, 9]], np.int32)), image=four_patches())
    found = {
        "text_to_image": np.ones((1, 1, 1, 2, 4), np.float32),
        "image_to_text": np.zeros((1, 1, 1, 4, 2), np.float32),
    }
    assert text_to_image(found, batch=batch) is found["text_to_image"]
    assert image_to_text(found, batch=batch) is found["image_to_text"]
