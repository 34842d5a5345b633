"""Frames and sound of a clip of Events."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from singlestream.data.sources.events_world import COLOURS, FRAMES, HALVES, SHAPES, Clip
from singlestream.data.sources.scenes_draw import RGB, shape_mask

SIDE, DIAMETER = 24, 14  # pixels of a frame, and of a shape
SECONDS = 0.25  # of a frame
HERTZ = (250.0, 500.0, 1000.0, 1800.0)  # of `PITCHES`
AMPLITUDE, NOISE = 0.5, 0.01


def draw(clip: Clip, rng: np.random.Generator) -> tuple[UInt8[np.ndarray, "24 24 3"], ...]:
    """The frames; `rng` decides grey, grain and where shapes stand, never what is to be seen."""
    grey = rng.uniform(30, 80)
    frames = grey + 4 * rng.standard_normal((FRAMES, SIDE, SIDE, 3))
    for phase in clip.phases:
        alpha = shape_mask(SHAPES[phase.shape], DIAMETER)[..., None]
        colour = np.array(RGB[COLOURS[phase.colour]]) * rng.uniform(0.9, 1.05)
        y, x = rng.integers(0, SIDE - DIAMETER + 1, 2)
        window = frames[phase.start : phase.stop, y : y + DIAMETER, x : x + DIAMETER]
        window += alpha * (colour - window)
    return tuple(np.clip(frames + 0.5, 0, 255).astype(np.uint8))


def play(clip: Clip, rate: int, rng: np.random.Generator) -> Float[np.ndarray, " S"]:
    """The sound, `rate` samples a second: pure tones, off their pitch by up to 2 %, on faint noise."""
    half = int(rate * SECONDS / HALVES)
    sound = NOISE * rng.standard_normal(FRAMES * HALVES * half)
    for tone in clip.tones:
        hertz, phase = HERTZ[tone.pitch] * rng.uniform(0.98, 1.02), rng.uniform(0, 2 * np.pi)
        time = np.arange((tone.stop - tone.start) * half) / rate
        edge = np.minimum(1, np.minimum(time, time[-1] - time) / 0.01)  # fades in and out, or it would click
        sound[tone.start * half : tone.stop * half] += AMPLITUDE * edge * np.sin(2 * np.pi * hertz * time + phase)
    return sound.astype(np.float32)
