"""kill -9, for real: three kills at chosen states, or with SINGLESTREAM_KILLS=10 ten at random moments."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from singlestream.config import Config
from singlestream.train import checkpoint
from singlestream.train.folder import RunFolder
from singlestream.train.metrics import read_rows

from .test_pretraining import pretraining
from .toy import config_file, toy_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RANDOM_KILLS = int(os.environ.get("SINGLESTREAM_KILLS", "0"))


def start(file: str, workdir: Path, *, devices: int = 0) -> subprocess.Popen[bytes]:
    """Begins a training; on so many devices, 0: as many as the tests themselves have."""
    command = [sys.executable, "train.py", file, f"--workdir={workdir}"]
    environ = {**os.environ, "JAX_PLATFORMS": "cpu"}
    if devices:
        environ["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_when(process: subprocess.Popen[bytes], ready) -> bool:
    """Kills the process as soon as `ready()`; whether it was still there."""
    while process.poll() is None and not ready():
        time.sleep(0.005)
    process.kill()
    return process.wait() == -9


def kill_at_states(file: str, folder: Path) -> int:
    """Beside the first files, while a checkpoint is written, while an old one goes: how many kills there were."""
    kills = kill_when(start(file, folder), lambda: (folder / "vocab.txt").exists())
    for at in (2, 8):
        kills += kill_when(start(file, folder), lambda at=at: last_step(folder) >= at)
    return kills


def kill_at_random(file: str, folder: Path, count: int, *, num_steps: int, seconds: float) -> int:
    """`count` kills, each at most `seconds` after a start, before the run comes to its end."""
    seed = random.SystemRandom().getrandbits(32)
    moments, kills = random.Random(seed), 0
    for i in range(count):
        process, began, wait = start(file, folder), time.monotonic(), moments.uniform(0, seconds)
        share = num_steps * (i + 1) // (count + 1)  # what a process may train at most, so that the last finds work
        kills += kill_when(
            process,
            lambda wait=wait, began=began, share=share: time.monotonic() - began > wait or last_step(folder) >= share,
        )
        print(
            f"seed {seed}, kill {i + 1}: {time.monotonic() - began:.3f} s after the start, "
            f"last checkpoint {last_step(folder)}",
            flush=True,
        )
    return kills


def last_step(folder: Path) -> int:
    return max(checkpoint.steps(folder / "checkpoints"), default=0)


def of_one(scenes, **train) -> Config:
    """The toy run: questions."""
    return toy_config(scenes, model={"num_layers": 1}, **train)


def of_six(scenes, **train) -> Config:
    """Six objectives of pre-training on four corpora."""
    return pretraining(scenes, "patches", **train)


@pytest.mark.parametrize("objectives", [of_one, of_six])
def test_killed_at_any_moment_it_goes_on_bit_for_bit(scenes, tmp_path, objectives):
    """At the end all is the same as in a run that nothing disturbed.

    Three kills at chosen states; the environment variable SINGLESTREAM_KILLS=10 makes them ten at random moments (`-s`
    shows them), with a seed from the system, on a run that is longer by as much.
    """
    num_steps = 16 * max(1, RANDOM_KILLS)
    # A cache of its own: a kill may leave half of an entry.
    config = objectives(
        scenes,
        cache_dir=str(tmp_path / "cache"),
        num_steps=num_steps,
        checkpoint_every=2,
        eval_every=num_steps,
        log_every=5,
    )
    file = config_file(config, tmp_path / "config.py")
    calm, hurt = tmp_path / "calm", tmp_path / "hurt"
    began = time.monotonic()
    assert start(file, calm).wait(timeout=300) == 0
    seconds = time.monotonic() - began

    if RANDOM_KILLS:
        assert kill_at_random(file, hurt, RANDOM_KILLS, num_steps=num_steps, seconds=seconds) == RANDOM_KILLS
    else:
        assert kill_at_states(file, hurt) == 3
    assert start(file, hurt).wait(timeout=300) == 0

    states = [checkpoint.read_state(folder / "checkpoints", num_steps) for folder in (calm, hurt)]
    jax.tree.map(np.testing.assert_array_equal, *states)
    calm_rows, hurt_rows = (
        [(row["step"], row["split"], row["loss"]) for row in read_rows(RunFolder.at(folder))] for folder in (calm, hurt)
    )
    assert calm_rows == hurt_rows
