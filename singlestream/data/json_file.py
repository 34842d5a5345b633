"""Reading JSON files of data and weights."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from singlestream.data.record import DataError

T = TypeVar("T")
_UNEXPECTED = (ValueError, KeyError, IndexError, TypeError, AttributeError)  # what content of another form leads to


def read_json(path: pathlib.Path, kind: type, *, shrink: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The object (`dict`) or list of a file.

    Args:
        shrink: what it returns takes the place of each object as soon as that is read, inner ones first; so a file of
            millions of small objects never lies in memory whole.

    Raises:
        DataError: it cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_bytes(), object_hook=shrink)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not isinstance(value, kind):
        raise DataError(f"{path}: expected a JSON {'object' if kind is dict else 'list'}")
    return value


def read_json_lines(path: pathlib.Path, what: str, take: Callable[[dict[str, Any]], T]) -> list[T]:
    """What `take` makes of each line of a file, a JSON object; empty lines are passed over.

    Raises:
        DataError: it cannot be read, or a line is not WHAT: `take` does not find in it what it looks for.
    """
    taken = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    with published(f"{path}, line {number}", what):
                        taken.append(take(json.loads(line)))
    except (OSError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    return taken


@contextlib.contextmanager
def published(where: pathlib.Path | str, what: str) -> Iterator[None]:
    """Around what is done with a file's content: raises DataError, "not WHAT", where that is not as published."""
    try:
        yield
    except DataError:
        raise
    except _UNEXPECTED as error:
        raise DataError(f"{where}: not {what} ({error!r})") from error
