"""What a training step costs outside the device: time of the thread that drives it, and compilations after warm-up.

    python benchmarks/step.py

The device's work runs in threads of its own; the driving thread's processor time is what Python, flax and jax's
dispatch take: placing the batch, passing the state's arrays in and out, reading the metrics of the step before.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
from alternate import spread
from cases import Case
from ours import config_of, train_step

TARGET = 3.0  # ms
BASE = Case(width=96, layers=4, heads=3, mlp=384, patch=8, side=6, text=11, batch=32, target=0, answers=32)
CASES = {"4 layers, width 96": BASE, "12 layers, width 96": Case(**{**BASE.__dict__, "layers": 12})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    compilations: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compilations.append(event) if "backend_compile" in event else None
    )
    print("| model | layers run | wall, ms | driving thread, ms | target | compilations after warm-up |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, case in CASES.items():
        for layers in ("unrolled", "scan"):
            step, batch = train_step(case, config_of(case, layers=layers))
            before = jax.device_get(step(batch))
            compilations.clear()
            wall, thread = [], []
            for _ in range(args.steps):
                started, used = time.perf_counter(), time.thread_time()
                metrics = step(batch)
                jax.device_get(before)
                thread.append((time.thread_time() - used) * 1e3)
                before = metrics
                jax.block_until_ready(before)
                wall.append((time.perf_counter() - started) * 1e3)
            print(
                f"| {name} | {layers} | {statistics.median(wall):.1f} | {spread(thread)} | {TARGET:.1f} | "
                f"{len(compilations)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
