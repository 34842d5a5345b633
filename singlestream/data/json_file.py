"""Reading the small JSON files that lie beside data and weights."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from singlestream.data.record import DataError


def read_json(path: pathlib.Path, kind: type) -> Any:
    """The object (`dict`) or list of a file.

    Raises:
        DataError: it cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not isinstance(value, kind):
        raise DataError(f"{path}: expected a JSON {'object' if kind is dict else 'list'}")
    return value
