"""What the laboratory shows: lines of a table, a figure an experiment, and sections of a page."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.experiment import PARTS, Check, Experiment, Result, passed

HEAD = """# Theory, tested

What is claimed of attention, each claim with the experiment that could refute it: a file of [lab](../lab). Written by
`python -m lab --figures=docs/images/lab --page=docs/theory.md`; a claim about trained models is tested with `--train`.
Numbers are the median of the seeds, the smallest and the largest. A claim holds if every seed lies within the bounds,
which are fixed before. Where a first bound was a bad guess and was moved, or one was added, it says so under "Seen":
(2), (7), (8), (12), (16), (23) and (24); (18) was asked in another way at first. A number without bounds is told and
decides nothing.
"""
TABLE = "| | measured | median | smallest to largest | wanted | |\n| --- | --- | --- | --- | --- | --- |"


def number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:.3g}"


def wanted(check: Check) -> str:
    """The bounds of a check, in words."""
    bounds = [
        word + number(bound)
        for word, bound in (("at least ", check.least), ("at most ", check.most))
        if math.isfinite(bound)
    ]
    return ", ".join(bounds)


def verdict(holds: bool) -> str:
    return "pass" if holds else "FAIL"


def row(experiment: int, check: Check) -> str:
    """A check of an experiment as a line of the table."""
    spread = f"{number(min(check.values))} to {number(max(check.values))}"
    cells = [str(experiment), check.figure, number(statistics.median(check.values)), spread, wanted(check)]
    return f"| {' | '.join(cells)} | {verdict(check.passed) if check.decides else ''} |"


def rows(experiment: Experiment, checks: Sequence[Check]) -> list[str]:
    """An experiment in the table: its claim, then its numbers."""
    claim = f"| **{experiment.number}** | {experiment.claim} | | | | **{verdict(passed(checks))}** |"
    return [claim, *(row(experiment.number, check) for check in checks)]


def section(experiment: Experiment, checks: Sequence[Check], figure: str) -> str:
    """An experiment on the page; `figure` is the picture's place as seen from the page, or empty."""
    parts = [f"**{name}:** {experiment.parts[name]}" for name in PARTS if name in experiment.parts]
    picture = [f"![{experiment.claim}]({figure})"] if figure else []
    table = "\n".join([TABLE, *(row(experiment.number, check) for check in checks)])
    source = f"[lab/{experiment.name}.py](../lab/{experiment.name}.py): **{verdict(passed(checks))}**"
    title = f"## {experiment.number}. {experiment.claim.rstrip('.')}"
    return "\n\n".join([title, source, *parts, *picture, table]) + "\n"


def write_page(page: Path, sections: dict[int, str]) -> None:
    """Writes sections into a page; those it has of other experiments stay."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    old = {
        int(part.split(".")[0]): f"## {part.rstrip()}\n" for part in re.split(r"^## (?=\d+\.)", text, flags=re.M)[1:]
    }
    everything = {**old, **sections}
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join([HEAD, *(everything[key] for key in sorted(everything))]), encoding="utf-8")


def write_figure(experiment: Experiment, results: Sequence[Result], folder: Path) -> Path:
    """Draws an experiment into `FOLDER/NAME.svg`, the same bytes for the same numbers."""
    import matplotlib
    from matplotlib.figure import Figure

    path = folder / f"{experiment.name}.svg"
    folder.mkdir(parents=True, exist_ok=True)
    style: Any = {
        "svg.hashsalt": experiment.name,
        "svg.fonttype": "none",
        "axes.spines.right": False,
        "axes.spines.top": False,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        experiment.module.draw(results, figure.subplots())
        figure.savefig(path, metadata={"Date": None})
    return path
