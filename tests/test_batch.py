"""The contract of shapes: what `make_batch` fills in, and what `check_batch` says about a batch that does not fit."""

from __future__ import annotations

import contextlib
import dataclasses
import re

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from singlestream.batch import (
    BatchError,
    Patches,
    Regions,
    Text,
    check_batch,
    count_positions,
    make_batch,
    without_image,
)


@contextlib.contextmanager
def unchecked():
    """Without the shape checks of the tests: what a user meets who hands over the wrong array."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def ints(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.int32)


def patches(batch: int = 2, num: int = 4, size: int = 12) -> Patches:
    zeros = np.zeros((batch, num, 2), np.int32)
    return Patches(pixels=np.zeros((batch, num, size), np.uint8), yx=zeros, grid=zeros + 2)


def test_the_plain_case_is_one_example_a_row():
    batch = make_batch(text=Text(ids=ints([5, 6, 7], [8, 9, 0])), image=patches())
    assert batch.text.positions.tolist() == [[0, 1, 2]] * 2
    assert batch.text.segments.tolist() == [[1, 1, 1]] * 2
    assert batch.text.part.tolist() == batch.text.types.tolist() == [[0, 0, 0]] * 2
    assert batch.image.segments.tolist() == [[1, 1, 1, 1]] * 2
    assert batch.image.part.tolist() == batch.image.index.tolist() == [[0, 0, 0, 0]] * 2
    assert batch.examples.tolist() == [[[1, 0]], [[1, 0]]]
    assert batch.example_mask.tolist() == [[True], [True]]
    assert batch.picture[0, 0] != batch.picture[1, 0]


def test_packed_examples_and_shared_pictures():
    text = Text(
        ids=ints([1, 2, 3, 4, 5, 0], [1, 2, 3, 4, 0, 0]),
        segments=ints([2, 2, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]),
        part=ints([0, 0, 0, 0, 0, 0], [1, 1, 2, 2, 0, 0]),
    )
    batch = make_batch(text=text, targets={"answer": ints([0, 1], [2, 3])})
    # In the order in which the texts begin, which need not be that of the segments.
    assert batch.examples.tolist() == [[[2, 0], [1, 0]], [[1, 1], [1, 2]]]
    assert batch.text.positions.tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 0, 1, 0, 0]]
    first, second = batch.picture.tolist()
    assert first[0] != first[1] and second[0] == second[1] and second[0] not in first
    assert batch.targets["answer"].tolist() == [[0, 1], [2, 3]]


def test_rows_with_fewer_examples_are_masked():
    text = Text(ids=ints([1, 2], [3, 0], [0, 0]), segments=ints([1, 2], [1, 0], [0, 0]))
    batch = make_batch(text=text)
    assert batch.example_mask.tolist() == [[True, True], [True, False], [False, False]]
    assert batch.picture[~batch.example_mask].tolist() == [0, 0, 0]
    assert batch.examples[~batch.example_mask].tolist() == [[0, 0]] * 3


def test_text_alone_has_an_image_of_no_tokens():
    batch = make_batch(text=Text(ids=ints([1, 2])))
    assert batch.image.features.shape == (1, 0, 0)
    assert batch.image.segments.shape == (1, 0)


def test_regions_without_boxes_cover_the_picture():
    batch = make_batch(text=Text(ids=ints([1])), image=Regions(features=np.ones((1, 2, 3), np.float32)))
    assert batch.image.boxes.tolist() == [[[0, 0, 1, 1]] * 2]
    boxes = np.full((1, 2, 4), 0.5, np.float32)
    batch = make_batch(text=Text(ids=ints([1])), image=dataclasses.replace(batch.image, boxes=boxes))
    assert np.array_equal(batch.image.boxes, boxes)


def test_words_of_regions_are_kept_where_there_are_any():
    text, features = Text(ids=ints([1, 2])), np.ones((1, 2, 3), np.float32)
    plain = make_batch(text=text, image=Regions(features=features))
    assert plain.image.words is None
    with unchecked():
        aligned = make_batch(text=text, image=Regions(features=features, words=np.array([[[0, 1, -1], [-1, -1, -1]]])))
    assert aligned.image.words.dtype == np.int32 and aligned.image.words.tolist() == [[[0, 1, -1], [-1, -1, -1]]]
    assert len(jax.tree.leaves(aligned)) == len(jax.tree.leaves(plain)) + 1
    with pytest.raises(BatchError, match=r"image.words is int32\[1, 2\], expected int32\[1, 2, any\]"):
        check_batch(wrong(aligned, image_words=ints([1, 2])))


def test_what_was_given_is_kept():
    given_text = Text(ids=ints([1, 2]), positions=ints([7, 8]), types=ints([0, 1]), part=ints([1, 2]), slots=2)
    image = dataclasses.replace(patches(1, 2), index=ints([0, 1]))
    batch = make_batch(text=given_text, image=image, picture=ints([42, 42]))
    assert batch.text.positions.tolist() == [[7, 8]]
    assert batch.text.types.tolist() == [[0, 1]]
    assert batch.text.slots == 2
    assert batch.image.index.tolist() == [[0, 1]]
    assert batch.picture.tolist() == [[42, 42]]


def test_integers_of_any_width_become_int32_and_jax_arrays_stay():
    with unchecked():
        image = dataclasses.replace(patches(1, 1), yx=np.zeros((1, 1, 2), np.int64))
        batch = make_batch(text=Text(ids=np.array([[1, 2]]), segments=jnp.ones((1, 2), jnp.int32)), image=image)
    assert batch.text.ids.dtype == batch.image.yx.dtype == np.int32
    assert isinstance(batch.text.segments, jax.Array)


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=5, max_size=5), min_size=1))
def test_positions_count_within_each_text(rows):
    segments, part = np.moveaxis(np.array(rows, np.int32), -1, 0)
    expected = np.zeros_like(segments)
    for b, row in enumerate(rows):
        seen: dict[tuple[int, int], int] = {}
        for t, token in enumerate(row):
            if token[0]:
                expected[b, t] = seen.get(token, 0)
                seen[token] = expected[b, t] + 1
    assert np.array_equal(count_positions(segments, part), expected)


@pytest.mark.parametrize(
    ("segments", "part"), [([1, 1, 1, 2], [0, 0, 0, 0]), ([1, 1, 1, 1], [1, 2, 2, 2]), ([1, 1, 1, 1], [0, 1, 2, 2])]
)
def test_slots_that_a_text_crosses_are_refused(segments, part):
    """In the last case no text lies in two slots, but the shared first token is seen from the other one."""
    with pytest.raises(BatchError, match=r"text.slots=2 .* in row 0 token \d of slot \d sees token \d of slot \d"):
        make_batch(text=Text(ids=ints([1, 2, 3, 4]), segments=ints(segments), part=ints(part), slots=2))
    make_batch(text=Text(ids=ints([1, 2, 3, 4]), segments=ints([1, 1, 2, 0]), part=ints(part), slots=1))


def test_edges_number_the_tokens_of_a_row():
    text, image = Text(ids=ints([1, 2], [3, 4])), patches()  # tokens 0 to 5
    edges = np.array([[[0, 5], [-1, -1]], [[5, -2], [3, 3]]], np.int32)
    assert make_batch(text=text, image=image, targets={"edges": edges}).targets["edges"] is edges
    for wrong in ([0, 6], [6, -2], [-1, 0], [0, -1], [0, -3], [-2, 0], [-1, -2]):
        edges[1, 1] = wrong
        with pytest.raises(BatchError, match=f"edge 1 of row 1 is {re.escape(str(wrong))}, .* are 0 to 5"):
            make_batch(text=text, image=image, targets={"edges": edges})
    with pytest.raises(BatchError, match=r"is int64\[2, 2\], expected int32\[B, any, 2\]"):
        make_batch(text=text, image=image, targets={"edges": np.zeros((2, 2), np.int64)})


def test_replace_changes_inputs_and_fields():
    batch = make_batch(text=Text(ids=ints([1, 2])), image=patches(1))
    other = dataclasses.replace(batch.text, ids=ints([3, 4]))
    changed = batch.replace(text=other, picture=ints([9]))
    assert changed.text.ids.tolist() == [[3, 4]] and changed.picture.tolist() == [[9]]
    assert changed.image is batch.image and batch.text.ids.tolist() == [[1, 2]]


def test_without_image_hides_every_image_token():
    batch = make_batch(text=Text(ids=ints([1, 2])), image=patches(1))
    assert not without_image(batch).image.segments.any()
    assert without_image(batch).text is batch.text


def test_batches_are_pytrees():
    text = Text(ids=ints([1, 2]), segments=ints([1, 2]), slots=2)
    batch = make_batch(text=text, image=patches(1), targets={"answer": ints([3])})
    leaves, treedef = jax.tree.flatten(batch)
    assert all(isinstance(leaf, np.ndarray) for leaf in leaves)
    again = jax.tree.unflatten(treedef, leaves)
    assert again.text.slots == 2 and again.targets["answer"] is batch.targets["answer"]
    # Leaves may be no arrays at all.
    assert jax.tree.map(lambda x: x.shape, batch).text.ids == (1, 2)
    paths = ["".join(map(str, path)) for path, _ in jax.tree_util.tree_leaves_with_path(batch)]
    assert ".inputs['text'].ids" in paths
    assert "slots" not in "".join(paths)


def test_check_batch_works_while_jax_traces():
    def ids(batch):
        check_batch(batch)
        return batch.text.ids

    assert jax.eval_shape(ids, make_batch(text=Text(ids=ints([1, 2])))).shape == (1, 2)


def wrong(batch, **fields):
    """The batch with some fields of its text or image (`image_yx=`) or of its own replaced by what does not fit."""
    for name, value in fields.items():
        room, _, field = name.partition("_")
        with unchecked():
            if room in ("text", "image"):
                part = dataclasses.replace(getattr(batch, room), **{field: value})
                batch = batch.replace(**{room: part})
            else:
                batch = dataclasses.replace(batch, **{name: value})
    return batch


MISFITS = [
    ({"text_ids": np.zeros((2, 3), np.float32)}, "text.ids is float32[2, 3], expected int32[2, 3]"),
    ({"text_types": None}, "text.types is missing, expected int32[2, 3] (make_batch fills it)"),
    ({"text_positions": np.zeros((2, 4), np.int32)}, "text.positions is int32[2, 4], expected int32[2, 3]"),
    ({"text_slots": 2}, "text.slots is 2, expected a divisor of the 3 text tokens"),
    ({"text_slots": 0}, "text.slots is 0, expected a divisor of the 3 text tokens"),
    (
        {"image_pixels": np.zeros((2, 4, 12), np.float32)},
        "image.pixels is float32[2, 4, 12], expected uint8[2, 4, any]",
    ),
    ({"image_pixels": np.zeros((2, 4), np.uint8)}, "image.pixels is uint8[2, 4], expected uint8[2, 4, any]"),
    ({"image_yx": np.zeros((2, 4), np.int32)}, "image.yx is int32[2, 4], expected int32[2, 4, 2]"),
    ({"image_segments": np.zeros((3, 4), np.int32)}, "image.segments is int32[3, 4], expected int32[2, 4]"),
    ({"examples": np.zeros((1, 1, 2), np.int32)}, "examples is int32[1, 1, 2], expected int32[2, 1, 2]"),
    ({"example_mask": np.zeros((2, 1), np.int32)}, "example_mask is int32[2, 1], expected bool[2, 1]"),
    ({"picture": np.zeros((2,), np.int32)}, "picture is int32[2], expected int32[2, 1]"),
]


@pytest.mark.parametrize(
    ("fields", "message"), MISFITS, ids=[next(iter(f)) + str(i) for i, (f, _) in enumerate(MISFITS)]
)
def test_misfits_are_named(fields, message):
    batch = make_batch(text=Text(ids=ints([1, 2, 3], [4, 5, 6])), image=patches())
    check_batch(batch)
    with pytest.raises(BatchError) as caught:
        check_batch(wrong(batch, **fields))
    assert str(caught.value) == f"the batch does not fit the model's input: {message}"


def test_every_misfit_is_named_at_once():
    batch = make_batch(text=Text(ids=ints([1, 2])), image=Regions(features=np.ones((1, 2, 3), np.float32)))
    batch = wrong(batch, text_part=None, image_boxes=np.zeros((1, 2, 5), np.float32), image_features=ints([1, 2]))
    with pytest.raises(
        BatchError, match=r"text\.part is missing.*; image\.features is .*; image\.boxes is .*\[1, 2, 5\]"
    ):
        check_batch(batch)


def test_make_batch_names_fields_of_the_wrong_rank():
    with unchecked():
        with pytest.raises(BatchError, match=r"text.ids: expected \[B, T\] of int32, got shape \(3,\)"):
            make_batch(text=Text(ids=np.zeros(3, np.int32)))
        flat = dataclasses.replace(patches(), pixels=np.zeros((2, 4), np.uint8))
        with pytest.raises(BatchError, match=r"image.pixels: expected \[B, N, size\], got shape \(2, 4\)"):
            make_batch(text=Text(ids=ints([1], [2])), image=flat)
        with pytest.raises(BatchError, match=r"image.features: expected \[B, N, size\], got shape \(2,\)"):
            make_batch(text=Text(ids=ints([1], [2])), image=Regions(features=np.zeros(2, np.float32)))
        with pytest.raises(BatchError, match="text.ids is float64"):
            make_batch(text=Text(ids=np.zeros((1, 2))))


def test_shapes_are_checked_while_the_tests_run():
    with pytest.raises(jaxtyping.TypeCheckError):
        Text(ids=np.zeros((1, 2), np.float32))
    with pytest.raises(jaxtyping.TypeCheckError):
        Text(ids=ints([1, 2]), part=ints([1, 2, 3]))
