"""What a person sees while a run trains: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class Clock:
    """Time spent training: what is spent evaluating or saving is taken out."""

    def __init__(self) -> None:
        self._start, self._paused = time.monotonic(), 0.0

    def seconds(self) -> float:
        return time.monotonic() - self._start - self._paused

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._paused += time.monotonic() - start


class Reporter:
    """The progress line and notes. `quiet` for processes other than the first; `headline`: the metric to show."""

    def __init__(self, num_steps: int, *, quiet: bool = False, headline: str = ""):
        self._quiet, self._headline = quiet, headline
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._live: Progress | None = None
        self._num_steps = num_steps

    @contextlib.contextmanager
    def live(self, step: int) -> Iterator[None]:
        """Keeps the live line on the screen, where there is one."""
        if self._quiet or not self._console.is_terminal:
            yield
            return
        columns = (BarColumn(bar_width=20), TextColumn("{task.description}"))
        with Progress(*columns, console=self._console, refresh_per_second=4) as self._live:
            self._task = self._live.add_task("", total=self._num_steps, completed=step)
            yield
        self._live = None

    def step(self, step: int, values: Mapping[str, float], rate: float, left: float) -> None:
        """Brings the live line up to date; nothing where there is no terminal."""
        if self._live is not None:
            # Short: a terminal has 80 columns, and what is beyond them, the time left, would be cut off.
            line = self._line(step, values, rate, left).removeprefix("step ")
            self._live.update(self._task, completed=step, description=line)

    def line(self, step: int, values: Mapping[str, float], rate: float, left: float) -> None:
        """Likewise at a report, which is a plain line where there is no terminal."""
        self.step(step, values, rate, left)
        if self._live is None:
            self.note(self._line(step, values, rate, left))

    def note(self, text: Any) -> None:
        """A line (or a rich table) that stays."""
        if not self._quiet:
            self._console.print(text, markup=False) if isinstance(text, str) else self._console.print(text)
            self._console.file.flush()

    def _line(self, step: int, values: Mapping[str, float], rate: float, left: float) -> str:
        names = [self._headline, *(name for name in values if name.endswith("accuracy"))]
        accuracy = next((f"  {name} {values[name]:.3f}" for name in names if name in values), "")
        return (
            f"step {step}/{self._num_steps}  loss {values['loss']:.4f}{accuracy}  "
            f"{rate:.0f} examples/s  {_duration(left)} left"
        )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
