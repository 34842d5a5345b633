"""VisualBERT against what its authors' code gave for the numbers of `visualbert_authors_recipe`
(`golden/make_visualbert_authors.py`).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import singlestream as ss
from singlestream.batch import Batch, Regions, Text, make_batch
from tests.interop import visualbert_authors_recipe as recipe
from tests.interop.golden_files import (
    GOLDEN,
    STEPS,
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

NAME = "visualbert_authors"


def ours(size: str, kind: str, dtype: Any = np.float32):
    tensors = held(recipe.weights(shapes_of(NAME, f"{size}/{kind}")), dtype)
    heads = recipe.SIZES[size]["num_attention_heads"]
    return *make(tensors, {"num_attention_heads": heads}), tensors


def batch_of(kind: str, dtype: Any = np.float32) -> Batch:
    """NLVR2's two pictures lie in one sequence, and are told apart by `index`."""
    given = recipe.inputs()
    ids, types, text, image, picture = (
        given[name].astype(np.int32) for name in ("ids", "types", "text", "image", "picture")
    )
    index = picture if kind == "nlvr" else np.zeros_like(picture)
    return make_batch(
        text=Text(ids=ids, types=types, segments=text),
        image=Regions(features=given["features"].astype(dtype), segments=image, index=index),
    )


def run(module: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
    """States and logits; those of phrases at the places of the authors' `flickr_position`."""
    encoded = module(batch)
    logits = {name: head(encoded) for name, head in module.heads.items()}
    if "phrase" in logits:
        places = np.maximum(recipe.targets()["places"], 0)
        logits["phrase"] = jnp.take_along_axis(logits["phrase"], places[..., None], 1)
    return encoded, logits


def check_outputs(size: str, kind: str, dtype: Any, tolerance: float) -> None:
    """Every layer's states and every head's logits, at every token that is none of padding."""
    module, _, _ = ours(size, kind, dtype)
    graph, params = nnx.split(module)
    batch, case = batch_of(kind, dtype), f"{size}/{kind}"
    encoded, logits = jax.jit(lambda params, batch: run(nnx.merge(graph, params), batch))(params, batch)
    expected = part(NAME, f"{case}/states/")
    close(encoded.pooled[:, 0], expected.pop("pooled"), tolerance, "pooled")
    seen = np.concatenate([batch.text.segments, batch.image.segments], 1) > 0
    assert len(encoded.hidden) == len(expected) == recipe.SIZES[size]["num_hidden_layers"]
    for i, states in enumerate(encoded.hidden):
        close(np.asarray(states)[seen], expected[str(i)][seen], tolerance, f"layer {i}")
    for name, reference in part(NAME, f"{case}/logits/").items():
        mine = np.asarray(logits[name])
        if name == "phrase":
            both = (recipe.targets()["places"] >= 0)[..., None] & (batch.image.segments > 0)[:, None]
            close(mine[both], reference[both], tolerance, name)
        elif name == "mlm":
            words = batch.text.segments > 0
            same_logits(mine[words], reference[words], tolerance, name)
        elif name == "choice":
            same_logits(mine.reshape(1, -1), reference, tolerance, name)
        else:
            same_logits(mine[:, 0], reference.reshape(recipe.ROWS, -1), tolerance, name)


def loss_of(module: Any, kind: str, batch: Batch) -> Any:
    """The authors' losses."""
    (_, logits), want = run(module, batch), recipe.targets()
    if kind == "pretraining":
        return cross_entropy(logits["mlm"], want["words"]) + cross_entropy(logits["itm"][:, 0], want["match"])
    if kind == "nlvr":
        return cross_entropy(logits["nlvr2"][:, 0], want["nlvr"])
    if kind == "multichoice":
        return cross_entropy(logits["choice"].reshape(1, -1), want["multichoice"])
    target = want[kind]
    if kind == "vqa":
        chosen = logits["vqa"][:, 0]
    else:
        chosen = jnp.where((batch.image.segments > 0)[:, None], logits["phrase"], -10000.0)
    divergence = target * (np.log(np.where(target > 0, target, 1)) - jax.nn.log_softmax(chosen))
    return divergence.sum() / recipe.ROWS


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
    batch = batch_of(kind)
    check_training(module, plan, lambda module: loss_of(module, kind, batch), NAME, case, tolerance=1e-4)
    with jax.enable_x64(True):
        module, plan, _ = ours(size, kind, np.float64)
        wide = batch_of(kind, np.float64)
        check_training(
            module, plan, lambda module: loss_of(module, kind, wide), NAME, case, tolerance=1e-8, steps=STEPS
        )


def test_a_file_of_2019_loads():
    """Torch's format before 1.6; the decoder of words is the same storage as their table."""
    model = ss.load(GOLDEN / "visualbert_authors.th")
    assert (model.plan.family, model.plan.dialect) == ("visualbert", "authors")
    check_written(model.module, model.plan, ours(*recipe.FILE)[2])
