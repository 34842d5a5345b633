"""What TensorBoard shows of a run's folder, and the rows of `metrics.jsonl` in the same form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from singlestream.train.folder import RunFolder
from singlestream.train.metrics import read_rows

Curves = dict[str, list[tuple[int, np.float32]]]


def read_events(folder: Path) -> Curves:
    """The scalars by name, each a list of (step, value)."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, np.float32(e.value)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def rows_as_events(folder: Path) -> Curves:
    curves: Curves = {}
    for row in read_rows(RunFolder.at(folder)):
        for name in row.keys() - {"step", "split"}:
            curves.setdefault(f"{row['split']}/{name}", []).append((row["step"], np.float32(row[name])))
    return curves
