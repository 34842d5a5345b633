import jax
import jax.numpy as jnp
import numpy as np
import pytest

from singlestream.batch import Text, make_batch
from singlestream.model.init import fourier_grid
from singlestream.model.positions.image_boxes import box_features
from singlestream.model.positions.image_boxes7 import box_features as box_features_7
from singlestream.model.positions.image_learned import interpolate_grid
from singlestream.model.positions.image_sincos2d import sincos_2d
from singlestream.model.positions.text_sinusoidal import sinusoidal
from tests.model.toy import CONFIG, replace, toy_model


def _all_patches(rows, columns):
    yx = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(1, -1, 2)
    return yx.astype(np.int32), np.broadcast_to(np.array([rows, columns], np.int32), yx.shape)


def test_sinusoidal_is_the_papers():
    waves = np.asarray(sinusoidal(np.array([0, 3], np.int32), 6))
    for i in range(3):
        np.testing.assert_allclose(waves[1, i], np.sin(3 / 10_000 ** (2 * i / 6)), rtol=1e-5)
        np.testing.assert_allclose(waves[1, 3 + i], np.cos(3 / 10_000 ** (2 * i / 6)), rtol=1e-5)
    assert sinusoidal(np.array([1], np.int32), 7).shape == (1, 7)


def test_words_one_period_apart_are_equal_to_the_last_bit():
    config = replace(CONFIG, text_positions="periodic", text_period=3)
    ids = np.array([[7, 8, 7, 7, 8, 9, 7, 7]], np.int32)
    found = np.asarray(jax.jit(toy_model(config).embed.of_text)(make_batch(text=Text(ids=ids)).text))[0]
    np.testing.assert_array_equal(found[[0, 1, 0]], found[[3, 4, 6]])  # places 0 and 3, 1 and 4, 0 and 6
    assert (np.abs(found[[0, 0, 6]] - found[[2, 7, 7]]).max(1) > 0.1).all()  # the same word elsewhere in the period
    position = toy_model(config).embed.text.position(make_batch(text=Text(ids=ids)).text)
    np.testing.assert_allclose(position[0], sinusoidal(np.arange(8, dtype=np.int32) % 3, CONFIG.width), atol=1e-6)


def test_sincos_2d_tells_rows_from_columns():
    yx, _ = _all_patches(2, 2)
    waves = np.asarray(sincos_2d(yx, 8))[0]
    np.testing.assert_array_equal(waves[0, :4], waves[1, :4])  # same row
    np.testing.assert_array_equal(waves[0, 4:], waves[2, 4:])  # same column
    assert not np.allclose(waves[1], waves[2])


@pytest.mark.parametrize("resize", ["centres", "corners"])
def test_a_grid_of_the_tables_size_is_the_table(resize):
    table = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    found = interpolate_grid(table, *_all_patches(3, 4), resize=resize)[0]
    np.testing.assert_array_equal(found, table.reshape(12, 5))


@pytest.mark.parametrize("rows, columns", [(6, 2), (1, 9), (3, 3)])
def test_another_grid_is_resized_as_jax_image_does(rows, columns):
    table = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    expected = jax.image.resize(table, (rows, columns, 5), "linear", antialias=False)
    np.testing.assert_allclose(
        interpolate_grid(table, *_all_patches(rows, columns), resize="centres")[0],
        expected.reshape(-1, 5),
        atol=1e-6,
    )


@pytest.mark.parametrize("rows, columns", [(6, 2), (1, 9), (3, 3), (5, 8)])
def test_corners_stay_corners(rows, columns):
    """Place i of n lies at i * (size - 1) / (n - 1) of the table, between its two neighbours there."""
    table = np.random.default_rng(0).normal(size=(3, 4, 5))
    found = np.asarray(interpolate_grid(table.astype(np.float32), *_all_patches(rows, columns), resize="corners")[0])
    found = found.reshape(rows, columns, 5)
    for i in range(rows):
        for j in range(columns):
            y, x = i * 2 / max(rows - 1, 1), j * 3 / max(columns - 1, 1)
            top, left = min(int(y), 1), min(int(x), 2)
            down, right = y - top, x - left
            upper = (1 - right) * table[top, left] + right * table[top, left + 1]
            lower = (1 - right) * table[top + 1, left] + right * table[top + 1, left + 1]
            np.testing.assert_allclose(found[i, j], (1 - down) * upper + down * lower, atol=1e-6)


def test_boxes_get_their_area():
    np.testing.assert_allclose(box_features(jnp.array([[[0.25, 0.5, 0.75, 1.0]]]))[0, 0], [0.25, 0.5, 0.75, 1.0, 0.25])


def test_seven_numbers_of_a_box():
    numbers = box_features_7(jnp.array([[[0.25, 0.5, 0.75, 1.0]]]))[0, 0]
    np.testing.assert_allclose(numbers, [0.25, 0.5, 0.75, 1.0, 0.5, 0.5, 0.25])


def test_the_fourier_start_is_smooth_and_as_strong_as_said():
    table = np.asarray(fourier_grid(jax.random.key(0), 6, 6, 96))
    np.testing.assert_allclose(np.sqrt((table**2).mean()), 0.6, rtol=1e-5)
    near = np.linalg.norm(np.diff(table, axis=1), axis=-1).mean()
    flat = table.reshape(36, -1)
    anywhere = np.linalg.norm(flat[:, None] - flat[None], axis=-1)[~np.eye(36, dtype=bool)].mean()
    assert near < 0.8 * anywhere
