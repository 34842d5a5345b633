"""Draws scenes: anti-aliased shapes in bright colours on dim, greyish, varied backgrounds."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from singlestream.data.sources.scenes_world import CANVAS, COLOURS, SHAPES, Scene

RGB = {
    "red": (225, 35, 40),
    "orange": (242, 120, 18),
    "yellow": (252, 234, 55),
    "green": (40, 180, 60),
    "cyan": (60, 218, 225),
    "blue": (45, 85, 238),
    "purple": (165, 60, 215),
    "white": (245, 245, 245),
}
BRIGHTEST_BACKGROUND = 95  # of 255, in any channel
_PALETTE = np.array([RGB[name] for name in COLOURS], np.float32)
_SUBPIXELS = 8  # samples along a pixel's side


def draw(scenes: Sequence[Scene], rng: np.random.Generator) -> UInt8[np.ndarray, "B 48 48 3"]:
    """One picture a scene; `rng` decides the backgrounds and the light, never what is to be seen."""
    pictures = _backgrounds(len(scenes), rng)
    most = max(len(scene) for scene in scenes)
    light = rng.uniform(0.9, 1.05, (len(scenes), most, 1)) * rng.uniform(0.97, 1.03, (len(scenes), most, 3))
    light = light.astype(np.float32)
    slope = rng.uniform(-0.08, 0.08, (len(scenes), most)).astype(np.float32)
    for picture, scene, lights, slopes in zip(pictures, scenes, light, slope, strict=True):
        for thing, tint, tilt in zip(scene, lights, slopes, strict=False):
            x, y, d = thing.x, thing.y, thing.diameter
            alpha = shape_mask(SHAPES[thing.shape], d)[..., None]
            shade = 1 + tilt * np.linspace(-1, 1, d, dtype=np.float32)[:, None, None]
            window = picture[y : y + d, x : x + d]
            window += alpha * (shade * (_PALETTE[thing.colour] * tint) - window)
    pictures += 3 * rng.standard_normal(pictures.shape, dtype=np.float32)
    return np.clip(pictures + 0.5, 0, 255).astype(np.uint8)


@functools.cache
def shape_mask(shape: str, diameter: int) -> Float[np.ndarray, "D D"]:
    """The share of each pixel that the shape covers; it touches all four sides of its diameter x diameter box."""
    axis = (np.arange(diameter * _SUBPIXELS) + 0.5) / (diameter * _SUBPIXELS) * 2 - 1
    x, y = axis[None, :], axis[:, None]  # [-1, 1], y down
    radius = np.hypot(x, y)
    inside = {
        "circle": radius <= 1,
        "square": (np.abs(x) <= 1) & (np.abs(y) <= 1),
        "triangle": np.abs(x) <= (y + 1) / 2,
        "cross": np.minimum(np.abs(x), np.abs(y)) <= 0.3,
        "ring": (radius <= 1) & (radius >= 0.5),
        "diamond": np.abs(x) + np.abs(y) <= 1,
    }[shape]
    pixels = inside.reshape(diameter, _SUBPIXELS, diameter, _SUBPIXELS)
    return pixels.mean((1, 3), dtype=np.float32)


def _backgrounds(count: int, rng: np.random.Generator) -> Float[np.ndarray, "B 48 48 3"]:
    """Two greyish tones a picture, mixed by a gradient, soft blobs, stripes, checks or grain."""
    grey = rng.uniform(20, BRIGHTEST_BACKGROUND - 20, (count, 2, 1))
    tones = np.clip(grey + rng.uniform(-14, 14, (count, 2, 3)), 8, BRIGHTEST_BACKGROUND - 10)
    first, second = tones[:, 0, None, None].astype(np.float32), tones[:, 1, None, None].astype(np.float32)
    mix = np.empty((count, CANVAS, CANVAS), np.float32)
    textures = (_gradient, _blobs, _stripes, _checks, _grain)
    kinds = rng.integers(0, len(textures), count)
    for kind, texture in enumerate(textures):
        chosen = np.flatnonzero(kinds == kind)
        mix[chosen] = texture(len(chosen), rng)
    return first + mix[..., None] * (second - first)


def _ramp(count: int, rng: np.random.Generator) -> Float[np.ndarray, "B 48 48"]:
    """Position along a random direction, about -0.7 to 0.7 over the picture."""
    angle = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    axis = np.linspace(-0.5, 0.5, CANVAS)
    return np.cos(angle) * axis[None, None, :] + np.sin(angle) * axis[None, :, None]


def _gradient(count: int, rng: np.random.Generator) -> Float[np.ndarray, "B 48 48"]:
    return np.clip(_ramp(count, rng) + 0.5, 0, 1)


def _stripes(count: int, rng: np.random.Generator) -> Float[np.ndarray, "B 48 48"]:
    waves = rng.uniform(2, 7, (count, 1, 1))
    return 0.5 + 0.5 * np.sin(2 * np.pi * (waves * _ramp(count, rng) + rng.uniform(0, 1, (count, 1, 1))))


def _checks(count: int, rng: np.random.Generator) -> Float[np.ndarray, "B 48 48"]:
    side = rng.integers(4, 13, (count, 1, 1))
    offset = rng.integers(0, 12, (count, 2, 1, 1))
    axis = np.arange(CANVAS)
    rows, columns = (axis[None, :, None] + offset[:, 0]) // side, (axis[None, None, :] + offset[:, 1]) // side
    return ((rows + columns) % 2).astype(np.float32)


def _grain(count: int, rng: np.random.Generator) -> Float[np.ndarray, "B 48 48"]:
    coarse = rng.uniform(0, 1, (count, CANVAS // 2, CANVAS // 2))
    return coarse.repeat(2, axis=1).repeat(2, axis=2)


def _blobs(count: int, rng: np.random.Generator) -> Float[np.ndarray, "B 48 48"]:
    """Random values on a coarse grid, smoothly interpolated."""
    knots = 5
    coarse = rng.uniform(0, 1, (count, knots, knots))
    place = np.linspace(0, knots - 1, CANVAS)
    distance = np.abs(place[:, None] - np.arange(knots)[None, :])
    weights = np.where(distance < 1, 0.5 + 0.5 * np.cos(np.pi * np.minimum(distance, 1)), 0)
    return np.einsum("yk,bkl,xl->byx", weights, coarse, weights)
