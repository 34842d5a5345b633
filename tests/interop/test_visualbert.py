"""VisualBERT against transformers on torch."""

from __future__ import annotations

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from singlestream.batch import Regions, Text, make_batch  # noqa: E402
from singlestream.interop.build import find_plan, unbuild  # noqa: E402

from .compare import DOUBLE, SINGLE, check_written, close, cross_entropy  # noqa: E402
from .published import check_trained, ours, randomise, state  # noqa: E402

SIZES = {
    "odd": dict(hidden_size=42, num_hidden_layers=2, num_attention_heads=3, intermediate_size=50),
    "one layer": dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64),
    "deep": dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=33),
}
LATE = dict(bypass_transformer=True)
CLASSES = ("Model", "ForPreTraining", "ForQuestionAnswering", "ForVisualReasoning", "ForMultipleChoice")


def reference(name: str, size: str, dtype=None, **settings):
    config = transformers.VisualBertConfig(
        vocab_size=60,
        max_position_embeddings=12,
        visual_embedding_dim=20,
        num_labels={"ForQuestionAnswering": 7, "ForVisualReasoning": 2}.get(name, 2),
        **{**SIZES[size], **settings},
    )
    model = getattr(transformers, f"VisualBert{name}")(config)
    if config.bypass_transformer:
        fuse_late(model.base_model)
    return randomise(model.to(dtype or torch.float32), seed=len(size))


def fuse_late(model) -> None:
    """What the reference means to do with `bypass_transformer`, by its own modules.

    transformers 5.23 stops with an IndexError there: it asks a mask of one query for that of the first region. Image
    tokens pass the encoder by, and have their embeddings among the states.
    """

    def forward(input_ids, attention_mask, visual_embeds, visual_attention_mask, **given):
        embedded = {name: given.get(name) for name in ("token_type_ids", "image_text_alignment")}
        x = model.embeddings(input_ids=input_ids, visual_embeds=visual_embeds, **embedded)
        text, image = x[:, : input_ids.shape[1]], x[:, input_ids.shape[1] :]
        seen = torch.cat([attention_mask, visual_attention_mask], 1)[:, None, None].to(x.dtype)
        mask = (1 - seen) * torch.finfo(x.dtype).min
        early = model.encoder(text, mask[..., : input_ids.shape[1]], output_hidden_states=True)
        x = model.additional_layer(torch.cat([early.last_hidden_state, image], 1), mask)[0]
        return transformers.modeling_outputs.BaseModelOutputWithPooling(
            last_hidden_state=x,
            pooler_output=model.pooler(x),
            hidden_states=(*(torch.cat([states, image], 1) for states in early.hidden_states), x),
        )

    model.forward = forward


def inputs(dtype=np.float32, *, aligned=False):
    """Three rows of uneven texts and regions, each of these with up to three words of its own where `aligned`."""
    rng = np.random.default_rng(0)
    lengths, regions = np.array([9, 5, 7]), np.array([3, 6, 1])
    text = (np.arange(9) < lengths[:, None]).astype(np.int32)
    image = (np.arange(6) < regions[:, None]).astype(np.int32)
    ids = rng.integers(5, 60, (3, 9)).astype(np.int32) * text
    types = rng.integers(0, 2, (3, 9)).astype(np.int32) * text
    features = rng.normal(size=(3, 6, 20)).astype(dtype)
    words = np.where(np.arange(3) < rng.integers(0, 4, (3, 6, 1)), rng.integers(0, 9, (3, 6, 3)), -1).astype(np.int32)
    assert {0, 1, 2, 3} == set((words >= 0).sum(-1).ravel())
    theirs = dict(
        input_ids=torch.tensor(ids, dtype=torch.long),
        attention_mask=torch.tensor(text),
        token_type_ids=torch.tensor(types, dtype=torch.long),
        visual_embeds=torch.tensor(features),
        visual_attention_mask=torch.tensor(image),
    )
    if aligned:
        theirs["image_text_alignment"] = torch.tensor(words, dtype=torch.long)
    batch = make_batch(
        text=Text(ids=ids, types=types, segments=text),
        image=Regions(features=features, segments=image, words=words if aligned else None),
    )
    return theirs, batch, text.astype(bool), image.astype(bool)


def check_layers(size: str, dtype: str, tolerance: float, *, aligned: bool = False, **settings) -> None:
    model = reference("Model", size, getattr(torch, dtype), **settings)
    theirs, batch, text, image = inputs(np.dtype(dtype), aligned=aligned)
    with torch.no_grad():
        expected = model(**theirs, output_hidden_states=True)
    module, _ = ours(model)
    out = jax.jit(lambda batch: module(batch))(batch)
    seen = np.concatenate([text, image], 1)
    for mine, layer in zip(out.hidden, expected.hidden_states[1:], strict=True):
        close(np.asarray(mine)[seen], layer.numpy()[seen], tolerance=tolerance)
    close(out.pooled[:, 0], expected.pooler_output, tolerance=tolerance)


@pytest.mark.parametrize("size", SIZES)
def test_every_layer_is_the_references(size):
    check_layers(size, "float32", 2e-5)


@pytest.mark.parametrize("size", SIZES)
def test_regions_take_the_positions_of_their_words(size):
    check_layers(size, "float32", 2e-5, aligned=True)


@pytest.mark.parametrize("size", SIZES)
def test_regions_enter_in_one_layer_after_the_texts(size):
    check_layers(size, "float32", 2e-5, aligned=True, **LATE)


def test_every_layer_in_float64():
    with jax.enable_x64(True):
        check_layers("odd", "float64", 1e-10)
        check_layers("odd", "float64", 1e-10, aligned=True)
        check_layers("odd", "float64", 1e-10, aligned=True, **LATE)


@pytest.mark.parametrize("settings", [{}, LATE], ids=["early", "late"])
@pytest.mark.parametrize("name", CLASSES)
def test_a_file_comes_back_bit_for_bit(name, settings):
    model = reference(name, "odd", **settings)
    check_written(*ours(model), state(model))


def test_settings_are_read_and_can_be_told_without_config_json():
    model = reference("Model", "odd", hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2, **LATE)
    read = ours(model)[1].config
    assert (read.dropout, read.attention_dropout, read.num_layers, read.late_layers) == (0.3, 0.2, 2, 1)
    told = find_plan(state(model), None, where="the test").settings
    again = transformers.VisualBertModel(transformers.VisualBertConfig.from_dict(told)).state_dict()
    assert {key: value.shape for key, value in again.items()} == {key: v.shape for key, v in state(model).items()}


# ---- heads, losses, gradients ----------------------------------------------------------------------------------------


def pretraining(model, theirs, dtype):
    """The reference's loss of masked words and of matching, and ours."""
    ids, matches = np.where(np.arange(9) % 3 == 1, theirs["input_ids"].numpy(), -100), np.array([0, 1, 1])
    ids = np.where(theirs["attention_mask"].numpy() == 1, ids, -100)
    labels = np.concatenate([ids, np.full((3, 6), -100)], 1)

    def loss():
        return model(**theirs, labels=torch.tensor(labels), sentence_image_labels=torch.tensor(matches)).loss

    def loss_fn(module, batch):
        out = module(batch)
        return cross_entropy(module.heads["mlm"](out), ids) + cross_entropy(module.heads["itm"](out)[:, 0], matches)

    return loss, loss_fn


def answering(model, theirs, dtype):
    scores = np.random.default_rng(5).dirichlet(np.ones(7), 3).astype(dtype)

    def loss():
        return model(**theirs, labels=torch.tensor(scores)).loss

    def loss_fn(module, batch):
        logits = jax.nn.log_softmax(module.heads["vqa"](module(batch))[:, 0])
        return (scores * (np.log(scores) - logits)).sum() / 3

    return loss, loss_fn


def reasoning(model, theirs, dtype):
    labels = np.array([1, 0, 1])
    return (
        lambda: model(**theirs, labels=torch.tensor(labels)).loss,
        lambda module, batch: cross_entropy(module.heads["nlvr2"](module(batch))[:, 0], labels),
    )


LOSSES = {"ForPreTraining": pretraining, "ForQuestionAnswering": answering, "ForVisualReasoning": reasoning}


CASES = [*((name, {}) for name in LOSSES), ("ForPreTraining", LATE)]  # the last one with alignments, too


@pytest.mark.parametrize(("name", "settings"), CASES, ids=[name + "Late" * bool(late) for name, late in CASES])
def test_gradients_are_the_references(name, settings):
    model = reference(name, "odd", **settings)
    theirs, batch, *_ = inputs(aligned=bool(settings))
    loss, loss_fn = LOSSES[name](model, theirs, np.float32)
    check_trained(model, loss, lambda module: loss_fn(module, batch), SINGLE)


def test_everything_in_float64():
    with jax.enable_x64(True):
        for name, settings in CASES:
            model = reference(name, "odd", torch.float64, **settings)
            theirs, batch, *_ = inputs(np.float64, aligned=bool(settings))
            loss, loss_fn = LOSSES[name](model, theirs, np.float64)
            check_trained(model, loss, lambda module, f=loss_fn, b=batch: f(module, b), DOUBLE)


def test_heads_give_the_references_logits():
    for name, head in (("ForQuestionAnswering", "vqa"), ("ForVisualReasoning", "nlvr2")):
        model = reference(name, "deep")
        theirs, batch, *_ = inputs()
        with torch.no_grad():
            expected = model(**theirs).logits.numpy()
        module, _ = ours(model)
        logits = np.asarray(module.heads[head](module(batch)))[:, 0]
        close(logits, expected, tolerance=2e-5)
        assert (logits.argmax(-1) == expected.argmax(-1)).all()


def test_choices_are_examples_of_a_row():
    """Four answers to one picture: four segments here, a dimension of choices there."""
    model = reference("ForMultipleChoice", "odd")
    theirs, batch, *_ = inputs()
    with torch.no_grad():
        expected = model(**{name: value[None] for name, value in theirs.items()}).logits.numpy()
    module, _ = ours(model)
    close(np.asarray(module.heads["choice"](module(batch)))[:, 0, 0], expected[0], tolerance=2e-5)


def test_phrases_meet_regions():
    model = reference("ForRegionToPhraseAlignment", "odd")
    theirs, batch, text, image = inputs()
    place = np.broadcast_to(np.arange(15), (3, 15))
    with torch.no_grad():
        expected = model(**theirs, region_to_phrase_position=torch.tensor(place)).logits.numpy()
    module, plan = ours(model)
    scores = np.asarray(module.heads["phrase"](module(batch)))
    both = text[:, :, None] & image[:, None]
    close(scores[both], expected[:, :9][both], tolerance=2e-5)
    assert dict(unbuild(plan, module)).keys() == state(model).keys()
