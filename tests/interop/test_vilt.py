"""ViLT against transformers on torch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from singlestream.batch import Patches, Text, make_batch  # noqa: E402

from .compare import (  # noqa: E402
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
    jitted,
    outputs,
)
from .published import check_trained, ours, randomise, state  # noqa: E402

SIZES = {
    "odd": dict(hidden_size=42, num_hidden_layers=2, num_attention_heads=3, intermediate_size=50),
    "one layer": dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64),
    "deep": dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=33),
}
PATCH = 8
GRIDS = np.array([[3, 5], [4, 4], [1, 6]])  # of the three pictures; the table's own is 4 x 4
CLASSES = (
    "Model",
    "ForMaskedLM",
    "ForQuestionAnswering",
    "ForImageAndTextRetrieval",
    "ForImagesAndTextClassification",
    "ForTokenClassification",
)


def reference(name: str, size: str, dtype: str = "float32", **settings):
    config = transformers.ViltConfig(
        vocab_size=60,
        max_position_embeddings=12,
        image_size=4 * PATCH,
        patch_size=PATCH,
        num_images=2 if name == "ForImagesAndTextClassification" else -1,
        modality_type_vocab_size=3 if name == "ForImagesAndTextClassification" else 2,
        num_labels=7,
        **{**SIZES[size], **settings},
    )
    model = getattr(transformers, f"Vilt{name}")(config)
    return randomise(model.to(getattr(torch, dtype)), seed=len(size))


def pictures(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels [3, 48, 48, 3], black beyond each picture's own size, and the mask of what is picture."""
    rng = np.random.default_rng(seed)
    height, width = GRIDS.max(0) * PATCH
    mask = (np.arange(height) < GRIDS[:, :1] * PATCH)[:, :, None] & (np.arange(width) < GRIDS[:, 1:] * PATCH)[:, None]
    pixels = rng.integers(0, 256, (3, height, width, 3)).astype(np.uint8) * mask[..., None].astype(np.uint8)
    return pixels, mask, GRIDS


def cut(pixels: np.ndarray, *, index: int = 0) -> Patches:
    """Every patch of the padded pictures; those beyond a picture's own grid belong to nobody."""
    rows, height, width, _ = pixels.shape
    r, c = height // PATCH, width // PATCH
    windows = pixels.reshape(rows, r, PATCH, c, PATCH, 3).transpose(0, 1, 3, 2, 4, 5).reshape(rows, r * c, -1)
    yx = np.stack(np.meshgrid(np.arange(r), np.arange(c), indexing="ij"), -1).reshape(1, r * c, 2)
    yx = np.repeat(yx, rows, 0).astype(np.int32)
    grid = np.repeat(GRIDS[:, None], r * c, 1).astype(np.int32)
    inside = (yx < grid).all(-1)
    return Patches(
        pixels=windows,
        yx=np.where(inside[..., None], yx, 0),
        grid=grid,
        index=np.full(inside.shape, index, np.int32),
        segments=inside.astype(np.int32),
    )


def texts() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    mask = (np.arange(9) < np.array([9, 5, 7])[:, None]).astype(np.int32)
    ids = rng.integers(5, 60, (3, 9)).astype(np.int32) * mask
    return ids, rng.integers(0, 2, (3, 9)).astype(np.int32) * mask, mask


def their_texts(ids, types, mask) -> dict[str, torch.Tensor]:
    return dict(
        input_ids=torch.tensor(ids, dtype=torch.long),
        attention_mask=torch.tensor(mask),
        token_type_ids=torch.tensor(types, dtype=torch.long),
    )


def inputs(dtype: str = "float32"):
    ids, types, mask = texts()
    pixels, seen, _ = pictures(2)
    theirs = dict(
        **their_texts(ids, types, mask),
        pixel_values=torch.tensor((pixels.astype(dtype) / 127.5 - 1).transpose(0, 3, 1, 2)),
        pixel_mask=torch.tensor(seen.astype(np.int64)),
    )
    batch = make_batch(text=Text(ids=ids, types=types, segments=mask), image=cut(pixels))
    return theirs, batch, mask.astype(bool)


def check_layers(size: str, precision: Precision) -> None:
    """Text tokens one by one; of the image tokens, which transformers shuffles, the pooled vector sees every one."""
    model = reference("Model", size, precision.dtype)
    theirs, batch, text = inputs(precision.dtype)
    with torch.no_grad():
        expected = model(**theirs, output_hidden_states=True)
    out, _ = jitted(outputs, ours(model)[0], batch)
    check_states(out.hidden, [layer[:, :9] for layer in expected.hidden_states[1:]], text, precision.outputs)
    close(out.extra["image_cls"][:, 0], expected.last_hidden_state[:, 9], precision.outputs)
    close(out.pooled[:, 0], expected.pooler_output, precision.outputs)


@pytest.mark.parametrize("size", SIZES)
def test_every_layer_is_the_references(size):
    check_layers(size, SINGLE)


def test_every_layer_in_float64():
    with DOUBLE.enabled():
        check_layers("odd", DOUBLE)


@pytest.mark.parametrize("name", CLASSES)
def test_a_file_comes_back_bit_for_bit(name):
    model = reference(name, "odd")
    check_written(*ours(model), state(model))


# ---- heads, losses, gradients ----------------------------------------------------------------------------------------


def masked_words(model, theirs, dtype):
    ids = theirs["input_ids"].numpy()
    labels = np.where((np.arange(9) % 3 == 1) & (theirs["attention_mask"].numpy() == 1), ids, -100)
    return (
        lambda: model(**theirs, labels=torch.tensor(labels)).loss,
        lambda module, batch: cross_entropy(module.heads["mlm"](module(batch)), labels),
    )


def answering(model, theirs, dtype):
    scores = np.random.default_rng(5).random((3, 7)).astype(dtype)

    return (
        lambda: model(**theirs, labels=torch.tensor(scores)).loss,
        lambda module, batch: binary(module.heads["vqa"](module(batch))[:, 0], scores).mean() * 7,
    )


LOSSES = {"ForMaskedLM": masked_words, "ForQuestionAnswering": answering}


def check_loss(name: str, precision: Precision) -> None:
    model = reference(name, "odd", precision.dtype)
    theirs, batch, _ = inputs(precision.dtype)
    loss, loss_of = LOSSES[name](model, theirs, precision.dtype)
    check_trained(model, loss, lambda module: loss_of(module, batch), precision)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_the_references(name):
    check_loss(name, SINGLE)


def test_everything_in_float64():
    with DOUBLE.enabled():
        for name in LOSSES:
            check_loss(name, DOUBLE)


@pytest.mark.parametrize(("name", "head"), [("ForQuestionAnswering", "vqa"), ("ForImageAndTextRetrieval", "retrieval")])
def test_heads_give_the_references_logits(name, head):
    model = reference(name, "deep")
    theirs, batch, _ = inputs()
    with torch.no_grad():
        expected = model(**theirs).logits
    module, _ = ours(model)
    check_heads(module, jitted(outputs, module, batch)[1], {head: expected}, {}, SINGLE.outputs)


def test_two_pictures_are_two_examples_of_a_row():
    """NLVR2: the text once beside each picture; the head reads both pooled vectors."""
    model = reference("ForImagesAndTextClassification", "odd")
    ids, types, mask = texts()
    (first, seen_first, _), (second, seen_second, _) = pictures(2), pictures(3)
    both = np.stack([first, second], 1)
    with torch.no_grad():
        expected = model(
            **their_texts(ids, types, mask),
            pixel_values=torch.tensor((both.astype(np.float32) / 127.5 - 1).transpose(0, 1, 4, 2, 3)),
            pixel_mask=torch.tensor(np.stack([seen_first, seen_second], 1).astype(np.int64)),
        ).logits
    text = Text(ids=ids, types=types, segments=mask)
    batch = make_batch(text=beside(text, text), image=beside(cut(first), cut(second, index=1)))
    _, logits = jitted(outputs, ours(model)[0], batch)
    close(logits["nlvr2"][:, 0], expected, SINGLE.outputs)
