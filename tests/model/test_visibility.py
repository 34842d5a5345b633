import numpy as np

from singlestream.model.visibility import Visibility


def _visible(segments, part, modality, **kwargs):
    arrays = {
        name: np.array([value], np.int32)
        for name, value in (("segments", segments), ("part", part), ("modality", modality))
    }
    return np.asarray(Visibility(**arrays, **kwargs).mask())[0].astype(int).tolist()


def test_padding_is_seen_by_nobody_and_sees_nothing():
    assert _visible([1, 1, 0], [0, 0, 0], [0, 1, 1]) == [
        [1, 1, 0],
        [1, 1, 0],
        [0, 0, 0],
    ]


def test_packed_examples_do_not_see_each_other():
    assert _visible([1, 1, 2, 1, 2], [0] * 5, [0, 0, 0, 1, 1]) == [
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 0],
        [0, 0, 1, 0, 1],
        [1, 1, 0, 1, 0],
        [0, 0, 1, 0, 1],
    ]


def test_texts_that_share_a_picture_see_it_and_themselves():
    matrix = [
        [1, 1, 0, 0, 1, 1],
        [1, 1, 0, 0, 1, 1],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1, 1],
    ]
    arguments = [1] * 6, [1, 1, 2, 2, 0, 0], [0, 0, 0, 0, 1, 1]
    assert _visible(*arguments) == matrix
    assert _visible(*arguments, direction="prefix") == matrix


def test_prefix_hides_a_plain_text_from_the_picture():
    assert _visible([1, 1, 1], [0, 0, 0], [0, 0, 1], direction="prefix") == [
        [1, 1, 1],
        [1, 1, 1],
        [0, 0, 1],
    ]


def test_a_stretch_is_the_whole_matrix_cut_out():
    rng = np.random.default_rng(0)
    visibility = Visibility(
        segments=rng.integers(0, 3, (2, 7), np.int32),
        part=rng.integers(0, 3, (2, 7), np.int32),
        modality=rng.integers(0, 2, (2, 7), np.int32),
        direction="prefix",
    )
    np.testing.assert_array_equal(visibility.mask(slice(1, 4), slice(3, 7)), np.asarray(visibility.mask())[:, 1:4, 3:7])
