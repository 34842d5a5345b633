"""Masked regions and patches: what is hidden, and each target's loss from its definition."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from singlestream.batch import Patches, Regions, Spec, Text, make_batch
from singlestream.config import ConfigError, ModelConfig, TwoStreamConfig
from singlestream.objectives.mrm import GREY, mask_image
from singlestream.objectives.total import loss_weights
from tests.model.toy import SPEC, random_batch

from .toy import FakeModel, build, log_softmax, run

REGIONS = ModelConfig(image_stem="regions", image_positions="boxes", region_dim=6)
PATCHES = ModelConfig(patch_size=4)


def _regions(**targets):
    rng = np.random.default_rng(0)
    segments = np.array([[1, 1, 1, 0], [1, 2, 2, 2], [1, 1, 1, 1]], np.int32)
    return make_batch(
        text=Text(ids=np.full((3, 2), 7, np.int32)),
        image=Regions(features=rng.normal(size=(3, 4, 6)).astype(np.float32), segments=segments),
        targets=targets,
    )


def _hidden(model, batch):
    """Where the model read other features, or grey."""
    read = model.calls[-1][0].image
    if isinstance(read, Regions):
        return (np.asarray(read.features) != batch.image.features).any(-1)
    side = int(np.sqrt(read.pixels.shape[-1] / 3))
    middle = np.asarray(read.pixels).reshape(3, -1, side, side, 3)[:, :, side // 2, side // 2]
    return (middle == GREY).all(-1)


def _run(target, batch, logits, model=REGIONS):
    fake = FakeModel(mrm=logits)
    metrics, _ = run(build({"mrm": 1.0}, mrm={"targets": (target,), "rate": 0.5}, model=model), batch, fake)
    hidden = _hidden(fake, batch)
    assert 0 < hidden.sum() < hidden.size and not hidden[np.asarray(batch.image.segments) == 0].any()
    np.testing.assert_array_equal(fake.calls[0][0].text.ids, batch.text.ids)  # one modality at a time
    return metrics, hidden


def test_features():
    batch, found = _regions(), np.random.default_rng(1).normal(size=(3, 4, 6)).astype(np.float32)
    metrics, hidden = _run("features", batch, found)
    expected = ((found - batch.image.features) ** 2).mean(-1)[hidden].sum()
    np.testing.assert_allclose(metrics["mrm/features_loss"], (expected, hidden.sum()), rtol=1e-6)


def test_classes():
    rng = np.random.default_rng(2)
    classes = np.stack([rng.integers(-1, 4, (3, 4)), rng.integers(-1, 3, (3, 4))], -1).astype(np.int32)
    found = rng.normal(size=(3, 4, 7)).astype(np.float32)
    metrics, hidden = _run("classes", _regions(region_class=classes), found)
    expected, count = 0.0, 0
    for row, token in np.argwhere(hidden):
        for logits, label in zip((found[row, token, :4], found[row, token, 4:]), classes[row, token], strict=True):
            if label >= 0:
                expected, count = expected - log_softmax(logits)[label], count + 1
    np.testing.assert_allclose(metrics["mrm/classes_loss"], (expected, count), rtol=1e-6)


def test_distribution():
    """UNITER, MRC-kl, with a class that the detector rules out."""
    rng = np.random.default_rng(3)
    given = rng.dirichlet(np.ones(4), (3, 4)).astype(np.float32)
    given[:, :, 2] = 0
    given /= given.sum(-1, keepdims=True)
    given[1] = 0  # a picture of which the detector says nothing
    found = rng.normal(size=(3, 4, 4)).astype(np.float32)
    metrics, hidden = _run("distribution", _regions(region_distribution=given), found)
    hidden[1] = False
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(given > 0, given * (np.log(given) - log_softmax(found)), 0)
    np.testing.assert_allclose(metrics["mrm/distribution_loss"], (terms.sum(-1)[hidden].sum(), hidden.sum()), rtol=1e-6)


def test_several_targets_are_read_from_parts_of_one_head():
    """UNITER's features and distribution, each the loss that it is alone."""
    rng = np.random.default_rng(6)
    batch = _regions(region_distribution=rng.dirichlet(np.ones(4), (3, 4)).astype(np.float32))
    found = {"features": rng.normal(size=(3, 4, 6)), "distribution": rng.normal(size=(3, 4, 4))}
    found = {target: said.astype(np.float32) for target, said in found.items()}
    objectives = build({"mrm": 1.0}, mrm={"targets": tuple(found), "rate": 0.5}, model=REGIONS)
    assert objectives["mrm"].heads(REGIONS, SPEC)["mrm"].size == 6 + 4
    assert objectives["mrm"].targets == ("region_distribution",)
    together, _ = run(objectives, batch, FakeModel(mrm=np.concatenate(list(found.values()), axis=-1)))
    assert together == {k: v for target, said in found.items() for k, v in _run(target, batch, said)[0].items()}
    assert loss_weights(objectives, {"mrm": 2.0}) == {"mrm/features_loss": 2.0, "mrm/distribution_loss": 2.0}


def test_a_mean_of_regions_shows_nothing_that_is_masked():
    """Three packed pictures in two rows, the first of each its mean: it is never masked, and that of what is not."""
    rng = np.random.default_rng(7)
    segments = np.array([[1, 1, 1, 2, 2, 2, 2, 0], [1] * 8], np.int32)
    index = np.array([[0] * 8, [0] * 4 + [1] * 4], np.int32)  # two pictures of one example
    batch = make_batch(
        text=Text(ids=np.full((2, 2), 7, np.int32)),
        image=Regions(features=rng.normal(size=(2, 8, 6)).astype(np.float32), segments=segments, index=index),
    )
    data, fake = {"mean_region": True, "max_patches": 8}, FakeModel(mrm=np.zeros((2, 8, 6), np.float32))
    options = {"targets": ("features",), "rate": 0.5}
    metrics, _ = run(build({"mrm": 1.0}, mrm=options, model=REGIONS, data=data), batch, fake)
    read, hidden = np.asarray(fake.calls[0][0].image.features), 0
    for row, first, end in ((0, 0, 3), (0, 3, 7), (1, 0, 4), (1, 4, 8)):
        masked = ~read[row, first + 1 : end].any(-1)
        own = batch.image.features[row, first + 1 : end][~masked]
        np.testing.assert_allclose(read[row, first], own.mean(0) if len(own) else 0, rtol=1e-6, atol=1e-7)
        hidden += masked.sum()
    assert metrics["mrm/features_loss"][1] == hidden > 2


@pytest.mark.parametrize("margin", [0, 1])
def test_pixels(margin):
    batch = random_batch(0, rows=3, window=4 + 2 * margin)
    found = np.random.default_rng(4).normal(size=(3, 6, 48)).astype(np.float32)
    metrics, hidden = _run("pixels", batch, found, dataclasses.replace(PATCHES, patch_margin=margin))
    side, inner = 4 + 2 * margin, slice(margin, margin + 4)
    pixels = batch.image.pixels.reshape(3, 6, side, side, 3)[:, :, inner, inner].reshape(3, 6, 48) / 255.0
    wanted = (pixels - pixels.mean(-1, keepdims=True)) / np.sqrt(pixels.var(-1, keepdims=True, ddof=1) + 1e-6)
    expected = ((found - wanted) ** 2).mean(-1)[hidden].sum()
    np.testing.assert_allclose(metrics["mrm/pixels_loss"], (expected, hidden.sum()), rtol=1e-6)


def _picture(height, width, size, margin):
    """A picture, and its windows with what lies around each patch."""
    picture = np.random.default_rng(5).integers(1, 100, (height * size, width * size, 3)).astype(np.uint8)
    around = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)))
    windows = [
        around[y * size : (y + 1) * size + 2 * margin, x * size : (x + 1) * size + 2 * margin]
        for y in range(height)
        for x in range(width)
    ]
    yx = np.stack(np.meshgrid(range(height), range(width), indexing="ij"), -1).reshape(-1, 2).astype(np.int32)
    return picture, np.stack([window.ravel() for window in windows]), yx


def test_no_margin_shows_what_is_masked():
    """Two pictures in one row: the windows of each are those of the picture with its masked patches painted over."""
    size, margin, shape = 3, 1, (3, 4)
    picture, windows, yx = _picture(*shape, size, margin)
    chosen = np.zeros((1, 24), bool)
    chosen[0, [0, 6, 7]] = True
    image = Patches(
        pixels=np.concatenate([windows, windows])[None],
        yx=np.concatenate([yx, yx])[None],
        grid=np.full((1, 24, 2), shape, np.int32),
        segments=np.repeat(np.array([[1, 2]], np.int32), 12, axis=1),
    )
    batch = make_batch(text=Text(ids=np.full((1, 2), 7, np.int32), segments=np.array([[1, 2]], np.int32)), image=image)
    masked = jax.jit(mask_image, static_argnums=2)(batch, jnp.asarray(chosen), margin)
    painted = np.full_like(picture, 0)
    for y, x in yx[chosen[0, :12]]:
        painted[y * size : (y + 1) * size, x * size : (x + 1) * size] = 1
    around = np.pad(np.where(painted, GREY, picture), ((margin, margin), (margin, margin), (0, 0)))
    found = np.asarray(masked.image.pixels)[0]
    for (y, x), window in zip(yx, found[:12], strict=True):
        expected = around[y * size : (y + 1) * size + 2 * margin, x * size : (x + 1) * size + 2 * margin]
        np.testing.assert_array_equal(window, expected.ravel())
    np.testing.assert_array_equal(found[12:], windows)


def test_what_a_model_or_its_data_cannot_serve_is_named():
    for targets, model, spec, message in (
        (
            ("pixels",),
            REGIONS,
            None,
            "mrm.targets has 'pixels', which needs config.model.image_stem='linear' or 'conv'",
        ),
        (("pixels",), TwoStreamConfig.named("lxmert_tiny"), None, "the model has 'regions'"),
        (("classes", "features"), PATCHES, None, "mrm.targets has 'features', .* config.model.image_stem='regions'"),
        (("classes",), PATCHES, Spec(vocab_size=10), "this data has no region classes, mrm cannot learn 'classes'"),
        (("colour",), PATCHES, None, "mrm.targets: 'colour', choose of features, classes, distribution, pixels"),
        ((), PATCHES, None, "mrm.targets: '', choose of features"),
    ):
        with pytest.raises(ConfigError, match=message):
            build({"mrm": 1.0}, mrm={"targets": targets}, model=model, **({"spec": spec} if spec else {}))
