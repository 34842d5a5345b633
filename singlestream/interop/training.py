"""What a training asks of published weights: `train.weights.Weights`, which `train.py` hands over."""

from __future__ import annotations

from pathlib import Path

from singlestream.interop.build import answer_names, by_path, read, read_plan
from singlestream.interop.files import has_weights
from singlestream.interop.tuned import family_heads, family_rows, origin_of

__all__ = [
    "answer_names",
    "by_path",
    "family_heads",
    "family_rows",
    "holds",
    "origin_of",
    "read",
    "read_plan",
]


def holds(path: Path) -> bool:
    """Whether these are published weights, a file or a folder, and not a run (which has a processor's spec.json).

    A folder of weights has a config.json, too.
    """
    return path.exists() and not (path / "spec.json").is_file() and has_weights(path)
