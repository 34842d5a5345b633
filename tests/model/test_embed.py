import jax
import numpy as np
import pytest
from flax import nnx

from singlestream.data.image import patchify_batch
from singlestream.model.embed import ConvStem, ImageEmbed
from tests.model.toy import CONFIG as TOY
from tests.model.toy import replace

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
