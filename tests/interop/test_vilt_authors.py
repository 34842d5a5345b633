"""ViLT against what its authors' code gave for the numbers of `vilt_authors_recipe` (`golden/make_vilt_authors.py`)."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import singlestream as ss
from singlestream.batch import Batch, Patches, Text, make_batch
from singlestream.interop.build import find_plan
from singlestream.interop.rules import WeightsError
from tests.interop import vilt_authors_recipe as recipe
from tests.interop.golden_files import (
    GOLDEN,
    STEPS,
    binary,
    check_training,
    check_written,
    close,
    cross_entropy,
    golden,
    held,
    make,
    part,
    same_logits,
    shapes_of,
)

NAME = "vilt_authors"


def tensors_of(size: str, kind: str, dtype: Any = np.float32) -> dict[str, Any]:
    """The file; the positions are a buffer that the authors' files have."""
    weights = recipe.weights(shapes_of(NAME, f"{size}/{kind}"))
    return held({**weights, "text_embeddings.position_ids": np.arange(recipe.LENGTH)[None]}, dtype)


def ours(size: str, kind: str, dtype: Any = np.float32):
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

    def beside(name: str, *values: Any) -> np.ndarray:
        return np.concatenate([(1 + i * (name == "segments")) * value for i, value in enumerate(values)], 1)

    text, images = words(), (patches(0), patches(1))
    return make_batch(
        text=Text(**{n: beside(n, *[getattr(text, n)] * 2) for n in ("ids", "segments", "positions")}),
        image=Patches(
            **{n: beside(n, *(getattr(i, n) for i in images)) for n in ("pixels", "yx", "grid", "index", "segments")}
        ),
    )


def check_outputs(size: str, kind: str, dtype: Any, tolerance: float) -> None:
    """Every layer's states and every head's logits, at every token that is none of padding."""
    module, _, _ = ours(size, kind, dtype)
    graph, params = nnx.split(module)

    @jax.jit
    def run(params: Any, one: Batch, batch: Batch) -> Any:
        module = nnx.merge(graph, params)
        encoded, found = module(one), module(batch)
        return encoded, {name: head(found) for name, head in module.heads.items()}

    one, case = batch_of("one picture"), f"{size}/{kind}"
    encoded, logits = run(params, one, batch_of(kind))
    class_token = np.ones((recipe.ROWS, 1), bool)
    seen = np.concatenate([one.text.segments > 0, one.image.segments > 0, class_token], 1)
    expected = part(NAME, f"{case}/states/")
    assert len(encoded.hidden) == len(expected) == recipe.SIZES[size]["num_layers"]
    for i, states in enumerate(encoded.hidden):
        close(np.asarray(states)[seen], expected[str(i)][seen], tolerance, f"layer {i}")
    close(encoded.pooled[:, 0], golden(NAME)[f"{case}/pooled"], tolerance, "pooled")
    wanted = part(NAME, f"{case}/logits/")
    assert wanted.keys() == logits.keys()
    of_tokens = {"mlm": one.text.segments > 0, "mpp": one.image.segments > 0}
    for name, reference in wanted.items():
        mine = np.asarray(logits[name])
        if name in of_tokens:
            same_logits(mine[of_tokens[name]], reference[of_tokens[name]], tolerance, name)
        else:
            same_logits(mine[:, 0], reference, tolerance, name)


def loss_of(module: Any, kind: str, batch: Batch) -> Any:
    encoded, want = module(batch), recipe.targets()
    logits = {name: head(encoded) for name, head in module.heads.items()}
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
    check_outputs(size, kind, np.float32, 2e-5)
    with jax.enable_x64(True):
        check_outputs(size, kind, np.float64, 1e-10)


@pytest.mark.parametrize(("size", "kind"), recipe.TRAINED)
def test_training_is_the_authors(size, kind):
    check_outputs(size, kind, np.float32, 2e-5)
    module, plan, _ = ours(size, kind)
    batch, case = batch_of(kind), f"{size}/{kind}"
    check_training(module, plan, lambda module: loss_of(module, kind, batch), NAME, case, tolerance=1e-4)
    with jax.enable_x64(True):
        module, plan, _ = ours(size, kind, np.float64)
        check_training(
            module, plan, lambda module: loss_of(module, kind, batch), NAME, case, tolerance=1e-8, steps=STEPS
        )


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
