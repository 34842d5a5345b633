import jax
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import BatchError, Regions, Text, make_batch
from singlestream.data.image import patchify_batch
from singlestream.model.embed import ConvStem, ImageEmbed
from tests.model.toy import CONFIG as TOY
from tests.model.toy import replace, run, toy_model

CONFIG = replace(TOY, image_stem="conv", image_positions="none", num_images=1, stem_width=8)


def _convolve(x, layer, side):
    """A convolution of side x side with stride 2 by XLA, with the weights that a stem keeps as one matrix."""
    kernel = np.asarray(layer.kernel[...]).reshape(side, side, x.shape[-1], -1)
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=numbers) + layer.bias[...]


@pytest.mark.parametrize("patch, margin", [(8, 2), (8, 0), (9, 2)])
def test_the_convolutional_stem_convolves(patch, margin):
    """Random pictures through patches and stem: what XLA's convolutions give for each window of the padded picture."""
    config = replace(CONFIG, patch_size=patch, patch_margin=margin)
    embed, rng = ImageEmbed(config, rngs=nnx.Rngs(0)), np.random.default_rng(0)
    stem = embed.stem
    assert isinstance(stem, ConvStem)
    for layer in (stem.first, stem.second, stem.project):
        layer.bias[...] = rng.normal(size=layer.bias.shape).astype(np.float32)
    images = rng.integers(0, 256, (2, 2 * patch, 3 * patch, 3), np.uint8)

    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")
    corners = [(patch * row, patch * column) for row in range(2) for column in range(3)]
    windows = np.stack([padded[:, y : y + config.window, x : x + config.window] for y, x in corners], axis=1)
    x = (windows / 127.5 - 1).astype(np.float32).reshape(-1, config.window, config.window, 3)
    x = jax.nn.relu(_convolve(x, stem.first, 4))
    x = jax.nn.relu(_convolve(x, stem.second, 3))
    expected = np.asarray(x).reshape(2, 6, -1) @ np.asarray(stem.project.kernel[...]) + stem.project.bias[...]

    found = embed(patchify_batch(images, patch, margin))
    assert found.dtype == np.float32 and np.asarray(expected).std() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)


ALIGNED = replace(TOY, image_stem="regions", image_positions="constant", region_dim=3, modality="image", num_images=1)
WORDS = np.array([[[2, 0, -1], [1, 1, 2], [-1, -1, -1]]], np.int32)  # of three regions


def _regions(seed: int, words: np.ndarray | None = WORDS) -> Regions:
    return Regions(features=np.random.default_rng(seed).normal(size=(1, 3, 3)).astype(np.float32), words=words)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_a_region_takes_the_mean_position_of_its_words(positions):
    embed = toy_model(replace(ALIGNED, text_positions=positions)).embed
    text = Text(ids=np.array([[5, 6, 7, 8]], np.int32))
    plain = make_batch(text=text, image=_regions(0, None))
    places = np.asarray(embed.text.position(plain.text))[0]
    added = embed(make_batch(text=text, image=_regions(0))).x - embed(plain).x
    expected = [(places[2] + places[0]) / 2, (2 * places[1] + places[2]) / 3, 0 * places[0]]
    np.testing.assert_allclose(added[0, 4:], expected, atol=1e-5)
    np.testing.assert_array_equal(added[0, :4], 0)


def test_words_of_regions_are_found_in_a_packed_row():
    """They are positions within a text: wherever this lies, an example comes out as it does alone."""
    texts = [np.array([[5, 6, 7]], np.int32), np.array([[9, 8, 11, 12]], np.int32)]
    images = [_regions(1), _regions(2, WORDS[:, ::-1].copy())]
    packed = make_batch(
        text=Text(ids=np.concatenate(texts, 1), segments=np.array([[1, 1, 1, 2, 2, 2, 2]], np.int32)),
        image=Regions(
            features=np.concatenate([image.features for image in images], 1),
            words=np.concatenate([image.words for image in images], 1),
            segments=np.array([[1, 1, 1, 2, 2, 2]], np.int32),
        ),
    )
    among = run(packed, ALIGNED)[0]
    for i, (ids, image) in enumerate(zip(texts, images, strict=True)):
        alone = run(make_batch(text=Text(ids=ids), image=image), ALIGNED)[0]
        np.testing.assert_allclose(among.pooled[0, i], alone.pooled[0, 0], atol=1e-5)
        np.testing.assert_allclose(among.image[0, 3 * i : 3 * i + 3], alone.image[0], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "word", "message"),
    [
        (
            {},
            16,
            r"image.words holds 0 to 16, expected 0 to 15 \(config.model.max_text_length is 16, and -1 is no word",
        ),
        ({}, -2, r"image.words holds -2 to 2, expected 0 to 15"),
        ({"image_positions": "boxes"}, 0, "image.words: only a model with .* reads them, this one has .*'boxes'"),
        ({"text_positions": "none"}, 0, "this one has image_positions='constant', text_positions='none'"),
    ],
)
def test_words_that_cannot_be_read_are_named(changes, word, message):
    words = WORDS.copy()
    words[0, 0, 0] = word
    with pytest.raises(BatchError, match=message):
        toy_model(replace(ALIGNED, **changes)).check(
            make_batch(text=Text(ids=np.array([[5, 6, 7]], np.int32)), image=_regions(0, words))
        )
