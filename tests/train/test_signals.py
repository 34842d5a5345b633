"""SIGTERM and Ctrl-C, sent to the real program in the middle of its training."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from singlestream.train import checkpoint

from .test_cluster import ROOT, finish, losses, start
from .toy import config_file, toy_config

pytestmark = pytest.mark.slow


def stop_after(flags: list[str], workdir: Path, count: int, number: signal.Signals) -> tuple[int, str, str]:
    """Starts the run and sends it the signal as soon as it has logged `count` steps: status, output, errors."""
    (process,) = start(flags, 1)
    while len(losses(workdir)) < count and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    return finish([process])[0]


def test_a_run_that_is_stopped_saves_and_goes_on(scenes, tmp_path):
    """SIGTERM, then in the run that goes on SIGINT, and then the rest of it."""
    # No checkpoint but those of the signals comes before the end.
    config = toy_config(
        scenes,
        model={"num_layers": 1},
        num_steps=5000,
        log_every=1,
        eval_every=5000,
        checkpoint_every=5000,
        schedule="constant",
    )
    run, step = tmp_path / "run", 0
    flags = [config_file(config, tmp_path / "config.py"), f"--workdir={run}"]
    for number in (signal.SIGTERM, signal.SIGINT):
        status, output, errors = stop_after(flags, run, step + 3, number)
        assert status == 128 + number, errors
        assert (f"continuing from step {step} " in output) == (step > 0)
        (step,) = checkpoint.steps(run / "checkpoints")
        place = run / "checkpoints" / str(step)
        assert errors == f"train.py: stopped by a signal at step {step}, saved as {place}; start again to go on\n"
        assert len(losses(run)) == step < 5000
    ((status, output, errors),) = finish(start([*flags, f"--config.train.num_steps={step + 2}"], 1))
    assert status == 0, errors
    assert f"continuing from step {step} " in output and len(losses(run)) == step + 2


SECOND = """
import signal
from singlestream.train.signals import Stop

stop = Stop()
with stop.listening():
    signal.raise_signal(signal.SIGINT)
    assert stop.asked(1) and stop.signal == signal.SIGINT
    try:
        signal.raise_signal(signal.SIGINT)
        print("still here")
    except KeyboardInterrupt:
        print("interrupted")
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
stop = Stop()
with stop.listening():
    signal.raise_signal(signal.SIGTERM)
    assert stop.asked(1) and stop.signal == signal.SIGTERM
    print("asked", flush=True)
    signal.raise_signal(signal.SIGTERM)
    print("still here")
"""


def test_a_second_signal_ends_it_at_once():
    done = subprocess.run([sys.executable, "-c", SECOND], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert done.stdout == "interrupted\nasked\n"
