"""The file of training runs: one line of JSON a run, appended when it ends, so that a stopped session continues."""

from __future__ import annotations

import json
import time
from pathlib import Path

from lab.experiment import Experiment, Result

Key = tuple[int, int, str]  # experiment, seed, arm


def read(path: Path) -> dict[Key, Result]:
    """Results of the runs that a file holds; none where there is no file.

    A last line without its end was cut off by a kill, and counts as no run.

    Raises:
        ValueError: a line that is no row.
    """
    found: dict[Key, Result] = {}
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
            found[row["experiment"], row["seed"], row["arm"]] = row["result"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: not a row of the laboratory ({error!r}); remove the line") from error
    return found


def complete(experiment: Experiment, path: Path) -> list[dict[str, Result]]:
    """Runs what the file lacks of an experiment, a row a run; returns, of each seed, {arm: result}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = read(path)
    _cut(path)
    for seed in experiment.seeds:
        for arm in experiment.arms:
            key = (experiment.number, seed, arm)
            if key in found:
                continue
            start = time.perf_counter()
            found[key] = experiment.module.run(seed, arm)
            row = {"experiment": experiment.number, "seed": seed, "arm": arm, "result": found[key]}
            row["seconds"] = round(time.perf_counter() - start, 1)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    return [{arm: found[experiment.number, seed, arm] for arm in experiment.arms} for seed in experiment.seeds]


def _cut(path: Path) -> None:
    """Removes a last line without its end, so that the next row starts a line."""
    if path.exists():
        text = path.read_bytes()
        path.write_bytes(text[: text.rfind(b"\n") + 1])
