"""Two real processes that train as one, over localhost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from singlestream.config import ConfigError
from singlestream.train import checkpoint
from singlestream.train.cluster import asks, join_cluster
from singlestream.train.folder import RunFolder
from singlestream.train.metrics import read_rows

from .toy import config_file, toy_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, True),
        ({"SLURM_NTASKS": "2"}, False),  # the shell of `salloc`, not a task of `srun`
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "t1k-0,t1k-1"}, True),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "t1k-0"}, True),
        ({"JAX_COORDINATOR_ADDRESS": "localhost:1"}, True),
    ],
)
def test_when_the_environment_asks(env, expected):
    assert asks(env) is expected


@pytest.mark.parametrize("env", [{}, {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "first"}])
def test_an_address_alone(env):
    with pytest.raises(ConfigError, match="JAX_NUM_PROCESSES and JAX_PROCESS_ID must be set to numbers"):
        join_cluster({"JAX_COORDINATOR_ADDRESS": "localhost:1", **env})


def start(flags: list[str], processes: int) -> list[subprocess.Popen[str]]:
    """train.py as `processes` processes of one device each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    cluster = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes)}
    return [
        subprocess.Popen(
            [sys.executable, "train.py", *flags],
            cwd=ROOT,
            env={**os.environ, **(cluster if processes > 1 else {}), "JAX_PROCESS_ID": str(i), "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    try:
        return [(p.returncode, *texts) for p in processes for texts in [p.communicate(timeout=300)]]
    finally:
        for process in processes:
            process.kill()


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_rows(RunFolder.at(folder)) if row["split"] == "train"]


def test_two_processes_train_as_one(scenes, tmp_path):
    """Ctrl-C to one is SIGTERM to both, and they save the same step and leave; they go on; one gets the same curve."""
    steps = dict(num_steps=300, log_every=1, eval_every=300, checkpoint_every=300, schedule="constant")
    config = toy_config(scenes, model={"num_layers": 1}, **steps)
    file = config_file(config, tmp_path / "config.py")
    two, one = tmp_path / "two", tmp_path / "one"
    running = start([file, f"--workdir={two}"], 2)
    while len(losses(two)) < 5 and all(process.poll() is None for process in running):
        time.sleep(0.1)
    running[1].send_signal(signal.SIGINT)
    stopped = finish(running)
    assert [status for status, *_ in stopped] == [128 + signal.SIGTERM, 128 + signal.SIGINT], stopped
    step = checkpoint.steps(two / "checkpoints")[-1]
    assert f"stopped by a signal at step {step}" in stopped[0][2]
    assert "loss" in stopped[0][1] and "loss" not in stopped[1][1]  # the first process alone reports

    flags = [file, f"--config.train.num_steps={step + 2}"]
    for status, _, error in finish(start([*flags, f"--workdir={two}"], 2)) + finish(
        start([*flags, f"--workdir={one}"], 1)
    ):
        assert status == 0, error
    assert len(losses(two)) == step + 2
    np.testing.assert_allclose(losses(two)[:10], losses(one)[:10], rtol=1e-5)
