"""Captions of a scene: a complete one, and short ones that tell a part; always true."""

from __future__ import annotations

import random
from collections.abc import Sequence

from singlestream.data.sources.scenes_language import (
    NAMES,
    PLURALS,
    RELATIONS,
    Part,
    Said,
    article,
    bits,
    groups,
    named_pairs,
    say,
)
from singlestream.data.sources.scenes_world import COLOURS, SHAPES, SIZES, Scene, Thing, direction

NUMBERS = ("no", "one", "two", "three", "four", "five")


def caption(scene: Scene, rng: random.Random) -> list[Said]:
    """A complete caption and two different short ones (one, where the scene allows no other)."""
    forms = rng.sample((_short_thing, _short_relation, _short_group), 3)
    short = [said for said in (form(scene, rng) for form in forms) if said is not None]
    return [complete(scene, rng.sample(range(len(scene)), len(scene))), *short[:2]]


def _full(thing: Thing) -> str:
    return f"{SIZES[thing.size]} {NAMES[thing.pair]}"


def complete(scene: Scene, order: Sequence[int], sure: float = 1.0) -> Said:
    """Every thing, in this order, with size, colour and shape; neighbours in it related where a direction dominates.

    `sure`: by how much more than it has to (see `direction`).

    Things that are told by the same words are one group, "two small red rings", which words can name.
    """
    alike: dict[tuple[int, int, int], int] = {}
    for i in order:
        alike[scene[i][:3]] = alike.get(scene[i][:3], 0) | 1 << i
    told = list(alike.values())
    parts: list[Part] = []
    related = True  # whether the group before is already tied to its own neighbour
    for k, things in enumerate(told):
        towards = None if related else _direction_of(scene, told[k - 1], things, sure)
        related = towards is not None
        if towards is not None:
            parts.append(RELATIONS[towards])
        elif k:
            parts.append("and" if k == len(told) - 1 else ",")
        parts += _group(scene, things)
    return say("complete", "", *parts)


def _direction_of(scene: Scene, first: int, second: int, sure: float) -> str | None:
    """Where one thing lies from the other; None where it is no clear direction, or one is several things."""
    if first.bit_count() > 1 or second.bit_count() > 1:
        return None
    return direction(scene[first.bit_length() - 1], scene[second.bit_length() - 1], sure)


def _group(scene: Scene, things: int) -> list[Part]:
    """ "a large red ring", "two small blue squares": things of the same words."""
    thing = scene[things.bit_length() - 1]
    number = things.bit_count()
    if number == 1:
        return ["a", (_full(thing), things)]
    return [NUMBERS[number], (f"{SIZES[thing.size]} {COLOURS[thing.colour]} {PLURALS[thing.shape]}", things)]


def _short_thing(scene: Scene, rng: random.Random) -> Said | None:
    """ "there is a small red ring", where no other thing is told by these words."""
    single = [i for i, t in enumerate(scene) if sum(o[:3] == t[:3] for o in scene) == 1]
    if not single:
        return None
    i = rng.choice(single)
    return say("short", "", "there is a", (_full(scene[i]), 1 << i))


def _short_relation(scene: Scene, rng: random.Random) -> Said | None:
    """ "a red ring left of a blue square"."""
    related = [(i, j, towards) for i, j in named_pairs(scene, 0) if (towards := direction(scene[i], scene[j]))]
    if not related:
        return None
    i, j, towards = rng.choice(related)
    a, b = NAMES[scene[i].pair], NAMES[scene[j].pair]
    return say("short", "", article(a), (a, 1 << i), RELATIONS[towards], article(b), (b, 1 << j))


def _short_group(scene: Scene, rng: random.Random) -> Said:
    """ "two red things", "three rings", "one small thing": exactly so many."""
    thing = rng.choice(scene)
    phrase = rng.choice(groups(thing)[1:])
    things = bits(scene, lambda t: phrase in groups(t))
    one = {"things": "thing", PLURALS[thing.shape]: SHAPES[thing.shape]}
    if things.bit_count() == 1:
        phrase = " ".join(one.get(word, word) for word in phrase.split())
    return say("short", "", NUMBERS[things.bit_count()], (phrase, things))
