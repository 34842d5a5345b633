"""The files of a folder beside this one, by name: a score or a selection is one file, and no list has to be edited."""

from __future__ import annotations

import pkgutil
from pathlib import Path


def file_names(folder: str) -> tuple[str, ...]:
    """Names that a config can use. Imports none of the files, so that a wrong name is told before jax is loaded."""
    path = Path(__file__).with_name(folder)
    return tuple(sorted(module.name for module in pkgutil.iter_modules([str(path)])))
