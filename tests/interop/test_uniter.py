"""UNITER against what its authors' code gave for the numbers of `uniter_recipe` (`golden/make_uniter.py`)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest

from singlestream.batch import Batch, Regions, Text, make_batch
from singlestream.interop.build import find_plan
from singlestream.interop.rules import WeightsError
from tests.interop import uniter_recipe as recipe
from tests.interop.compare import (
    DOUBLE,
    SINGLE,
    Held,
    Precision,
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
from tests.interop.golden_files import check_trained, golden, layers, make, part, shapes_of

NAME = "uniter"


def ours(size: str, kind: str, dtype: str = "float32"):
    tensors = held(recipe.weights(shapes_of(NAME, f"{size}/{kind}")), dtype)
    return *make(tensors, recipe.SIZES[size]), tensors


def batch_of(dtype: str) -> Batch:
    given = recipe.inputs()
    ids, text, image = (given[name].astype(np.int32) for name in ("ids", "text", "image"))
    columns = np.broadcast_to(np.arange(recipe.WORDS, dtype=np.int32), ids.shape)
    features, boxes = (given[name].astype(dtype) for name in ("features", "boxes"))
    return make_batch(
        text=Text(ids=ids, segments=text, positions=columns),
        image=Regions(features=features, boxes=boxes, segments=image),
    )


def check_outputs(size: str, kind: str, precision: Precision) -> None:
    """Every layer's states and every head's logits, at every token that is none of padding."""
    module, _, _ = ours(size, kind, precision.dtype)
    batch, case = batch_of(precision.dtype), f"{size}/{kind}"
    encoded, logits = jitted(outputs, module, batch)
    seen = {"text": batch.text.segments > 0, "image": batch.image.segments > 0}
    both = np.concatenate(list(seen.values()), 1)
    check_states(encoded.hidden, layers(NAME, f"{case}/states/"), both, precision.outputs)
    close(encoded.pooled[:, 0], golden(NAME)[f"{case}/states/pooled"], precision.outputs, "pooled")
    expected = part(NAME, f"{case}/logits/")
    assert expected.keys() == logits.keys()
    check_heads(module, logits, expected, seen, precision.outputs)


def loss_of(module: Any, kind: str, batch: Batch) -> Any:
    """The authors' losses."""
    (_, logits), want = outputs(module, batch), recipe.targets()
    if kind == "vqa":
        return binary(logits["vqa"][:, 0], want["vqa"]).mean() * recipe.ANSWERS
    if kind == "retrieval":
        scores = jax.nn.sigmoid(logits["retrieval"].reshape(-1, 2))
        return jax.nn.relu(0.2 + scores[:, 1] - scores[:, 0]).mean()
    divergence = (want["objects"] * (np.log(want["objects"]) - jax.nn.log_softmax(logits["objects"]))).sum(-1)
    loss = cross_entropy(logits["mlm"], want["words"]) + cross_entropy(logits["itm"][:, 0], want["match"])
    return loss + (divergence * want["regions"]).sum() / want["regions"].sum()


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
    for precision in (SINGLE, DOUBLE):
        with precision.enabled():
            module, plan, _ = ours(size, kind, precision.dtype)
            loss = functools.partial(loss_of, kind=kind, batch=batch_of(precision.dtype))
            check_trained(module, plan, loss, NAME, f"{size}/{kind}", precision)


def test_a_token_type_for_each_picture_of_a_pair_is_refused():
    tensors = ours("odd", "grounding")[2]
    name = "uniter.embeddings.token_type_embeddings.weight"
    three = {**tensors, name: np.zeros((3, 21), np.float32).view(Held)}
    with pytest.raises(WeightsError, match="3 token types.* not built here"):
        find_plan(three, recipe.SIZES["odd"], where="the test")
