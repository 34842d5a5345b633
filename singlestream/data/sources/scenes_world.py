"""The world of Scenes: what things there are, where they may lie, and which pairs are never shown in training.

A scene is two to five coloured shapes on a square canvas, with boxes that keep clear of each other. Nothing here
draws or speaks: `scenes_draw` makes the picture, `scenes_language` the texts.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Sequence
from typing import NamedTuple

CANVAS = 48  # pixels, width and height
MARGIN = 1  # pixels that stay free at the picture's edge and between boxes
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
SIZES = ("small", "large")
DIAMETERS = ((8, 9, 10), (13, 14, 15, 16))  # pixels, of small and of large things
MAX_THINGS = 5

# The shape that each colour is never shown with, nor named with, outside of the split `test_composition`.
HELD_OUT_SHAPE = (4, 2, 1, 3, 5, 0, 2, 5)
HELD_OUT = frozenset(enumerate(HELD_OUT_SHAPE))
ALLOWED = tuple((c, s) for c in range(len(COLOURS)) for s in range(len(SHAPES)) if (c, s) not in HELD_OUT)
_ALLOWED_OF_COLOUR = [[pair for pair in ALLOWED if pair[0] == c] for c in range(len(COLOURS))]
_ALLOWED_OF_SHAPE = [[pair for pair in ALLOWED if pair[1] == s] for s in range(len(SHAPES))]

# A scene's number modulo `len(RESIDUES)` is the split it belongs to: two splits cannot share a scene, nor its number.
RESIDUES = ("train", "train", "train", "train", "train", "validation", "test", "test_composition")

CLEAR = 6  # pixels between two centres along an axis from which on one says "left of" or "above"
DOMINANT = 1.5  # times the other axis' distance from which on a direction is *the* direction


class Thing(NamedTuple):
    """One object: indices into COLOURS, SHAPES, SIZES; its box's top left corner and width (= height) in pixels."""

    colour: int
    shape: int
    size: int
    x: int
    y: int
    diameter: int

    @property
    def pair(self) -> tuple[int, int]:
        return self.colour, self.shape

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) in [0, 1] of the picture."""
        edges = (self.x, self.y, self.x + self.diameter, self.y + self.diameter)
        return tuple(edge / CANVAS for edge in edges)  # type: ignore[return-value]


Scene = tuple[Thing, ...]
Attributes = list[tuple[int, int, int]]  # (colour, shape, size) of each thing before it has a place


def scene_number(scene: Scene) -> int:
    """31 bits that identify a scene: the same things in the same places, in whatever order, on any background."""
    digest = hashlib.blake2b(repr(sorted(tuple(t) for t in scene)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF


def split_of(scene: Scene) -> str:
    return RESIDUES[scene_number(scene) % len(RESIDUES)]


def separation(a: Thing, b: Thing) -> tuple[int, int]:
    """How far a's centre lies to the right of b's and below it, in half pixels (so that it is a whole number)."""
    return (2 * a.x + a.diameter) - (2 * b.x + b.diameter), (2 * a.y + a.diameter) - (2 * b.y + b.diameter)


def sides(a: Thing, b: Thing) -> tuple[str, ...]:
    """Where `a` clearly lies as seen from `b`: at most one of left and right, at most one of above and below."""
    dx, dy = separation(a, b)
    found = []
    if abs(dx) >= 2 * CLEAR:
        found.append("right" if dx > 0 else "left")
    if abs(dy) >= 2 * CLEAR:
        found.append("below" if dy > 0 else "above")
    return tuple(found)


def direction(a: Thing, b: Thing, sure: float = 1.0) -> str | None:
    """The one direction in which `a` lies from `b`, where one axis clearly dominates; else None.

    `sure`: how many times as far as is needed it has to be, and how many times as dominant.
    """
    dx, dy = separation(a, b)
    across, along = abs(dx), abs(dy)
    if max(across, along) < 2 * CLEAR * sure or max(across, along) < DOMINANT * sure * min(across, along):
        return None
    if across > along:
        return "right" if dx > 0 else "left"
    return "below" if dy > 0 else "above"


def relations(scene: Scene) -> list[tuple[int, int]]:
    """Numbers of two things of which the first lies left of, or above, the second, as `direction` tells it."""
    pairs = itertools.permutations(enumerate(scene), 2)
    return [(i, j) for (i, one), (j, other) in pairs if direction(one, other) in ("left", "above")]


def sample_scene(rng: random.Random, split: str) -> Scene:
    """A scene that belongs to `split`: with held-out pairs in `test_composition` (at least one), without elsewhere."""
    attributes = _composition_attributes if split == "test_composition" else _plain_attributes
    while True:
        things = attributes(rng)
        for _ in range(10):  # else crowded scenes, which seldom fit at once, would become rare
            scene = _place(rng, things)
            if scene is not None and split_of(scene) == split:
                return scene


def _plain_attributes(rng: random.Random) -> Attributes:
    """Things of allowed pairs. Half of the scenes have a theme, so that "how many" has more answers than 0, 1, 2."""
    n = rng.randint(2, MAX_THINGS)
    return _themed(rng, n, rng.choice(ALLOWED), ())


def _composition_attributes(rng: random.Random) -> Attributes:
    """A held-out thing and, in half of the scenes, a decoy: colour and shape of another held-out pair, on two others.

    With the decoy "is there a <held-out pair>?" has a hard "no" in this picture, beside its "yes".
    """
    colour, shape = pair = rng.choice(sorted(HELD_OUT))
    if rng.random() < 0.5:
        return _themed(rng, rng.randint(2, MAX_THINGS), pair, ())
    absent_colour, absent_shape = rng.choice([p for p in sorted(HELD_OUT) if p != pair])
    decoys = (rng.choice(_ALLOWED_OF_COLOUR[absent_colour]), rng.choice(_ALLOWED_OF_SHAPE[absent_shape]))
    return _themed(rng, rng.randint(3, MAX_THINGS), pair, decoys)


def _themed(rng: random.Random, n: int, first: tuple[int, int], others: tuple[tuple[int, int], ...]) -> Attributes:
    """`first`, `others`, and allowed pairs up to n things; the new ones may share the first's colour or shape.

    Those that share one differ in the other, so that colour and shape still name each of them alone.
    """
    theme = rng.choice(("none",) * 5 + ("colour",) * 2 + ("shape",) * 2 + ("size",))
    shared = rng.choice((n, n - 1, n - 1, rng.randint(2, n)))  # things that follow the theme
    size = rng.randrange(2)
    pairs = [first, *others]
    for i in range(len(pairs), n):
        choices: Sequence[tuple[int, int]] = ALLOWED
        if i < shared and theme == "colour":
            choices = [pair for pair in _ALLOWED_OF_COLOUR[first[0]] if pair not in pairs]
        elif i < shared and theme == "shape":
            choices = [pair for pair in _ALLOWED_OF_SHAPE[first[1]] if pair not in pairs]
        pairs.append(rng.choice(choices))
    sized = [(*p, size if theme == "size" and i < shared else rng.randrange(2)) for i, p in enumerate(pairs)]
    rng.shuffle(sized)
    return sized


def _place(rng: random.Random, attributes: Attributes) -> Scene | None:
    """Gives each thing a place with its box clear of all others; None where they do not fit."""
    taken: list[tuple[int, int, int]] = []
    things = []
    for colour, shape, size in attributes:
        diameter = rng.choice(DIAMETERS[size])
        room = CANVAS - diameter - 2 * MARGIN + 1
        for _ in range(20):
            x, y = MARGIN + int(rng.random() * room), MARGIN + int(rng.random() * room)
            if all(
                x + diameter < a or a + d < x or y + diameter < b or b + d < y  # strict: a free pixel between
                for a, b, d in taken
            ):
                break
        else:
            return None
        taken.append((x, y, diameter))
        things.append(Thing(colour, shape, size, x, y, diameter))
    return tuple(things)
