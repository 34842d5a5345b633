"""Two programs timed in turn, each in a process of its own, so that whatever else the machine does meets both alike."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence


def serve(step: Callable[[], object], *, warmup: int = 2) -> None:
    """The worker's end: warms up, then times as many steps as each line on standard input says.

    `step` returns when its result is there. Answers with the seconds of each step.
    """
    for _ in range(warmup):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print(*seconds, flush=True)


class Worker:
    """The controller's end of one worker.

    Raises:
        RuntimeError: the worker ended; the message carries its last lines.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]):
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._read("ready")

    def time(self, steps: int) -> float:
        """Median seconds of some steps."""
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return statistics.median(float(word) for word in self._read().split())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def _read(self, expected: str = "") -> str:
        for line in self.process.stdout:
            if not expected or line.strip() == expected:
                return line
        raise RuntimeError(f"{' '.join(self.process.args)} ended:\n{self.process.stderr.read()[-2000:]}")


def alternate(workers: Mapping[str, Worker], *, rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds a step: for each worker one figure a round; within a round they follow one another."""
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            seconds[name].append(worker.time(steps))
            time.sleep(0.3)  # OpenMP's threads spin for a while after the last step; the next one shall not meet them
    return seconds


def spread(values: Sequence[float]) -> str:
    """Median, and in brackets the smallest and the largest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"
