"""The cost of attention grows with the square of the number of tokens N + T; with a fixed number of keys that are
routed to each query it grows linearly.

Source: N + T tokens that all see each other, Vaswani et al. 2017, table 1 (O(n^2 d) a layer); few keys by blocks, Roy
et al. 2021, section 4; the library's selections `routed` and `topk`.

Test: one layer's attention (4 heads of 64, a text of 64 tokens, the rest patches), forward, at 1,024, 2,048 and 4,096
tokens, as `benchmarks/attention.py` measures it: processor time of all threads, the smaller one of two calls in a row,
five times over, and the memory that XLA plans for between inputs and outputs. Slopes of their logarithms are fitted.
`soft` reads everything at once, `routed` 256 keys in 4 blocks of 64; exact `topk` computes every score, in stretches,
and keeps 256 (to 2,048 tokens). By count, soft has slopes of 2 and routed of 1: its coarse scores are one in 4,096 of
soft's.

Refuted if: a slope of soft lies outside 1.8 to 2.2, routed's of time is above 1.3, its of memory or topk's above 1.2.

Seen: as claimed on a machine with nothing else to do: slopes of memory of 2.00 and 0.91, of time of 2.08 for soft (1.81
to 2.12) and 0.58 for routed, 13 times faster than soft at 4,096 tokens. Beside other work soft's time refuted the claim
as it was set, 2.33 (2.04 to 2.60), when its 512 MiB of scores had no cache to themselves. In a first form, where the
kinds took turns, routed had slopes from -0.21 to 1.19 and soft up to 2.61: a call paid for what the one before it, of
another size, gave back.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.experiment import Check, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LENGTHS = (1024, 2048, 4096)
WAYS = {"soft": "soft, at once", "routed": "routed", "topk": "topk"}  # by the benchmark's names
LONGEST = {"topk": 2048}  # which takes seconds beyond


@functools.cache
def benchmark() -> Any:
    """The module of benchmarks/attention.py: a script, beside others that it imports."""
    folder = str(Path(__file__).resolve().parents[1] / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("attention")


@functools.cache
def program(way: str, length: int) -> Any:
    """What is called, and the bytes that XLA plans for it."""
    compiled, inputs = benchmark().compiled_of(way, length, False)
    benchmark().processor_time(compiled, inputs)  # the first call makes room
    return compiled, inputs, compiled.memory_analysis().temp_size_in_bytes


@functools.cache
def seconds(way: str, length: int, seed: int) -> float:
    """Processor time of a call, measured once for a seed."""
    compiled, inputs, _ = program(way, length)
    # Twice in a row: the first call pays for what the one before it, of another size, gives back.
    return min(benchmark().processor_time(compiled, inputs) for _ in range(2))


def run(seed: int, *, routed: str = "routed") -> Result:
    """`routed`: the way that is meant to be linear. The seed is only one measurement more."""
    found: Result = {}
    for name, way in {**WAYS, "routed": routed}.items():
        tokens = [n for n in LENGTHS if n <= LONGEST.get(name, n)]
        times = [seconds(way, n, seed) for n in tokens]
        found[name] = {"tokens": tokens, "seconds": times, "memory": [program(way, n)[2] for n in tokens]}
    return found


def slope(result: Result, name: str, figure: str) -> float:
    """By which power of the number of tokens it grows, by least squares."""
    tokens, values = (np.log(result[name][key]) for key in ("tokens", figure))
    return float(np.polyfit(tokens, values, 1)[0])


def judge(results: Sequence[Result]) -> list[Check]:
    bounds = {
        ("soft", "seconds"): (1.8, 2.2),
        ("soft", "memory"): (1.8, 2.2),
        ("routed", "seconds"): (-np.inf, 1.3),
        ("routed", "memory"): (-np.inf, 1.2),
        ("topk", "memory"): (-np.inf, 1.2),
        ("topk", "seconds"): (-np.inf, np.inf),
    }
    slopes = [
        Check(f"{name}: slope of {figure}", [slope(r, name, figure) for r in results], *limits)
        for (name, figure), limits in bounds.items()
    ]
    faster = [r["soft"]["seconds"][-1] / r["routed"]["seconds"][-1] for r in results]
    return [*slopes, Check(f"soft over routed at {LENGTHS[-1]} tokens, seconds", faster)]


def draw(results: Sequence[Result], axes: Axes) -> None:
    memory = axes.twinx()
    for name, colour in zip(WAYS, ("#b91c1c", "#1d4ed8", "#047857"), strict=True):
        tokens = results[0][name]["tokens"]
        seconds = [r[name]["seconds"] for r in results]
        axes.loglog(tokens, 1e3 * np.median(seconds, 0), "o-", color=colour, label=name)
        memory.loglog(tokens, np.array(results[0][name]["memory"]) / 2**20, "s--", color=colour, alpha=0.6)
    axes.set_xticks(LENGTHS, [f"{n:,}" for n in LENGTHS])
    axes.minorticks_off()
    axes.set(xlabel="tokens N + T", ylabel="processor time, ms (solid)")
    memory.set(ylabel="planned memory, MiB (dashed)")
    axes.legend()
