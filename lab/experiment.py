"""What an experiment is: its file, its claim, its runs, and the checks that its claim stands or falls by."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

Result = dict[str, Any]  # numbers and lists of numbers, as JSON holds them

SEEDS = (0, 1, 2, 3, 4)
PARTS = ("Source", "Test", "Refuted if", "Seen")


@dataclasses.dataclass(frozen=True)
class Check:
    """A number of each seed, and the bounds that the claim sets it; without bounds it is told and decides nothing."""

    figure: str
    values: Sequence[float]
    least: float = -math.inf
    most: float = math.inf

    @property
    def passed(self) -> bool:
        return all(self.least <= value <= self.most for value in self.values)

    @property
    def decides(self) -> bool:
        return self.least > -math.inf or self.most < math.inf


def passed(checks: Sequence[Check]) -> bool:
    """Whether a claim holds: every seed of every check lies within its bounds."""
    return all(check.passed for check in checks)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A file of the laboratory."""

    number: int
    name: str
    module: ModuleType

    @property
    def arms(self) -> tuple[str, ...]:
        """What it trains for every seed; nothing where it is about a mechanism."""
        return getattr(self.module, "ARMS", ())

    @property
    def seeds(self) -> tuple[int, ...]:
        return getattr(self.module, "SEEDS", SEEDS)

    @functools.cached_property
    def _text(self) -> list[str]:
        return [" ".join(part.split()) for part in (inspect.getdoc(self.module) or "").split("\n\n")]

    @property
    def claim(self) -> str:
        return self._text[0]

    @property
    def parts(self) -> dict[str, str]:
        """The paragraphs of its docstring, by what they begin with (`PARTS`)."""
        split = (paragraph.partition(": ") for paragraph in self._text[1:])
        return {start: rest for start, _, rest in split}


def find(package: str = "lab") -> dict[int, str]:
    """The experiments that there are, by number: names of files, none of which is imported."""
    path = importlib.import_module(package).__path__
    names = sorted(module.name for module in pkgutil.iter_modules(path))
    return {int(found[1]): name for name in names if (found := re.fullmatch(r"c(\d\d)_\w+", name))}


def load(number: int, package: str = "lab") -> Experiment:
    """The experiment of a number.

    Raises:
        ValueError: there is none.
    """
    names = find(package)
    if number not in names:
        raise ValueError(f"--only={number}: no such experiment; there are {', '.join(map(str, names))}")
    return Experiment(number, names[number], importlib.import_module(f"{package}.{names[number]}"))
