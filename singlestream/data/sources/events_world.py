"""What can happen in a clip of Events, and how clips are drawn."""

from __future__ import annotations

import dataclasses

import numpy as np

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "triangle", "cross")
PITCHES = ("deep", "low", "high", "shrill")
FRAMES = 8
LENGTHS = (1, 3, 4)  # frames of the phases, in any order: a short event and two long ones
HALVES = 2  # a short tone is a half of a frame


@dataclasses.dataclass(frozen=True)
class Phase:
    """Frames `start` to `stop` show one shape; `colour` and `shape` are indices."""

    start: int
    stop: int
    colour: int
    shape: int


@dataclasses.dataclass(frozen=True)
class Tone:
    """Sounds during the phase with number `phase`, from half-frame `start` to `stop`."""

    phase: int
    pitch: int
    start: int
    stop: int
    long: bool


@dataclasses.dataclass(frozen=True)
class Clip:
    """Phases and tones in the order of time; `target` is the number of the phase that questions are about."""

    phases: tuple[Phase, ...]
    tones: tuple[Tone, ...]
    target: int


def is_held_out(phase: Phase) -> bool:
    """Whether the pair of colour and shape is one of the four of `test_composition`."""
    return phase.colour == phase.shape


def sample_clip(rng: np.random.Generator, *, held_out: bool) -> Clip:
    """A clip without a held-out pair, or with one in the phase that questions are about.

    Everything is drawn evenly, and which phases sound, and for how long, regardless of what they show.
    """
    lengths = rng.permutation(LENGTHS)
    stops = np.cumsum(lengths)
    sounding = sorted(rng.permutation(len(LENGTHS))[:2].tolist())
    target = sounding[rng.integers(2)]
    phases = _sample_phases(stops, target, held_out, rng)
    pitches = rng.permutation(len(PITCHES))[: len(sounding)].tolist()
    tones = tuple(_sample_tone(phases[n], n, pitch, rng) for n, pitch in zip(sounding, pitches, strict=True))
    return Clip(phases, tones, target)


def _sample_phases(stops: np.ndarray, target: int, held_out: bool, rng: np.random.Generator) -> tuple[Phase, ...]:
    while True:
        colours, shapes = rng.permutation(len(COLOURS)), rng.permutation(len(SHAPES))
        starts = (0, *stops[:-1].tolist())
        phases = tuple(
            Phase(*each) for each in zip(starts, stops.tolist(), colours[:3].tolist(), shapes[:3].tolist(), strict=True)
        )
        found = [is_held_out(phase) for phase in phases]
        if found[target] if held_out else not any(found):
            return phases


def _sample_tone(phase: Phase, number: int, pitch: int, rng: np.random.Generator) -> Tone:
    start, stop = HALVES * phase.start, HALVES * phase.stop
    if long := bool(rng.integers(2)):
        return Tone(number, pitch, start, stop, long)
    start = int(rng.integers(start, stop))
    return Tone(number, pitch, start, start + 1, long)
