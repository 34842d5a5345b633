"""ViLT against transformers on torch."""

from __future__ import annotations

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from singlestream.batch import Patches, Text, make_batch  # noqa: E402
from singlestream.interop.build import unbuild  # noqa: E402

from .published import check_gradients, check_steps, close, cross_entropy, ours, randomise, state  # noqa: E402

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


def reference(name: str, size: str, dtype=None, **settings):
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
    return randomise(model.to(dtype or torch.float32), seed=len(size))


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


def inputs(dtype=np.float32):
    ids, types, mask = texts()
    pixels, seen, _ = pictures(2)
    theirs = dict(
        input_ids=torch.tensor(ids, dtype=torch.long),
        attention_mask=torch.tensor(mask),
        token_type_ids=torch.tensor(types, dtype=torch.long),
        pixel_values=torch.tensor((pixels.astype(dtype) / 127.5 - 1).transpose(0, 3, 1, 2)),
        pixel_mask=torch.tensor(seen.astype(np.int64)),
    )
    batch = make_batch(text=Text(ids=ids, types=types, segments=mask), image=cut(pixels))
    return theirs, batch, mask.astype(bool)


def check_layers(size: str, dtype: str, tolerance: float) -> None:
    """Text tokens one by one; of the image tokens, which transformers shuffles, the pooled vector sees every one."""
    model = reference("Model", size, getattr(torch, dtype))
    theirs, batch, text = inputs(np.dtype(dtype))
    with torch.no_grad():
        expected = model(**theirs, output_hidden_states=True)
    module, _ = ours(model)
    out = jax.jit(lambda batch: module(batch))(batch)
    for mine, layer in zip(out.hidden, expected.hidden_states[1:], strict=True):
        close(np.asarray(mine)[:, :9][text], layer.numpy()[:, :9][text], tolerance=tolerance)
    close(out.extra["image_cls"][:, 0], expected.last_hidden_state[:, 9], tolerance=tolerance)
    close(out.pooled[:, 0], expected.pooler_output, tolerance=tolerance)


@pytest.mark.parametrize("size", SIZES)
def test_every_layer_is_the_references(size):
    check_layers(size, "float32", 2e-5)


def test_every_layer_in_float64():
    with jax.enable_x64(True):
        check_layers("odd", "float64", 1e-10)


@pytest.mark.parametrize("name", CLASSES)
def test_a_file_comes_back_bit_for_bit(name):
    model = reference(name, "odd")
    module, plan = ours(model)
    written, given = dict(unbuild(plan, module)), state(model)
    assert written.keys() == given.keys()
    for key, value in written.items():
        np.testing.assert_array_equal(value, given[key].array, err_msg=key)


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

    def loss_fn(module, batch):
        logits = module.heads["vqa"](module(batch))[:, 0]
        return -(scores * jax.nn.log_sigmoid(logits) + (1 - scores) * jax.nn.log_sigmoid(-logits)).mean() * 7

    return lambda: model(**theirs, labels=torch.tensor(scores)).loss, loss_fn


LOSSES = {"ForMaskedLM": masked_words, "ForQuestionAnswering": answering}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_the_references(name):
    model = reference(name, "odd")
    theirs, batch, _ = inputs()
    loss, loss_fn = LOSSES[name](model, theirs, np.float32)
    module, plan = ours(model)
    check_gradients(model, loss(), module, plan, lambda module: loss_fn(module, batch), tolerance=1e-4)


def test_everything_in_float64():
    with jax.enable_x64(True):
        for name, make in LOSSES.items():
            model = reference(name, "odd", torch.float64)
            theirs, batch, _ = inputs(np.float64)
            loss, loss_fn = make(model, theirs, np.float64)
            module, plan = ours(model)
            check_gradients(
                model, loss(), module, plan, lambda module, f=loss_fn, b=batch: f(module, b), tolerance=1e-8
            )
            check_steps(model, loss, module, plan, lambda module, f=loss_fn, b=batch: f(module, b))


@pytest.mark.parametrize(("name", "head"), [("ForQuestionAnswering", "vqa"), ("ForImageAndTextRetrieval", "retrieval")])
def test_heads_give_the_references_logits(name, head):
    model = reference(name, "deep")
    theirs, batch, _ = inputs()
    with torch.no_grad():
        expected = model(**theirs).logits.numpy()
    module, _ = ours(model)
    logits = np.asarray(module.heads[head](module(batch)))[:, 0]
    close(logits, expected, tolerance=2e-5)
    assert (logits.argmax(-1) == expected.argmax(-1)).all()


def test_two_pictures_are_two_examples_of_a_row():
    """NLVR2: the text once beside each picture; the head reads both pooled vectors."""
    model = reference("ForImagesAndTextClassification", "odd")
    ids, types, mask = texts()
    (first, seen_first, _), (second, seen_second, _) = pictures(2), pictures(3)
    both = np.stack([first, second], 1)
    with torch.no_grad():
        expected = model(
            input_ids=torch.tensor(ids, dtype=torch.long),
            attention_mask=torch.tensor(mask),
            token_type_ids=torch.tensor(types, dtype=torch.long),
            pixel_values=torch.tensor((both.astype(np.float32) / 127.5 - 1).transpose(0, 1, 4, 2, 3)),
            pixel_mask=torch.tensor(np.stack([seen_first, seen_second], 1).astype(np.int64)),
        ).logits.numpy()
    one, two = cut(first), cut(second, index=1)
    image = Patches(
        **{
            name: np.concatenate([getattr(one, name), getattr(two, name)], 1)
            for name in ("pixels", "yx", "grid", "index")
        },
        segments=np.concatenate([one.segments, 2 * two.segments], 1),
    )
    text = Text(
        ids=np.concatenate([ids, ids], 1),
        types=np.concatenate([types, types], 1),
        segments=np.concatenate([mask, 2 * mask], 1),
    )
    module, _ = ours(model)
    logits = np.asarray(module.heads["nlvr2"](module(make_batch(text=text, image=image))))
    close(logits[:, 0], expected, tolerance=2e-5)
