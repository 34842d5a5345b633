"""kill -9, for real."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from singlestream.train import checkpoint
from singlestream.train.folder import RunFolder
from singlestream.train.metrics import read_rows

from .toy import config_file, toy_config

ROOT = Path(__file__).parents[2]


def start(file: str, workdir: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "train.py", file, f"--workdir={workdir}"]
    environ = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_when(process: subprocess.Popen[bytes], ready) -> bool:
    """Kills the process as soon as `ready()`; whether it was still there."""
    while process.poll() is None and not ready():
        time.sleep(0.005)
    process.kill()
    return process.wait() == -9


def test_killed_at_any_moment_it_goes_on_bit_for_bit(scenes, tmp_path):
    """While the first files are written, while a checkpoint is, while an old one goes; at the end all is the same."""
    # A cache of its own: a kill may leave half of an entry.
    config = toy_config(
        scenes, cache_dir=str(tmp_path / "cache"), num_steps=16, checkpoint_every=2, eval_every=16, log_every=5
    )
    file = config_file(config, tmp_path / "config.py")
    calm, hurt = tmp_path / "calm", tmp_path / "hurt"
    assert start(file, calm).wait(timeout=300) == 0

    kills = kill_when(start(file, hurt), lambda: (hurt / "vocab.txt").exists())
    assert not (hurt / "config.json").exists()
    for at in (2, 8):
        kills += kill_when(
            start(file, hurt), lambda at=at: max(checkpoint.steps(hurt / "checkpoints"), default=0) >= at
        )
    assert kills == 3
    assert start(file, hurt).wait(timeout=300) == 0

    states = [checkpoint.read_state(folder / "checkpoints", 16) for folder in (calm, hurt)]
    jax.tree.map(np.testing.assert_array_equal, *states)
    calm_rows, hurt_rows = (
        [(row["step"], row["split"], row["loss"]) for row in read_rows(RunFolder.at(folder))] for folder in (calm, hurt)
    )
    assert calm_rows == hurt_rows
