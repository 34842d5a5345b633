import numpy as np
import pytest

from singlestream.batch import EXTRA, IMAGE, TEXT
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


# Who may read whom, of (reader's modality, read modality), beside itself; by name, or in a layer of `multi_hop`.
WITHIN, TO_IMAGE, TO_TEXT = {(kind, kind) for kind in (TEXT, IMAGE, EXTRA)}, {(TEXT, IMAGE)}, {(IMAGE, TEXT)}
ACROSS = [
    ("text_to_image", 0, TO_IMAGE),
    ("image_to_text", 0, TO_TEXT),
    ("both", 0, TO_IMAGE | TO_TEXT),
    ("bottleneck", 0, WITHIN | {(a, b) for a in range(3) for b in range(3) if EXTRA in (a, b)}),
    ("multi_hop", 0, WITHIN),
    ("multi_hop", 1, TO_IMAGE),
    ("multi_hop", 2, TO_TEXT),
    ("multi_hop", 3, TO_IMAGE),
]


@pytest.mark.parametrize(("direction", "layer", "allowed"), ACROSS)
def test_what_passes_between_the_modalities(direction, layer, allowed):
    """Against a plain loop, over every mixture of segments, parts and modalities."""
    rng = np.random.default_rng(0)
    segments, part, modality = (rng.integers(0, size, 40, np.int32) for size in (3, 3, 3))
    token = np.arange(40, dtype=np.int32)[None]
    found = _visible(
        segments, part, modality, direction=direction, token=token, hops=3, depth=4, layer=np.array(layer, np.int32)
    )
    for q in range(40):
        for k in range(40):
            own = segments[q] == segments[k] != 0 and part[k] in (0, part[q])
            assert found[q][k] == (own and (q == k or (modality[q], modality[k]) in allowed)), (q, k)


def test_what_a_direction_has_to_know_is_asked_for():
    row = [1, 1], [0, 0], [0, 1]
    with pytest.raises(ValueError, match="direction='both' needs to know each token's own key: give `token`"):
        _visible(*row, direction="both")
    with pytest.raises(ValueError, match="direction='multi_hop' says who sees whom in a layer"):
        _visible(*row, direction="multi_hop", token=np.array([[0, 1]], np.int32))
