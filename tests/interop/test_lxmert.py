"""LXMERT against transformers on torch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from singlestream.batch import Regions, Text, make_batch  # noqa: E402
from singlestream.interop.build import build, find_plan, save  # noqa: E402
from singlestream.interop.rules import WeightsError  # noqa: E402

from .compare import (  # noqa: E402
    DOUBLE,
    SINGLE,
    Held,
    Precision,
    check_heads,
    check_states,
    check_written,
    close,
    cross_entropy,
    jitted,
    outputs,
    paired,
)
from .golden_files import make  # noqa: E402
from .published import check_trained, ours, randomise, state  # noqa: E402

SIZES = {
    "odd": dict(hidden_size=42, num_attention_heads=3, intermediate_size=50, l_layers=2, r_layers=1, x_layers=2),
    "one layer": dict(hidden_size=16, num_attention_heads=4, intermediate_size=64, l_layers=1, r_layers=1, x_layers=1),
    "deep": dict(hidden_size=32, num_attention_heads=2, intermediate_size=33, l_layers=3, r_layers=2, x_layers=3),
}
CLASSES = ("Model", "ForPreTraining", "ForQuestionAnswering")
ROWS, WORDS, REGIONS, FEATURES = 4, 9, 6, 20
ANSWERS, OBJECTS, ATTRIBUTES = 7, 8, 5


def reference(name: str, size: str, dtype: str = "float32"):
    config = transformers.LxmertConfig(
        vocab_size=60,
        max_position_embeddings=12,
        visual_feat_dim=FEATURES,
        num_qa_labels=ANSWERS,
        num_object_labels=OBJECTS,
        num_attr_labels=ATTRIBUTES,
        **SIZES[size],
    )
    model = getattr(transformers, f"Lxmert{name}")(config)
    return randomise(model.to(getattr(torch, dtype)), seed=len(size))


def inputs(dtype: str = "float32"):
    """Rows with padding in every place but [CLS], where the reference pools; the padding holds numbers, too."""
    rng = np.random.default_rng(0)
    text, image = rng.integers(0, 2, (ROWS, WORDS)), rng.integers(0, 2, (ROWS, REGIONS))
    text[:, 0] = image[:, 2] = text[0] = image[0] = 1
    image[1] = np.arange(REGIONS) == 2
    ids, types = rng.integers(5, 60, (ROWS, WORDS)), rng.integers(0, 2, (ROWS, WORDS))
    features = rng.normal(size=(ROWS, REGIONS, FEATURES)).astype(dtype)
    boxes = rng.uniform(size=(ROWS, REGIONS, 4)).astype(dtype)
    theirs = dict(
        input_ids=torch.tensor(ids),
        attention_mask=torch.tensor(text),
        token_type_ids=torch.tensor(types),
        visual_feats=torch.tensor(features),
        visual_pos=torch.tensor(boxes),
        visual_attention_mask=torch.tensor(image),
    )
    columns = np.broadcast_to(np.arange(WORDS), ids.shape)
    ids, types, columns, segments, of_image = (x.astype(np.int32) for x in (ids, types, columns, text, image))
    batch = make_batch(
        text=Text(ids=ids, types=types, segments=segments, positions=columns),
        image=Regions(features=features, boxes=boxes, segments=of_image),
    )
    return theirs, batch, text.astype(bool), image.astype(bool)


def attending(module, batch):
    return module(batch, attention=True)


def check_layers(size: str, precision: Precision) -> None:
    """Every layer's states, and the weights of attention."""
    model = reference("Model", size, precision.dtype)
    given, batch, text, image = inputs(precision.dtype)
    tolerance = precision.outputs
    with torch.no_grad():
        expected = model(**given, output_hidden_states=True, output_attentions=True)
    out = jitted(attending, ours(model)[0], batch)
    check_states(out.hidden["text"], expected.language_hidden_states, text, tolerance, "text")
    check_states(out.hidden["image"], expected.vision_hidden_states, image, tolerance, "image")
    close(np.asarray(out.text)[text], expected.language_output[text], tolerance)
    close(np.asarray(out.image)[image], expected.vision_output[image], tolerance)
    close(out.pooled[:, 0], expected.pooled_output, tolerance)
    for name, read, weights in (
        ("text", text, expected.language_attentions),
        ("image", image, expected.vision_attentions),
        ("text_to_image", text, expected.cross_encoder_attentions),
    ):
        found = out.attention[name][: len(weights)]  # ours has those of the cross layers, too
        mine, theirs = ([layer.swapaxes(1, 2) for layer in side] for side in (found, weights))
        check_states(mine, theirs, read, tolerance, f"attention, {name}")


@pytest.mark.parametrize("size", SIZES)
def test_every_layer_is_the_references(size):
    check_layers(size, SINGLE)


def logits_of(model, theirs) -> dict[str, np.ndarray]:
    """What every head of the pre-training model gives."""
    with torch.no_grad():
        out = model(**theirs)
        objects = model.obj_predict_head(model.lxmert(**theirs).vision_output)
    found = {"mlm": out.prediction_logits, "itm": out.cross_relationship_score, "vqa": out.question_answering_score}
    return {name: value.numpy() for name, value in {**found, **objects}.items()}


@pytest.mark.parametrize("size", SIZES)
def test_heads_give_the_references_logits(size):
    model = reference("ForPreTraining", size)
    theirs, batch, text, image = inputs()
    module, plan = ours(model)
    expected = logits_of(model, theirs)
    assert set(plan.heads) == set(expected) == {"mlm", "itm", "vqa", "obj", "attr", "feat"}
    _, logits = jitted(outputs, module, batch)
    check_heads(module, logits, expected, {"text": text, "image": image}, SINGLE.outputs)


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_a_file_comes_back_bit_for_bit(name):
    model = reference(name, "odd")
    check_written(*ours(model), state(model))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("with_settings", [True, False])
def test_transformers_opens_what_is_written(name, with_settings, tmp_path):
    model = reference(name, "one layer")
    tensors = state(model)
    module, plan = make(tensors, model.config.to_dict() if with_settings else None)
    save(plan, module, tmp_path)
    again, report = getattr(transformers, f"Lxmert{name}").from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    for key, value in again.state_dict().items():
        np.testing.assert_array_equal(value, tensors[key], err_msg=key)
    if with_settings:
        theirs = inputs()[0]
        with torch.no_grad():
            for mine, expected in zip(again(**theirs).to_tuple(), model(**theirs).to_tuple(), strict=True):
                np.testing.assert_array_equal(mine, expected)


def authors_file(prefix: str, model) -> dict[str, Held]:
    """The names that the authors' code gives to the same numbers."""
    return {key.replace("lxmert.", prefix, 1): value for key, value in state(model).items()}


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("ForPreTraining", "bert."),
        ("ForPreTraining", "module.bert."),
        ("ForQuestionAnswering", "lxrt_encoder.model.bert."),
    ],
)
def test_the_authors_files_are_read_and_written(name, prefix):
    model = reference(name, "odd")
    tensors = authors_file(prefix, model)
    if name == "ForQuestionAnswering":
        tensors = {key.replace("answer_head.", ""): value for key, value in tensors.items()}
    elif prefix.startswith("module."):
        tensors = {key if key.startswith("module.") else f"module.{key}": value for key, value in tensors.items()}
    settings = {"num_attention_heads": SIZES["odd"]["num_attention_heads"]}
    module, plan = make(tensors, settings)
    assert plan.dialect == "authors" and plan.settings == settings
    theirs, batch, *_ = inputs()
    with torch.no_grad():
        expected = model(**theirs).question_answering_score
    close(jitted(outputs, module, batch)[1]["vqa"][:, 0], expected, SINGLE.outputs)
    check_written(module, plan, tensors)


def test_two_pictures_are_two_examples_of_a_row():
    """The authors' NLVR2: the text once beside each picture, both pooled vectors side by side."""
    model = reference("Model", "odd")
    width = model.config.hidden_size
    logit_fc = torch.nn.Sequential(
        torch.nn.Linear(2 * width, 2 * width),
        torch.nn.GELU(),
        torch.nn.LayerNorm(2 * width, eps=1e-12),
        torch.nn.Linear(2 * width, 2),
    )
    tensors = {f"lxrt_encoder.model.bert.{key}": value for key, value in state(model).items()}
    tensors |= {f"logit_fc.{key}": value for key, value in state(randomise(logit_fc, 3)).items()}
    module, _ = make(tensors, model.config.to_dict())
    theirs, batch, *_ = inputs()
    with torch.no_grad():
        expected = logit_fc(model(**theirs).pooled_output.reshape(ROWS // 2, 2 * width))
    close(jitted(outputs, module, paired(batch))[1]["nlvr2"][:, 0], expected, SINGLE.outputs)


def test_what_does_not_fit_is_named():
    model = reference("Model", "one layer")
    tensors = state(model)
    with pytest.raises(WeightsError, match="hidden_act='silu' is not built here, only gelu"):
        find_plan(tensors, {"hidden_act": "silu"}, where="the test")
    gone = tensors.pop("encoder.x_layers.0.visn_output.dense.bias")
    plan = find_plan(tensors, model.config.to_dict(), where="the test")
    with pytest.raises(WeightsError, match="missing: encoder.x_layers.0.visn_output.dense.bias"):
        build(plan, {**tensors, "encoder.x_layers.0.extra": gone}, where="the test")


# ---- losses, gradients -----------------------------------------------------------------------------------------------


def pretraining(model, theirs, dtype):
    """The sum of the reference's six losses, and ours."""
    rng = np.random.default_rng(5)
    text, image = theirs["attention_mask"].numpy(), theirs["visual_attention_mask"].numpy()
    words = np.where((rng.random(text.shape) < 0.4) & (text == 1), theirs["input_ids"].numpy(), -100)
    matches, answers = rng.integers(0, 2, ROWS), rng.integers(0, ANSWERS, ROWS)
    weight = (image * rng.random(image.shape)).astype(dtype)
    labels = {"obj": rng.integers(0, OBJECTS, image.shape), "attr": rng.integers(0, ATTRIBUTES, image.shape)}
    features = rng.normal(size=(*image.shape, FEATURES)).astype(dtype)

    def loss():
        return model(
            **theirs,
            labels=torch.tensor(words),
            matched_label=torch.tensor(matches),
            ans=torch.tensor(answers),
            obj_labels={
                name: (torch.tensor(value), torch.tensor(weight))
                for name, value in {**labels, "feat": features}.items()
            },
        ).loss

    def loss_of(module, batch):
        _, logits = outputs(module, batch)
        visual = sum(
            -jnp.take_along_axis(jax.nn.log_softmax(logits[name]), value[..., None], -1)[..., 0]
            for name, value in labels.items()
        )
        far = jnp.abs(logits["feat"] - features)
        visual += jnp.where(far < 1, far**2 / 2, far - 0.5).mean(-1)
        return (
            cross_entropy(logits["mlm"], words)
            + cross_entropy(logits["itm"][:, 0], matches)
            + cross_entropy(logits["vqa"][:, 0], answers)
            + (visual * weight).mean() * model.config.visual_loss_normalizer
        )

    return loss, loss_of


def answering(model, theirs, dtype):
    answers = np.arange(ROWS) % ANSWERS
    return (
        lambda: model(**theirs, labels=torch.tensor(answers)).loss,
        lambda module, batch: cross_entropy(module.heads["vqa"](module(batch))[:, 0], answers),
    )


LOSSES = {"ForPreTraining": pretraining, "ForQuestionAnswering": answering}


def check_loss(name: str, precision: Precision) -> None:
    model = reference(name, "odd", precision.dtype)
    theirs, batch, *_ = inputs(precision.dtype)
    loss, loss_of = LOSSES[name](model, theirs, precision.dtype)
    check_trained(model, loss, lambda module: loss_of(module, batch), precision)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_the_references(name):
    check_loss(name, SINGLE)


@pytest.fixture
def double():
    """The reference adds its losses up in torch's default dtype, whatever the model's."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_everything_in_float64(double):
    with DOUBLE.enabled():
        check_layers("odd", DOUBLE)
        for name in LOSSES:
            check_loss(name, DOUBLE)
