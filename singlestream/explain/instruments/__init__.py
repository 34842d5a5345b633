"""Instruments: what counted for an answer, and what each word asks of the picture. One file each, found by its name.

A file offers one function, whose further arguments all have defaults:

    def explain(model: AnyModel, question: Question, ...) -> Relevance

It can be compiled (`jax.jit` over parameters and question), takes single and two streams, and changes nothing.
docs/explain.md says what each measures and when to trust it.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from singlestream.explain.question import Question, Relevance
from singlestream.model.build import AnyModel


def instrument_names() -> list[str]:
    """The files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def explain(name: str, model: AnyModel, question: Question, **options: Any) -> Relevance:
    """What an instrument says of a question.

    Args:
        name: one of `instrument_names`.
        options: the instrument's own.

    Raises:
        ValueError: no such instrument, with those there are.
        BatchError: rows of several answers, or a head that gives none.
    """
    if name not in instrument_names():
        raise ValueError(f"no instrument {name!r}; there are {', '.join(instrument_names())}")
    return importlib.import_module(f"{__name__}.{name}").explain(model, question, **options)
