"""UNITER against what its authors' code gave for the numbers of `uniter_recipe` (`golden/make_uniter.py`)."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import Batch, Regions, Text, make_batch
from singlestream.interop.build import find_plan
from singlestream.interop.rules import WeightsError
from tests.interop import uniter_recipe as recipe
from tests.interop.golden_files import (
    STEPS,
    Held,
    binary,
    check_training,
    check_written,
    close,
    cross_entropy,
    held,
    make,
    part,
    same_logits,
    shapes_of,
)

NAME = "uniter"


def ours(size: str, kind: str, dtype: Any = np.float32):
    tensors = held(recipe.weights(shapes_of(NAME, f"{size}/{kind}")), dtype)
    return *make(tensors, recipe.SIZES[size]), tensors


def batch_of(dtype: Any = np.float32) -> Batch:
    given = recipe.inputs()
    ids, text, image = (given[name].astype(np.int32) for name in ("ids", "text", "image"))
    columns = np.broadcast_to(np.arange(recipe.WORDS, dtype=np.int32), ids.shape)
    features, boxes = (given[name].astype(dtype) for name in ("features", "boxes"))
    return make_batch(
        text=Text(ids=ids, segments=text, positions=columns),
        image=Regions(features=features, boxes=boxes, segments=image),
    )


def check_outputs(size: str, kind: str, dtype: Any, tolerance: float) -> None:
    """Every layer's states and every head's logits, at every token that is none of padding."""
    module, _, _ = ours(size, kind, dtype)
    graph, params = nnx.split(module)

    @jax.jit
    def run(params: Any, batch: Batch) -> Any:
        module = nnx.merge(graph, params)
        encoded = module(batch)
        return encoded, {name: head(encoded) for name, head in module.heads.items()}

    batch, case = batch_of(dtype), f"{size}/{kind}"
    encoded, logits = run(params, batch)
    expected = part(NAME, f"{case}/states/")
    close(encoded.pooled[:, 0], expected.pop("pooled"), tolerance, "pooled")
    seen = {"text": batch.text.segments > 0, "image": batch.image.segments > 0}
    both = np.concatenate(list(seen.values()), 1)
    assert len(encoded.hidden) == len(expected) == recipe.SIZES[size]["num_hidden_layers"]
    for i, states in enumerate(encoded.hidden):
        close(np.asarray(states)[both], expected[str(i)][both], tolerance, f"layer {i}")
    wanted = part(NAME, f"{case}/logits/")
    assert wanted.keys() == logits.keys()
    for name, reference in wanted.items():
        source, mine = module.heads[name].head.source, np.asarray(logits[name])
        mine, reference = (mine[seen[source]], reference[seen[source]]) if source in seen else (mine[:, 0], reference)
        same_logits(mine, reference, tolerance, name)


def loss_of(module: Any, kind: str, batch: Batch) -> Any:
    """The authors' losses."""
    encoded, want = module(batch), recipe.targets()
    logits = {name: head(encoded) for name, head in module.heads.items()}
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
    check_outputs(size, kind, np.float32, 2e-5)
    with jax.enable_x64(True):
        check_outputs(size, kind, np.float64, 1e-10)


@pytest.mark.parametrize(("size", "kind"), recipe.TRAINED)
def test_training_is_the_authors(size, kind):
    check_outputs(size, kind, np.float32, 2e-5)
    case = f"{size}/{kind}"
    module, plan, _ = ours(size, kind)
    check_training(module, plan, lambda module: loss_of(module, kind, batch_of()), NAME, case, tolerance=1e-4)
    with jax.enable_x64(True):
        module, plan, _ = ours(size, kind, np.float64)
        wide = batch_of(np.float64)
        check_training(
            module, plan, lambda module: loss_of(module, kind, wide), NAME, case, tolerance=1e-8, steps=STEPS
        )


def test_a_token_type_for_each_picture_of_a_pair_is_refused():
    tensors = ours("odd", "grounding")[2]
    name = "uniter.embeddings.token_type_embeddings.weight"
    three = {**tensors, name: np.zeros((3, 21), np.float32).view(Held)}
    with pytest.raises(WeightsError, match="3 token types.* not built here"):
        find_plan(three, recipe.SIZES["odd"], where="the test")
