"""What a training step costs outside the device: time of the thread that drives it, and compilations after warm-up.

    python benchmarks/step.py [--data_dir=data]

The device's work runs in threads of its own; the driving thread's processor time is what Python, flax and jax's
dispatch take: placing the batch, passing the state's arrays in and out, reading the metrics of the step before. The
second table is of the loop that `train.py` runs on the quickstart, with its data, reports, evaluations and checkpoints.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
from alternate import spread
from cases import Case
from ours import config_of, train_step

from singlestream.config import Config
from singlestream.train.build import build_run
from singlestream.train.folder import RunFolder
from singlestream.train.loop import Loop
from singlestream.train.progress import Reporter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from configs import quickstart  # noqa: E402

TARGET = 3.0  # ms
WARM_UP = 5  # steps
BASE = Case(width=96, layers=4, heads=3, mlp=384, patch=8, side=6, text=11, batch=32, target=0, answers=32)
CASES = {"4 layers, width 96": BASE, "12 layers, width 96": Case(**{**BASE.__dict__, "layers": 12})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="of each row; of the loop five times as many")
    parser.add_argument("--data_dir", default="", help="config.data.dir, where Scenes lies or will be made")
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
    whole_loop(5 * args.steps, args.data_dir, compilations)


def whole_loop(steps: int, data_dir: str, compilations: list[str]) -> None:
    """Two evaluations, two checkpoints and a report each tenth step, all of it by the thread that drives the steps."""
    config = Config.from_config_dict(quickstart.get_config())
    train = dataclasses.replace(
        config.train, num_steps=steps, log_every=10, eval_every=steps // 2, checkpoint_every=steps // 2, eval_batches=4
    )
    config = dataclasses.replace(config, train=train, data=dataclasses.replace(config.data, dir=data_dir))
    with tempfile.TemporaryDirectory() as workdir:
        folder = RunFolder.at(workdir)
        folder.create()
        loop = Loop(build_run(config, folder), Reporter(steps, quiet=True))
        step, marks = loop.train_step, []

        def marked(*args: object) -> object:
            marks.append((time.perf_counter(), time.thread_time()))
            if len(marks) == WARM_UP:
                compilations.clear()
            return step(*args)

        loop.train_step = marked
        loop.run_steps()
        loop.close()
    wall, thread = (
        [(after - before) * 1e3 for before, after in zip(times, times[1:], strict=False)]
        for times in zip(*marks[WARM_UP:], strict=True)
    )
    print("\n| the loop of | wall, ms | driving thread, ms | target | compilations after warm-up |")
    print("| --- | --- | --- | --- | --- |")
    row = (f"{statistics.median(wall):.1f}", spread(thread), f"{TARGET:.1f}", str(len(compilations)))
    print(f"| configs/quickstart.py | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
