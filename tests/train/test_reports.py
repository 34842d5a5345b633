"""What a run says of itself: TensorBoard's curves, the share of the device that it uses, the line on the terminal."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.cells import cell_len

from singlestream.batch import Patches, Text, make_batch
from singlestream.model.config import ModelConfig
from singlestream.train.flops import PEAKS, peak_flops, train_flops
from singlestream.train.folder import RunFolder
from singlestream.train.loop import use_cache
from singlestream.train.metrics import Writer
from singlestream.train.progress import Reporter

from .events import read_events, rows_as_events


def test_a_restarted_run_has_one_curve(tmp_path):
    """Killed after step 4 with a checkpoint of step 2: what was said of 3 and 4 is forgotten, on both sides."""
    for start, steps, loss in ((0, (1, 2, 3, 4), 2.0), (2, (3, 4, 5), 1.5)):
        writer = Writer(RunFolder.at(tmp_path), start)
        for step in steps:
            writer.write(step, "train", {"loss": loss / step, "examples": 8})
            writer.write(step, "validation", {"vqa/accuracy": step / 7})
        writer.close()
    found = read_events(tmp_path)
    assert found == rows_as_events(tmp_path)
    assert found["train/loss"] == [
        (s, np.float32(loss / s)) for s, loss in ((1, 2), (2, 2), (3, 1.5), (4, 1.5), (5, 1.5))
    ]
    assert set(found) == {"train/loss", "train/examples", "validation/vqa/accuracy"}


def test_flops_of_a_step_by_hand():
    """3 rows of 5 tokens and 7 patches of 12 values, two layers of width 4: multiplications counted one by one."""
    config = ModelConfig(width=4, num_layers=2, num_heads=2, mlp_dim=8)
    place = np.zeros((3, 7, 2), np.int32)
    batch = make_batch(
        text=Text(ids=np.zeros((3, 5), np.int32)),
        image=Patches(pixels=np.zeros((3, 7, 12), np.uint8), yx=place, grid=place + 1),
    )
    projections = 12 * 4 * (4 * 4)  # query, key, value and output of 12 tokens
    scores = weighted_sum = 12 * 12 * 4
    feed_forward = 12 * 2 * (4 * 8)
    forward = 3 * (2 * (projections + scores + weighted_sum + feed_forward) + 7 * 12 * 4)
    assert forward == 17_136
    assert train_flops(config, batch) == 2 * 3 * forward  # a multiplication and an addition; backward costs twice


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA L40S", 181e12),
        ("NVIDIA L4", 121e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v5", 459e12),
        ("cpu", None),
    ],
)
def test_peak_of_a_device(kind, peak):
    assert peak_flops(kind) == peak


def test_no_name_of_a_device_hides_another():
    assert {name: peak_flops(name) for name in PEAKS} == PEAKS


def frames(printed: str) -> list[str]:
    """What the terminal showed, one line after another."""
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[(?!2K)[?0-9;]*[a-zA-Z]", "", printed).replace("\x1b[2K", ""))
    return [line.rstrip() for line in lines if line.strip()]


def test_the_line_on_a_terminal(monkeypatch, capsys):
    """One line of 80 columns that is drawn over, with all that a person asks; notes stay above it."""
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "80"), ("LINES", "24"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    report = Reporter(10_000, headline="vqa/accuracy")
    values = {"loss": 10.1234, "itm/accuracy": 0.5, "vqa/accuracy": 0.986}
    with report.live(0):
        report.step(1, values, 310.4, 5000.0)
        report.line(50, values, 310.4, 5000.0)  # as a plain line it is for where there is no terminal
        report.note("step 50: validation loss 0.1")
        report.step(9000, values, 12345.4, 7540.0)
    printed = capsys.readouterr().out
    assert "\x1b[1A" not in printed, "more than one line: the cursor goes up"
    shown = frames(printed)
    assert all(cell_len(line) <= 80 for line in shown)
    assert shown[-1].endswith("9000/10000  loss 10.1234  vqa/accuracy 0.986  12345 examples/s  2:05:40 left")
    assert "step 50: validation loss 0.1" in shown and not any("step 50/" in line for line in shown)


def test_other_processes_show_nothing(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    report = Reporter(10, quiet=True)
    with report.live(0):
        report.step(1, {"loss": 1.0}, 1.0, 1.0)
        report.line(2, {"loss": 1.0}, 1.0, 1.0)
        report.note("a note")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("variable", "below"), [("XDG_CACHE_HOME", ""), ("HOME", ".cache")])
def test_compiled_programs_lie_in_the_users_own_cache(tmp_path, monkeypatch, variable, below):
    settings = [
        "jax_compilation_cache_dir",
        "jax_enable_compilation_cache",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    ]
    before = {name: getattr(jax.config, name) for name in settings}
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    try:
        use_cache("")
        folder = Path(jax.config.jax_compilation_cache_dir)
        assert folder == tmp_path / below / "singlestream" / "compiled"
        assert folder.is_dir() and folder.stat().st_mode & 0o777 == 0o700  # nobody else writes what will be run
        use_cache(str(tmp_path / "mine"))
        assert (
            jax.config.jax_compilation_cache_dir == str(tmp_path / "mine") and jax.config.jax_enable_compilation_cache
        )
        use_cache("none")
        assert not jax.config.jax_enable_compilation_cache
        use_cache("")
        assert jax.config.jax_enable_compilation_cache
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
