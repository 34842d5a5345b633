"""Runs the experiments and prints one table; see `lab`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lab import report, rows
from lab.experiment import Experiment, Result, find, load


def main(arguments: Sequence[str] | None = None, *, package: str = "lab") -> None:
    """Runs what is asked for. A claim that fails is a result and no error.

    Args:
        arguments: of the command line; by default this process's.
        package: where the experiments lie.
    """
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    parser.add_argument(
        "--only", default="", help="numbers of experiments, as in 3,8; by default all of the kind asked for"
    )
    parser.add_argument(
        "--train", action="store_true", help="those that train models, instead of those about mechanisms"
    )
    parser.add_argument("--rows", type=Path, default=Path("runs/lab.jsonl"), help="where a training run becomes a row")
    parser.add_argument("--figures", type=Path, help="folder to draw a figure of each experiment into")
    parser.add_argument("--page", type=Path, help="page to write a section of each experiment into")
    options = parser.parse_args(arguments)
    try:
        chosen = choose(options.only, options.train, package)
        rows.read(options.rows)
    except ValueError as error:
        parser.error(str(error))
    print(report.TABLE, flush=True)
    sections = {}
    for experiment in chosen:
        start = time.perf_counter()
        results = runs(experiment, options.rows)
        checks = experiment.module.judge(results)
        print("\n".join(report.rows(experiment, checks)), flush=True)
        print(f"{experiment.name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
        figure = report.write_figure(experiment, results, options.figures) if options.figures else None
        if options.page:
            place = os.path.relpath(figure, options.page.parent) if figure else ""
            sections[experiment.number] = report.section(experiment, checks, place)
    if options.page:
        report.write_page(options.page, sections)


def choose(only: str, train: bool, package: str) -> list[Experiment]:
    """The experiments asked for, in order.

    Raises:
        ValueError: a number that is none, or none of the kind asked for.
    """
    try:
        numbers = [int(number) for number in only.split(",")] if only else list(find(package))
    except ValueError as error:
        raise ValueError(f"--only={only}: numbers with commas between, as in 3,8") from error
    found = [load(number, package) for number in numbers]
    kind = [experiment for experiment in found if bool(experiment.arms) == train]
    if only and len(kind) < len(found):
        other = ", ".join(str(experiment.number) for experiment in found if experiment not in kind)
        raise ValueError(
            f"--only={only}: {other} {'train nothing: without' if train else 'train models: with'} --train"
        )
    return kind


def runs(experiment: Experiment, path: Path) -> list[Result]:
    """The results of each seed."""
    if experiment.arms:
        return rows.complete(experiment, path)
    return [experiment.module.run(seed) for seed in experiment.seeds]


if __name__ == "__main__":
    main()
