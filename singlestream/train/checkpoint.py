"""Checkpoints by Orbax, the one file that imports it: `checkpoints/STEP/{state,loop,metrics}`.

`state` is the pytree of arrays, `loop` is JSON (where the data iterators stand), `metrics` what evaluation found.
Saving is asynchronous; a step's folder gets its name when all of it is written, so a kill leaves no half checkpoint.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec
from orbax.checkpoint.checkpoint_managers import preservation_policy

from singlestream.config import TrainConfig
from singlestream.train.errors import CheckpointError
from singlestream.train.fingerprint import by_path, device_sums, first_difference, host_sum
from singlestream.train.paths import path_of

# A checkpoint is renamed into this folder before it is deleted: a kill in between leaves no half of one.
_TO_DELETE = ".deleted"


def lower_is_better(metric: str) -> bool:
    return metric == "loss" or metric.endswith("/loss")


class Checkpoints:
    """The checkpoints of a run: the latest and the best are kept, whatever else the newest replaces goes.

    Args:
        folder: `checkpoints/` of the run.
        config: `keep_latest`, `keep_best`, `best_metric`.
        abstract: the state that will be saved, as `ShapeDtypeStruct`s with shardings.
    """

    def __init__(self, folder: Path, config: TrainConfig, abstract: Any):
        self.folder, self._abstract = folder, abstract
        # Compiled now: nothing is to be compiled between two steps.
        whole = NamedSharding(jax.tree.leaves(abstract)[0].sharding.mesh, PartitionSpec())
        self._sums = jax.jit(device_sums, out_shardings=whole).lower(abstract).compile()
        self.metric = config.best_metric or "loss"
        _drop_leftovers(folder)
        policy = preservation_policy
        best = policy.BestN(
            get_metric_fn=functools.partial(_score, name=self.metric),
            n=config.keep_best,
            keep_checkpoints_without_metrics=False,
        )
        options = ocp.CheckpointManagerOptions(
            best_fn=best.get_metric_fn,  # without it the metrics are not written
            todelete_subdir=_TO_DELETE,
            preservation_policy=policy.AnyPreservationPolicy([policy.LatestN(config.keep_latest), best]),
            save_decision_policy=_Always(),
        )
        self._manager = ocp.CheckpointManager(folder, options=options)

    def steps(self) -> list[int]:
        return steps(self.folder)

    def save(self, step: int, state: Any, loop: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        """Begins to write a checkpoint; returns when the arrays are copied and may be donated.

        Raises:
            CheckpointError: this or the previous write failed (a full disk).
        """
        self.wait()
        # A copy: it is written in the background, while the loop goes on counting.
        kept = {**copy.deepcopy(dict(loop)), "sums": by_path(state, self._sums(state))}
        args = ocp.args.Composite(state=ocp.args.PyTreeSave(state), loop=ocp.args.JsonSave(kept))
        with self._writing():
            self._manager.save(step, args=args, metrics=None if metrics is None else dict(metrics))

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
            CheckpointError: a write in the background failed.
        """
        with self._writing():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        _drop(self.folder / _TO_DELETE)

    def close(self) -> None:
        with self._writing():
            self._manager.close()
        _drop(self.folder / _TO_DELETE)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        # The writers below Orbax raise errors of many types for one cause, a disk that takes no more.
        try:
            yield
        except Exception as error:
            last = self.steps()
            good = f"the last good one is {self.folder / str(last[-1])}" if last else "there is none yet"
            raise CheckpointError(
                f"a checkpoint cannot be written into {self.folder} ({_first_line(error)}); {good}"
            ) from error

    def restore(self, step: int) -> tuple[Any, dict[str, Any]]:
        """The state, onto the shardings that it will be saved with, and what the loop kept.

        Raises:
            CheckpointError: it cannot be read, is of another model, or is not what was saved.
        """
        state = restore_tree(self.folder, step, self._abstract, sums=self._sums)
        return state, _loop(self.folder, step)


class _Always:
    """The loop decides when to save; Orbax's default refuses steps that it does not find regular."""

    def should_save(self, step: Any, previous_steps: Any, *, context: Any) -> bool:
        del step, previous_steps, context
        return True


def steps(folder: Path) -> list[int]:
    """Steps of the finished checkpoints in a `checkpoints/` folder, in order."""
    if not folder.is_dir():
        return []
    found = [entry for entry in folder.iterdir() if entry.name.isdigit() and (entry / "state").is_dir()]
    return sorted(int(entry.name) for entry in found)


def restore_tree(folder: Path, step: int, abstract: Any, *, sums: Callable[[Any], Any] | None = None) -> Any:
    """The part of a checkpoint's state that `abstract` asks for, compared with it leaf by leaf.

    Args:
        folder: `checkpoints/` of a run.
        step: which of them.
        abstract: a tree of `ShapeDtypeStruct`s; at its top any of the state's keys ({"params": ...}). Leaves with a
            sharding come as jax arrays placed so, others as numpy arrays.
        sums: a compiled `fingerprint.device_sums`; by default the arrays are summed in numpy.

    Raises:
        CheckpointError: no such checkpoint, unreadable, other leaves or shapes than `abstract` (each named), or other
            content than was saved.
    """
    item = folder / str(step) / "state"
    if not item.is_dir():
        have = ", ".join(map(str, steps(folder))) or "none"
        raise CheckpointError(f"{folder} has no checkpoint of step {step}; it has {have}")
    saved = _shapes(folder, step)
    _compare(folder, step, {key: saved[key] for key in abstract if key in saved}, abstract)
    restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
    args = ocp.args.PyTreeRestore(item=abstract, restore_args=restore_args, partial_restore=True)
    return _read(folder, step, args, sums)


def _read(folder: Path, step: int, args: Any, sums: Callable[[Any], Any] | None = None) -> Any:
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            tree = checkpointer.restore(folder / str(step) / "state", args=args)
    except Exception as error:  # tensorstore, Orbax and json each have their own
        raise _damaged(folder, step, _first_line(error)) from error
    found = [host_sum(leaf) for leaf in jax.tree.leaves(tree)] if sums is None else sums(tree)
    wrong = first_difference(by_path(tree, found), _loop(folder, step).get("sums", {}))
    if wrong is not None:
        raise _damaged(folder, step, f"{wrong} is not what was saved")
    return tree


def _shapes(folder: Path, step: int) -> Any:
    """The saved state as a tree of shapes, read without its arrays."""
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            return checkpointer.metadata(folder / str(step) / "state").item_metadata.tree
    except Exception as error:
        raise _damaged(folder, step, _first_line(error)) from error


def _loop(folder: Path, step: int) -> dict[str, Any]:
    """What the loop kept with a checkpoint."""
    try:
        return json.loads((folder / str(step) / "loop" / "metadata").read_text())
    except (OSError, ValueError) as error:
        raise _damaged(folder, step, _first_line(error)) from error


def has_average(folder: Path, step: int) -> bool:
    """Whether a checkpoint holds averaged parameters beside the last ones."""
    return "ema" in _shapes(folder, step)


def read_params(folder: Path, step: int, abstract: Any) -> Any:
    """A checkpoint's parameters, the averaged ones where the run kept an average.

    Args:
        folder: `checkpoints/` of a run.
        step: one of `steps(folder)`, see `find_step`.
        abstract: the model's parameters as `ShapeDtypeStruct`s, a pure dict (`state.split_model`).
    """
    key = "ema" if has_average(folder, step) else "params"
    return restore_tree(folder, step, {key: abstract})[key]


def read_any_params(folder: Path, step: int) -> dict[str, Any]:
    """Every parameter of a checkpoint as {path: numpy array}, whatever its model; averages where there are some."""
    tree = read_state(folder, step)
    leaves = jax.tree_util.tree_leaves_with_path(tree["ema"] if "ema" in tree else tree["params"])
    return {path_of(keys): leaf for keys, leaf in leaves}


def read_state(folder: Path, step: int) -> dict[str, Any]:
    """All of a checkpoint's state as nested dicts and lists of numpy arrays, whatever devices it was saved from."""
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), _shapes(folder, step))
    return _read(folder, step, ocp.args.PyTreeRestore(restore_args=as_numpy))


def find_step(folder: Path, which: str | int, config: TrainConfig) -> int:
    """The step that `latest`, `best` (by `config.best_metric`) or a number names.

    Raises:
        CheckpointError: there is none; the message lists those that there are.
    """
    have = steps(folder)
    if not have:
        raise CheckpointError(f"{folder} has no checkpoint yet")
    if which == "latest":
        return have[-1]
    if which == "best":
        name = config.best_metric or "loss"
        scores = {step: _score(_metrics(folder, step), name) for step in have}
        return max(have, key=lambda step: (scores[step], step))
    if str(which).isdigit() and int(which) in have:
        return int(which)
    raise CheckpointError(f"no checkpoint {which!r} in {folder}: choose best, latest or {', '.join(map(str, have))}")


def _metrics(folder: Path, step: int) -> dict[str, float]:
    """What evaluation found at a checkpoint; {} where there was none."""
    try:
        return json.loads((folder / str(step) / "metrics" / "metrics").read_text())
    except (OSError, ValueError):
        return {}


def _score(metrics: Mapping[str, float], name: str) -> float:
    """The metric, higher is better; the lowest score of all where it is missing or no number."""
    value = metrics.get(name, math.nan)
    if math.isnan(value):
        return -math.inf
    return -value if lower_is_better(name) else value


def _compare(folder: Path, step: int, saved: Any, abstract: Any) -> None:
    def leaves(tree: Any) -> dict[str, tuple[int, ...]]:
        return {path_of(keys): tuple(leaf.shape) for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}

    old, new = leaves(saved), leaves(abstract)
    lines = [f"{path} is missing" for path in sorted(new.keys() - old.keys())]
    lines += [f"{path} is not part of the model" for path in sorted(old.keys() - new.keys())]
    lines += [
        f"{path} is {list(old[path])}, the model has {list(new[path])}"
        for path in sorted(old.keys() & new.keys())
        if old[path] != new[path]
    ]
    if lines:
        more = f"; and {len(lines) - 6} more" if len(lines) > 6 else ""
        raise CheckpointError(f"{folder / str(step)} is of another model: {'; '.join(lines[:6])}{more}")


def _damaged(folder: Path, step: int, why: str) -> CheckpointError:
    others = [str(other) for other in steps(folder) if other != step]
    then = f"to go on from step {others[-1]}" if others else "to start anew"
    return CheckpointError(f"{folder / str(step)} cannot be read ({why}). Remove that folder {then}")


def _first_line(error: Exception) -> str:
    """A long one without its middle: what failed comes first, the system's reason last."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= 300 else f"{line[:150]} ... {line[-150:]}"


def _drop_leftovers(folder: Path) -> None:
    """Removes what a killed process left: a step half written, or one on its way out."""
    if folder.is_dir() and jax.process_index() == 0:
        for entry in folder.iterdir():
            if entry.name == _TO_DELETE or ".orbax-checkpoint-tmp" in entry.name:
                _drop(entry)


def _drop(folder: Path) -> None:
    if jax.process_index() == 0:
        shutil.rmtree(folder, ignore_errors=True)
