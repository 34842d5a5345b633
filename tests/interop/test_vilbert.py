"""ViLBERT against what its authors' code gave for the numbers of `vilbert_recipe` (`golden/make_vilbert.py`).

The golden files hold the authors' states, logits, gradients and steps of AdamW in float64, and none of their code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from singlestream.batch import Batch, Regions, Text, make_batch
from singlestream.interop.build import find_plan
from singlestream.interop.rules import WeightsError
from singlestream.interop.vilbert_inputs import with_task, with_whole_picture
from tests.interop import vilbert_recipe as recipe
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
    paired,
)
from tests.interop.golden_files import check_trained, layers, make, part, shapes_of


def tensors_of(layout: str, size: str, kind: str, dtype: str = "float32") -> dict[str, Held]:
    return held(recipe.weights(shapes_of(f"vilbert_{layout}", f"{size}/{kind}")), dtype)


def ours(layout: str, size: str, kind: str, dtype: str = "float32"):
    """Our model of the recipe's file, its plan, and the file."""
    tensors = tensors_of(layout, size, kind, dtype)
    return *make(tensors, recipe.SIZES[size]), tensors


def batch_of(layout: str, size: str, kind: str, dtype: str) -> Batch:
    given = recipe.inputs()
    ids, types, text, image = (given[name].astype(np.int32) for name in ("ids", "types", "text", "image"))
    columns = np.broadcast_to(np.arange(recipe.WORDS, dtype=np.int32), ids.shape)
    words = Text(ids=ids, types=types, segments=text, positions=columns)
    if recipe.has_tasks(layout, size, kind):
        words = with_task(words, recipe.TASK, vocab_size=recipe.VOCABULARY)
    features, boxes = (given[name].astype(dtype) for name in ("features", "boxes"))
    return make_batch(text=words, image=Regions(features=features, boxes=boxes, segments=image))


def logits_of(module: Any, batch: Batch, both: Batch) -> tuple[Any, dict[str, Any]]:
    """States and every head's logits; `pairs` heads read `both`."""
    encoded = module(batch)
    pairs = module(both) if any(head.head.source == "pairs" for head in module.heads.values()) else None
    found = {n: head(pairs if head.head.source == "pairs" else encoded) for n, head in module.heads.items()}
    return encoded, found


def check_outputs(layout: str, size: str, kind: str, precision: Precision) -> None:
    """Every layer's states and every head's logits, at every token that is none of padding."""
    module, _, _ = ours(layout, size, kind, precision.dtype)
    batch = batch_of(layout, size, kind, precision.dtype)
    encoded, logits = jitted(logits_of, module, batch, paired(batch))
    seen = {"text": batch.text.segments > 0, "image": batch.image.segments > 0}
    name, case = f"vilbert_{layout}", f"{size}/{kind}"
    for stream, of_stream in seen.items():
        states = layers(name, f"{case}/states/{stream}/")
        check_states(encoded.hidden[stream], states, of_stream, precision.outputs, stream)
    text, image = layers(name, f"{case}/states/pooled/")
    fused = text + image if recipe.SIZES[size].get("fusion_method") == "sum" else text * image
    close(encoded.pooled[:, 0], fused, precision.outputs, "pooled")
    check_heads(module, logits, part(name, f"{case}/logits/"), seen, precision.outputs)


@pytest.mark.parametrize(
    ("layout", "size", "kind"),
    # The third and the last differ from the others in their heads alone, or are compared when they train.
    [pytest.param(*case, marks=[pytest.mark.slow] * (case in recipe.CASES[2::2])) for case in recipe.CASES],
)
def test_every_layer_and_head_is_the_authors(layout, size, kind):
    check_outputs(layout, size, kind, SINGLE)


@pytest.mark.parametrize(("layout", "size", "kind"), recipe.CASES)
def test_a_file_comes_back_bit_for_bit(layout, size, kind):
    check_written(*ours(layout, size, kind))


# ---- losses, gradients -----------------------------------------------------------------------------------------------


def pretraining_loss(logits: Mapping[str, Any], want: Mapping[str, np.ndarray], batch: Batch) -> Any:
    chosen = jax.nn.log_softmax(logits["objects"][:, 1:])  # the first region is the picture
    divergence = (want["objects"] * (np.log(want["objects"]) - chosen)).sum(-1)
    return (
        cross_entropy(logits["mlm"], want["words"])
        + (divergence * want["regions"]).sum() / want["regions"].sum()
        + cross_entropy(logits["itm"][:, 0], want["match"])
    )


def tasks_loss(logits: Mapping[str, Any], want: Mapping[str, np.ndarray], batch: Batch) -> Any:
    grounding = jnp.where(batch.image.segments > 0, binary(logits["grounding"][..., 0], want["grounding"]), 0)
    loss = binary(logits["vqa"][:, 0], want["vqa"]).mean() * recipe.ANSWERS
    loss += cross_entropy(logits["retrieval"].reshape(1, -1), want["retrieval"])
    loss += grounding.mean() * recipe.REGIONS
    if "gqa" in logits:
        loss += binary(logits["gqa"][:, 0], want["gqa"]).mean() * recipe.GQA_ANSWERS
        loss += cross_entropy(logits["entailment"][:, 0], want["entailment"])
        loss += cross_entropy(logits["nlvr2"][:, 0], want["nlvr2"])
    return loss


LOSSES = {"pretraining": pretraining_loss, "tasks": tasks_loss}


def check_case(layout: str, size: str, kind: str, precision: Precision) -> None:
    module, plan, _ = ours(layout, size, kind, precision.dtype)
    batch, want = batch_of(layout, size, kind, precision.dtype), recipe.targets()
    both = paired(batch)

    def loss(module: Any) -> Any:
        return LOSSES[kind](logits_of(module, batch, both)[1], want, batch)

    check_trained(module, plan, loss, f"vilbert_{layout}", f"{size}/{kind}", precision)


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "size", "kind"), recipe.TRAINED)
def test_gradients_are_the_authors(layout, size, kind):
    # As used, three layers compile for a minute; one shows what the optimised program rounds.
    check_case(layout, size, kind, SINGLE if size == "one_layer" else dataclasses.replace(SINGLE, compiler=None))


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "size", "kind"), [case for case in recipe.CASES if case not in recipe.TRAINED])
def test_outputs_in_float64(layout, size, kind):
    with DOUBLE.enabled():
        check_outputs(layout, size, kind, DOUBLE)


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "size", "kind"), recipe.TRAINED)
def test_training_in_float64(layout, size, kind):
    with DOUBLE.enabled():
        check_case(layout, size, kind, DOUBLE)


# ---- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "roberta"}, "model='roberta' is not built here"),
        ({"dynamic_attention": True}, "dynamic_attention is not built here"),
        ({"v_hidden_act": "relu"}, "hidden_act and v_hidden_act differ"),
        ({"fusion_method": "cat"}, "fusion_method='cat': expected one of mul, sum"),
        ({"t_biattention_id": [0]}, r"t_biattention_id=\[0\]: the file has 2 co-attention layers to place"),
    ],
)
def test_what_the_authors_code_could_do_beyond_is_refused(settings, message):
    with pytest.raises(WeightsError, match=message):
        find_plan(tensors_of("beta", "odd", "tasks"), {**recipe.SIZES["odd"], **settings}, where="the test")


def test_settings_come_from_the_published_model_where_there_are_none():
    plan = find_plan(tensors_of("multi_task", "odd", "tasks"), None, where="the test")
    assert plan.config.cross_after_text == (1, 2) and plan.config.cross_after_image == (0, 1)
    assert plan.config.fusion == "product" and plan.config.num_heads == 1
    assert plan.settings["t_biattention_id"] == [1, 2]


# ---- what comes before the model -------------------------------------------------------------------------------------


def test_a_region_for_the_whole_picture_comes_first():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 4, 3)).astype(np.float32)
    boxes = rng.uniform(size=(2, 4, 4)).astype(np.float32)
    # One picture and padding; two pictures, the first with padding inside.
    segments = np.array([[1, 1, 1, 0], [1, 0, 1, 2]], np.int32)
    image = with_whole_picture(Regions(features=features, boxes=boxes, segments=segments))
    assert image.segments.tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 0, 1, 2, 2]]
    np.testing.assert_allclose(image.features[0, 0], features[0, :3].mean(0), rtol=1e-6)
    np.testing.assert_allclose(image.features[1, 0], features[1, [0, 2]].mean(0), rtol=1e-6)
    np.testing.assert_array_equal(image.features[1, [1, 3, 4, 5]], features[1, [0, 2, 3, 3]])
    np.testing.assert_array_equal(image.boxes[[0, 1, 1], [0, 0, 4]], [[0, 0, 1, 1]] * 3)
    np.testing.assert_array_equal(image.boxes[0, 1:4], boxes[0, :3])


def test_a_tasks_token_follows_the_first_of_each_text():
    ids = np.array([[2, 7, 3, 0, 0], [2, 3, 2, 8, 3]], np.int32)
    segments = np.array([[1, 1, 1, 0, 0], [1, 1, 2, 2, 2]], np.int32)
    text = with_task(Text(ids=ids, segments=segments), 4, vocab_size=40)
    assert text.ids.tolist() == [[2, 44, 7, 3, 0, 0, 0], [2, 44, 3, 2, 44, 8, 3]]
    assert text.positions.tolist() == [[0, 1, 1, 2, 0, 0, 0], [0, 1, 1, 0, 1, 1, 2]]
    assert text.segments.tolist() == [[1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 2, 2, 2, 2]]
