"""Few combinations of settings that hold every pair of values."""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Callable
from typing import Any

Value = tuple[str, Any]  # of an axis, with its name


def cover(axes: dict[str, tuple[Any, ...]], refused: Callable[[dict[str, Any]], str]) -> list[dict[str, Any]]:
    """Combinations that hold every pair of values that goes together, found greedily (after Cohen et al. 1997, AETG).

    `refused` says why some values do not go together, and nothing where they do; what is left out are defaults.
    """
    pairs = all_pairs(axes)
    together = {frozenset(pair) for pair in pairs if not refused(dict(pair))}
    left, rng, found = set(together), random.Random(0), []
    while left:
        of_axes = collections.Counter(frozenset(name for name, _ in pair) for pair in left)
        starts = [pair for pair in pairs if frozenset(pair) in left]
        first = max(starts, key=lambda pair: of_axes[frozenset(name for name, _ in pair)])
        tries = [_row(axes, dict(first), together, left, rng) for _ in range(20)]
        found.append(max(tries, key=lambda row: len(pairs_of(row) & left)))
        left -= pairs_of(found[-1])
    return found


def all_pairs(axes: dict[str, tuple[Any, ...]]) -> list[tuple[Value, Value]]:
    """Two values of two axes, in the order of the axes."""
    return [(one, two) for one, two in itertools.combinations(values_of(axes), 2) if one[0] != two[0]]


def values_of(axes: dict[str, tuple[Any, ...]]) -> list[Value]:
    return [(name, value) for name, values in axes.items() for value in values]


def pairs_of(row: dict[str, Any]) -> set[frozenset[Value]]:
    return {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}


def few(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """So many of the rows that each of their values is there."""
    left, found = {value for row in rows for value in row.items()}, []
    while left:
        found.append(max(rows, key=lambda row: len(left & set(row.items()))))
        left -= set(found[-1].items())
    return found


def _row(
    axes: dict[str, tuple[Any, ...]],
    row: dict[str, Any],
    together: set[frozenset[Value]],
    left: set[frozenset[Value]],
    rng: random.Random,
) -> dict[str, Any]:
    """The row filled up, axis by axis, with the value that has the most pairs that are left."""
    for name in rng.sample(list(axes), len(axes)):
        if name in row:
            continue
        gain = {}
        for value in axes[name]:
            made = {frozenset(((name, value), other)) for other in row.items()}
            if made <= together:
                gain[value] = len(made & left)
        row[name] = rng.choice([value for value in gain if gain[value] == max(gain.values())])
    return {name: row[name] for name in axes}
