"""VisualBERT against what its authors' code gave for the numbers of `visualbert_authors_recipe`
(`golden/make_visualbert_authors.py`).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import singlestream as ss
from singlestream.batch import Batch, Regions, Text, make_batch
from tests.interop import visualbert_authors_recipe as recipe
from tests.interop.compare import (
    DOUBLE,
    SINGLE,
    Precision,
    check_heads,
    check_states,
    check_written,
    close,
    cross_entropy,
    held,
    jitted,
    outputs,
    same_logits,
)
from tests.interop.golden_files import GOLDEN, check_trained, golden, layers, make, part, shapes_of

NAME = "visualbert_authors"


def ours(size: str, kind: str, dtype: str = "float32"):
    tensors = held(recipe.weights(shapes_of(NAME, f"{size}/{kind}")), dtype)
    heads = recipe.SIZES[size]["num_attention_heads"]
    return *make(tensors, {"num_attention_heads": heads}), tensors


def batch_of(kind: str, dtype: str) -> Batch:
    """NLVR2's two pictures lie in one sequence, and are told apart by `index`."""
    given = recipe.inputs()
    ids, types, text, image, picture = (
        given[name].astype(np.int32) for name in ("ids", "types", "text", "image", "picture")
    )
    index = picture if kind == "nlvr" else np.zeros_like(picture)
    return make_batch(
        text=Text(ids=ids, types=types, segments=text),
        image=Regions(
            features=given["features"].astype(dtype),
            segments=image,
            index=index,
            words=given["words"].astype(np.int32) if kind == "late" else None,
        ),
    )


def run(module: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
    """States and logits; those of phrases at the places of the authors' `flickr_position`."""
    encoded, logits = outputs(module, batch)
    if "phrase" in logits:
        places = np.maximum(recipe.targets()["places"], 0)
        logits["phrase"] = jnp.take_along_axis(logits["phrase"], places[..., None], 1)
    return encoded, logits


def check_outputs(size: str, kind: str, precision: Precision) -> None:
    """Every layer's states and every head's logits, at every token that is none of padding."""
    module, _, _ = ours(size, kind, precision.dtype)
    batch, case = batch_of(kind, precision.dtype), f"{size}/{kind}"
    encoded, logits = jitted(run, module, batch)
    text, image = batch.text.segments > 0, batch.image.segments > 0
    check_states(encoded.hidden, layers(NAME, f"{case}/states/"), np.concatenate([text, image], 1), precision.outputs)
    close(encoded.pooled[:, 0], golden(NAME)[f"{case}/states/pooled"], precision.outputs, "pooled")
    expected = part(NAME, f"{case}/logits/")
    if kind == "flickr":
        both = (recipe.targets()["places"] >= 0)[..., None] & image[:, None]
        close(np.asarray(logits["phrase"])[both], expected["phrase"][both], precision.outputs, "phrase")
    elif kind == "multichoice":
        same_logits(logits["choice"].reshape(1, -1), expected["choice"], precision.outputs, "choice")
    else:
        expected = {
            name: value if name == "mlm" else value.reshape(recipe.ROWS, -1) for name, value in expected.items()
        }
        check_heads(module, logits, expected, {"text": text}, precision.outputs)


def loss_of(module: Any, kind: str, batch: Batch) -> Any:
    """The authors' losses."""
    (_, logits), want = run(module, batch), recipe.targets()
    if kind in ("pretraining", "late"):
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
            loss = functools.partial(loss_of, kind=kind, batch=batch_of(kind, precision.dtype))
            check_trained(module, plan, loss, NAME, f"{size}/{kind}", precision)


def test_a_file_of_2019_loads():
    """Torch's format before 1.6; the decoder of words is the same storage as their table."""
    model = ss.load(GOLDEN / "visualbert_authors.th")
    assert (model.plan.family, model.plan.dialect) == ("visualbert", "authors")
    check_written(model.module, model.plan, ours(*recipe.FILE)[2])
