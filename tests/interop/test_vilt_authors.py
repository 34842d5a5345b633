"""ViLT against what its authors' code gave for the numbers of `vilt_authors_recipe` (`golden/make_vilt_authors.py`)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import singlestream as ss
from singlestream.batch import Batch, Patches, Text, make_batch
from singlestream.interop.build import find_plan
from singlestream.interop.rules import WeightsError
from tests.interop import vilt_authors_recipe as recipe
from tests.interop.compare import (
    DOUBLE,
    SINGLE,
    Precision,
    beside,
    binary,
    check_heads,
    check_states,
    check_written,
    close,
    cross_entropy,
    held,
    jitted,
    outputs,
)
from tests.interop.golden_files import GOLDEN, check_trained, golden, layers, make, part, shapes_of

NAME = "vilt_authors"


def tensors_of(size: str, kind: str, dtype: str = "float32") -> dict[str, Any]:
    """The file; the positions are a buffer that the authors' files have."""
    weights = recipe.weights(shapes_of(NAME, f"{size}/{kind}"))
    return held({**weights, "text_embeddings.position_ids": np.arange(recipe.LENGTH)[None]}, dtype)


def ours(size: str, kind: str, dtype: str = "float32"):
    tensors = tensors_of(size, kind, dtype)
    return *make(tensors, {"num_heads": recipe.SIZES[size]["num_heads"]}), tensors


def words() -> Text:
    given = {name: value.astype(np.int32) for name, value in recipe.inputs().items()}
    columns = np.broadcast_to(np.arange(recipe.WORDS, dtype=np.int32), given["ids"].shape)
    return Text(ids=given["ids"], segments=given["text"], positions=columns)


def patches(picture: int) -> Patches:
    rows, columns, size = recipe.HEIGHT, recipe.WIDTH, recipe.PATCH
    pixels = recipe.pixels(picture).astype(np.uint8)
    windows = pixels.reshape(recipe.ROWS, rows, size, columns, size, 3).transpose(0, 1, 3, 2, 4, 5)
    seen = recipe.mask(picture).reshape(recipe.ROWS, -1)
    place = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(1, -1, 2)
    return Patches(
        pixels=windows.reshape(recipe.ROWS, rows * columns, -1),
        yx=np.where(seen[..., None], place, 0).astype(np.int32),
        grid=np.broadcast_to(recipe.GRIDS[picture][:, None], (*seen.shape, 2)).astype(np.int32),
        index=np.full(seen.shape, picture, np.int32),
        segments=seen.astype(np.int32),
    )


def batch_of(kind: str) -> Batch:
    """One picture an example; of NLVR2 two examples a row, whose text is the same."""
    if kind != "nlvr2":
        return make_batch(text=words(), image=patches(0))
    return make_batch(text=beside(words(), words()), image=beside(patches(0), patches(1)))


def states_and_logits(module: Any, one: Batch, batch: Batch) -> tuple[Any, dict[str, Any]]:
    """States of one picture an example; logits of the kind's own batch."""
    return module(one), outputs(module, batch)[1]


def check_outputs(size: str, kind: str, precision: Precision) -> None:
    """Every layer's states and every head's logits, at every token that is none of padding."""
    module, _, _ = ours(size, kind, precision.dtype)
    one, case = batch_of("one picture"), f"{size}/{kind}"
    encoded, logits = jitted(states_and_logits, module, one, batch_of(kind))
    seen = {"text": one.text.segments > 0, "image": one.image.segments > 0}
    class_token = np.ones((recipe.ROWS, 1), bool)
    every = np.concatenate([*seen.values(), class_token], 1)
    check_states(encoded.hidden, layers(NAME, f"{case}/states/"), every, precision.outputs)
    close(encoded.pooled[:, 0], golden(NAME)[f"{case}/pooled"], precision.outputs, "pooled")
    expected = part(NAME, f"{case}/logits/")
    assert expected.keys() == logits.keys()
    check_heads(module, logits, expected, seen, precision.outputs)


def loss_of(module: Any, kind: str, batch: Batch) -> Any:
    """The authors' losses."""
    (_, logits), want = outputs(module, batch), recipe.targets()
    if kind == "pretraining":
        loss = cross_entropy(logits["mlm"], want["words"]) + cross_entropy(logits["mpp"], want["colours"])
        return loss + cross_entropy(logits["itm"][:, 0], want["match"])
    if kind == "vqa":
        return binary(logits["vqa"][:, 0], want["vqa"]).mean() * recipe.ANSWERS
    if kind == "irtr":
        return cross_entropy(logits["retrieval"].reshape(1, -1), want["rank"])
    return cross_entropy(logits["nlvr2"][:, 0], want["nlvr2"])


@pytest.mark.parametrize(("size", "kind"), recipe.CASES)
def test_a_file_comes_back_bit_for_bit(size, kind):
    check_written(*ours(size, kind))


@pytest.mark.parametrize(("size", "kind"), [case for case in recipe.CASES if case not in recipe.TRAINED])
def test_every_layer_and_head_is_the_authors(size, kind):
    for precision in (SINGLE, DOUBLE):
        with precision.enabled():
            check_outputs(size, kind, precision)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "kind"), recipe.TRAINED)
def test_training_is_the_authors(size, kind):
    check_outputs(size, kind, SINGLE)
    loss = functools.partial(loss_of, kind=kind, batch=batch_of(kind))
    for precision in (SINGLE, DOUBLE):
        with precision.enabled():
            module, plan, _ = ours(size, kind, precision.dtype)
            check_trained(module, plan, loss, NAME, f"{size}/{kind}", precision)


def test_lightnings_file_loads():
    """Callbacks and optimiser lie beside the weights, their classes are nowhere; the heads are in the settings."""
    model = ss.load(GOLDEN / "vilt_authors.ckpt")
    assert (model.plan.family, model.plan.dialect, model.plan.config.num_heads) == ("vilt", "authors", 2)
    check_written(model.module, model.plan, tensors_of(*recipe.CHECKPOINT))


def test_heads_are_64_wide_as_published_where_nothing_says_otherwise():
    tensors = tensors_of("odd", "pretraining")
    assert find_plan(tensors, None, where="the test").config.num_heads == 1
    with pytest.raises(WeightsError, match="num_heads=4: expected a divisor of the width 21"):
        find_plan(tensors, {"num_heads": 4}, where="the test")
    with pytest.raises(WeightsError, match="drop_rate=1: expected a number in"):
        find_plan(tensors, {"drop_rate": 1}, where="the test")
