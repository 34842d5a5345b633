"""What a call adds to this process's memory, seen every few milliseconds while it runs. Linux."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


def status() -> dict[str, int]:
    """Bytes of this process by kind of memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if line.startswith(("VmRSS", "RssAnon")))
    return {name: int(value.split()[0]) * 1024 for name, value in fields.items()}


def measured(call: Callable[[], Result]) -> tuple[Result, dict[str, float]]:
    """What the call gives; its seconds, and what it added to the memory at most and in the end, in bytes.

    `own` is anonymous memory; `resident` counts the pages of mapped files, too; `end` is `own` afterwards.
    """
    before, seen, done = status(), [], threading.Event()

    def watch() -> None:
        while not done.wait(0.003):
            seen.append(status())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
        result = call()
    finally:
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
    after = status()
    peaks = {name: max(each[name] for each in [*seen, after]) - before[name] for name in before}
    end = after["RssAnon"] - before["RssAnon"]
    return result, {"seconds": seconds, "own": peaks["RssAnon"], "resident": peaks["VmRSS"], "end": end}
