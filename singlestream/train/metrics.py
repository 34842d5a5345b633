"""Metrics of a run: sums and counts gathered between two reports, and where reports go."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from singlestream.train.errors import FolderError
from singlestream.train.folder import RunFolder, write_atomic


@functools.partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["names"])
@dataclasses.dataclass(frozen=True)
class Packed:
    """Metrics as one array [M, 2] of sums and counts: a compiled step hands over one thing instead of two a metric.

    `packed[name]` is (sum, count) on the host.
    """

    names: tuple[str, ...]
    values: Any

    @classmethod
    def of(cls, metrics: Mapping[str, tuple[jax.Array, jax.Array]]) -> Packed:
        names = tuple(sorted(metrics))
        return cls(names, jnp.stack([jnp.stack(metrics[name]) for name in names]))

    def __getitem__(self, name: str) -> tuple[float, float]:
        return self.pairs()[name]

    def pairs(self) -> dict[str, tuple[float, float]]:
        """Waits for the values and fetches them."""
        return {
            name: (total, count)
            for name, (total, count) in zip(self.names, np.asarray(self.values).tolist(), strict=True)
        }


class Totals:
    """Sums and counts of metrics over steps or batches; means come last, so that no average is averaged."""

    def __init__(self, values: Mapping[str, list[float]] | None = None):
        self.values: dict[str, list[float]] = {name: list(pair) for name, pair in (values or {}).items()}

    def add(self, metrics: Packed | Mapping[str, tuple[Any, Any]]) -> dict[str, float]:
        """Adds one step's metrics (on the device or numbers) and returns its means."""
        if isinstance(metrics, Packed):
            step = metrics.pairs()
        else:
            step = {name: (float(total), float(count)) for name, (total, count) in jax.device_get(metrics).items()}
        for name, pair in step.items():
            mine = self.values.setdefault(name, [0.0, 0.0])
            mine[0] += pair[0]
            mine[1] += pair[1]
        return _means(step)

    def means(self, weights: Mapping[str, float] | None = None) -> dict[str, float]:
        """The means; with the `weights` of loss terms (`objectives.total.loss_weights`) also `loss`, their sum."""
        means = _means(self.values)
        terms = [weight * means[name] for name, weight in (weights or {}).items() if name in means]
        return {"loss": sum(terms), **means} if terms else means


def _means(values: Mapping[str, Any]) -> dict[str, float]:
    """A metric that nothing counted for (no masked word in these batches) is left out; it is not 0."""
    return {name: total / count for name, (total, count) in values.items() if count}


class Writer:
    """`metrics.jsonl` (one object a line: step, split, values) and TensorBoard events, by one process.

    Rows beyond `step` are of a process that was killed after its last checkpoint; they will be written again.
    """

    def __init__(self, folder: RunFolder, step: int):
        self._folder = folder
        rows = [row for row in read_rows(folder) if row["step"] <= step]
        with self._folder.writing():
            write_atomic(folder.metrics, "".join(json.dumps(row) + "\n" for row in rows))
            # Not tensorboardX's SummaryWriter: a full disk ends its writing thread, and nobody hears of it.
            self._events = EventsWriter(str(folder.path / "events"), filename_suffix=f".{step}")
            self._events.write_event(
                Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START))
            )  # TensorBoard drops what an older file says from this step on

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """One row; the numbers in it also become TensorBoard scalars `split/name`.

        Raises:
            FolderError: the disk takes no more.
        """
        scalars = [
            Summary.Value(tag=f"{split}/{name}", simple_value=value)
            for name, value in values.items()
            if isinstance(value, int | float)
        ]
        with self._folder.writing():
            with open(self._folder.metrics, "a") as file:
                file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
            self._events.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))
            self._events.flush()

    def close(self) -> None:
        with self._folder.writing():
            self._events.close()


def read_rows(folder: RunFolder) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`; a last line cut off by a kill is left out."""
    rows = []
    try:
        lines = folder.metrics.read_text().splitlines()
    except FileNotFoundError:
        return []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise FolderError(f"{folder.metrics}, line {number} is no JSON") from error
    return rows
