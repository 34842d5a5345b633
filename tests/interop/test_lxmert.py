"""LXMERT against transformers on torch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from singlestream.batch import Regions, Text, make_batch  # noqa: E402
from singlestream.interop.build import build, find_plan, save, unbuild  # noqa: E402
from singlestream.interop.rules import WeightsError  # noqa: E402

from .published import (  # noqa: E402
    Held,
    check_gradients,
    check_steps,
    close,
    cross_entropy,
    ours,
    params_of,
    randomise,
    state,
    with_params,
)

SIZES = {
    "odd": dict(hidden_size=42, num_attention_heads=3, intermediate_size=50, l_layers=2, r_layers=1, x_layers=2),
    "one layer": dict(hidden_size=16, num_attention_heads=4, intermediate_size=64, l_layers=1, r_layers=1, x_layers=1),
    "deep": dict(hidden_size=32, num_attention_heads=2, intermediate_size=33, l_layers=3, r_layers=2, x_layers=3),
}
CLASSES = ("Model", "ForPreTraining", "ForQuestionAnswering")
ROWS, WORDS, REGIONS, FEATURES = 4, 9, 6, 20
ANSWERS, OBJECTS, ATTRIBUTES = 7, 8, 5


def reference(name: str, size: str, dtype=None):
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
    return randomise(model.to(dtype or torch.float32), seed=len(size))


def inputs(dtype=np.float32):
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


def logits(module, batch, *names: str) -> dict[str, np.ndarray]:
    """What the heads give."""

    @jax.jit
    def run(params, batch):
        model = with_params(module, params)
        encoded = model(batch)
        return {name: model.heads[name](encoded) for name in names}

    return {name: np.asarray(value) for name, value in run(params_of(module), batch).items()}


def check_layers(model, module, batch, theirs, text, image, tolerance):
    with torch.no_grad():
        expected = model(**theirs, output_hidden_states=True, output_attentions=True)
    out = jax.jit(lambda params, batch: with_params(module, params)(batch, attention=True))(params_of(module), batch)
    for name, seen, layers in (
        ("text", text, expected.language_hidden_states),
        ("image", image, expected.vision_hidden_states),
    ):
        for mine, layer in zip(out.hidden[name], layers, strict=True):
            close(np.asarray(mine)[seen], layer.numpy()[seen], tolerance=tolerance)
    close(np.asarray(out.text)[text], expected.language_output.numpy()[text], tolerance=tolerance)
    close(np.asarray(out.image)[image], expected.vision_output.numpy()[image], tolerance=tolerance)
    close(out.pooled[:, 0], expected.pooled_output, tolerance=tolerance)
    for name, seen, layers in (
        ("text", text, expected.language_attentions),
        ("image", image, expected.vision_attentions),
        ("text_to_image", text, expected.cross_encoder_attentions),
    ):
        for mine, layer in zip(out.attention[name], layers, strict=False):  # ours has those of the cross layers, too
            close(np.asarray(mine).swapaxes(1, 2)[seen], layer.numpy().swapaxes(1, 2)[seen], tolerance=tolerance)


@pytest.mark.parametrize("size", SIZES)
def test_every_layer_is_the_references(size):
    model = reference("Model", size)
    theirs, batch, text, image = inputs()
    module, _ = ours(model)
    check_layers(model, module, batch, theirs, text, image, 2e-5)


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
    expected_logits = logits_of(model, theirs)
    assert set(plan.heads) == set(expected_logits) == {"mlm", "itm", "vqa", "obj", "attr", "feat"}
    for name, mine in logits(module, batch, *plan.heads).items():
        expected = expected_logits[name]
        seen = {"mlm": text, "itm": None, "vqa": None}.get(name, image)
        mine, expected = (mine[:, 0], expected) if seen is None else (mine[seen], expected[seen])
        close(mine, expected, tolerance=2e-5)
        assert (mine.argmax(-1) == expected.argmax(-1)).all()


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_a_file_comes_back_bit_for_bit(name):
    model = reference(name, "odd")
    module, plan = ours(model)
    written, given = dict(unbuild(plan, module)), state(model)
    assert written.keys() == given.keys()
    for key, value in written.items():
        np.testing.assert_array_equal(value, given[key].array, err_msg=key)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("with_settings", [True, False])
def test_transformers_opens_what_is_written(name, with_settings, tmp_path):
    model = reference(name, "one layer")
    tensors = state(model)
    plan = find_plan(tensors, model.config.to_dict() if with_settings else None, where="the test")
    module, _ = build(plan, tensors, where="the test")
    save(plan, module, tmp_path)
    again, report = getattr(transformers, f"Lxmert{name}").from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    for key, value in again.state_dict().items():
        np.testing.assert_array_equal(value, tensors[key].array, err_msg=key)
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
    plan = find_plan(tensors, settings, where="the test")
    module, _ = build(plan, tensors, where="the test")
    assert plan.dialect == "authors" and plan.settings == settings
    theirs, batch, *_ = inputs()
    with torch.no_grad():
        expected = model(**theirs).question_answering_score
    close(logits(module, batch, "vqa")["vqa"][:, 0], expected, tolerance=2e-5)
    written = dict(unbuild(plan, module))
    assert written.keys() == tensors.keys()
    for key, value in written.items():
        np.testing.assert_array_equal(value, tensors[key].array, err_msg=key)


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
    plan = find_plan(tensors, model.config.to_dict(), where="the test")
    module, _ = build(plan, tensors, where="the test")
    theirs, batch, *_ = inputs()
    # Rows 2i and 2i + 1 lie side by side in one row, segments 1 and 2.
    paired = make_batch(
        text=Text(**{n: _beside(n, getattr(batch.text, n)) for n in ("ids", "types", "segments", "positions")}),
        image=Regions(**{n: _beside(n, getattr(batch.image, n)) for n in ("features", "boxes", "segments")}),
    )
    with torch.no_grad():
        expected = logit_fc(model(**theirs).pooled_output.reshape(ROWS // 2, 2 * width))
    close(logits(module, paired, "nlvr2")["nlvr2"][:, 0], expected, tolerance=2e-5)


def _beside(name: str, values) -> np.ndarray:
    values = np.asarray(values)
    second = 2 * values[1::2] if name == "segments" else values[1::2]
    return np.concatenate([values[::2], second], 1)


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

    def loss_fn(module, batch):
        out = module(batch)
        logits = {name: head(out) for name, head in module.heads.items()}
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

    return loss, loss_fn


def answering(model, theirs, dtype):
    answers = np.arange(ROWS) % ANSWERS
    return (
        lambda: model(**theirs, labels=torch.tensor(answers)).loss,
        lambda module, batch: cross_entropy(module.heads["vqa"](module(batch))[:, 0], answers),
    )


LOSSES = {"ForPreTraining": pretraining, "ForQuestionAnswering": answering}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_the_references(name):
    model = reference(name, "odd")
    theirs, batch, *_ = inputs()
    loss, loss_fn = LOSSES[name](model, theirs, np.float32)
    module, plan = ours(model)
    check_gradients(model, loss(), module, plan, lambda module: loss_fn(module, batch), tolerance=1e-4)


@pytest.fixture
def double():
    """The reference adds its losses up in torch's default dtype, whatever the model's."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_everything_in_float64(double):
    with jax.enable_x64(True):
        theirs, batch, text, image = inputs(np.float64)
        base = reference("Model", "odd", torch.float64)
        check_layers(base, ours(base)[0], batch, theirs, text, image, 1e-10)
        for name, make in LOSSES.items():
            model = reference(name, "odd", torch.float64)
            loss, loss_fn = make(model, theirs, np.float64)
            module, plan = ours(model)
            check_gradients(model, loss(), module, plan, lambda module, f=loss_fn: f(module, batch), tolerance=1e-8)
            check_steps(model, loss, module, plan, lambda module, f=loss_fn: f(module, batch))
