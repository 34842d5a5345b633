"""Whether what a batch looks up lies within a model's tables."""

from __future__ import annotations

from collections.abc import Iterable

import jax

from singlestream.batch import Array, BatchError


def check_ranges(tables: Iterable[tuple[str, Array, int, str]]) -> None:
    """Holds numbers against the size of the table that they are looked up in.

    A look-up beyond a table gives NaN and no error. Inside of `jax.jit` there are no numbers to look at: whoever
    compiles a model checks first.

    Args:
        tables: the field's name, its numbers, the rows of the table, and what says how many there are.

    Raises:
        BatchError: names the field.
    """
    for name, numbers, size, why in tables:
        if isinstance(numbers, jax.core.Tracer) or not numbers.size:
            continue
        low, high = numbers.min(), numbers.max()
        if low < 0 or high >= size:
            raise BatchError(f"{name} holds {low} to {high}, expected 0 to {size - 1} ({why})")
