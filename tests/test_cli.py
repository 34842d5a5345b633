"""A user's mistakes, made with the real program: one clear line, status 1, no traceback, nothing overwritten."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from singlestream import cli
from singlestream.batch import BatchError
from singlestream.data.sources import open_split
from singlestream.train import checkpoint
from singlestream.train.errors import Interrupted

from .train.conftest import scenes  # noqa: F401  (a fixture)
from .train.toy import config_file, toy_config, with_train

ROOT = Path(__file__).parents[1]
QUICKSTART = "--config=configs/quickstart.py"


def train(*flags: str, limit: int | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs train.py; `limit` is the size in bytes that no file may exceed."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    # What measures coverage would write its own file under that limit.
    inherited = {k: v for k, v in os.environ.items() if limit is None or not k.startswith("COVERAGE")}
    return subprocess.run(
        [sys.executable, "train.py", *flags],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**inherited, **env},
        preexec_fn=limited,
    )


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed program printed."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("train.py: ")]
    assert len(lines) == 1, done.stderr
    return lines[0].removeprefix("train.py: ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            [QUICKSTART, "--config.train.num_stepz=3"],
            "--config.train.num_stepz=3: no such setting, did you mean num_steps?",
        ),
        (
            [QUICKSTART, "--config.train.num_steps=many"],
            "flag --config.train.num_steps=many: invalid literal for int()",
        ),
        ([QUICKSTART, "--config.train.optimizer=sgd"], "config.train.optimizer='sgd': choose one of adamw, lion, muon"),
        (["--config=configs/nothing.py"], "--config=configs/nothing.py: no such file"),
        (
            [QUICKSTART, "--config.data.name=nosuchdata"],
            "config.data.name='nosuchdata': no such source; there are nlvr",
        ),
        ([QUICKSTART, "--nosuchflag=1"], "Unknown command line flag 'nosuchflag'"),
        ([QUICKSTART, "more"], "unexpected argument 'more': flags are written --name=value"),
        ([], "--config is missing"),
    ],
)
def test_wrong_flags(tmp_path, flags, message):
    done = train(f"--workdir={tmp_path / 'run'}", *flags)
    assert complaint(done).startswith(message)
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob("*.json"))


@pytest.mark.parametrize(
    ("workdir", "message"),
    [
        ("", "--workdir is missing"),
        ("/proc/nowhere", "--workdir=/proc/nowhere cannot be written: No such file or directory"),
        ("train.py", "train.py cannot be written: File exists"),
    ],
)
def test_wrong_workdir(workdir, message):
    assert message in complaint(train(QUICKSTART, "--config.train.huge_pages=False", f"--workdir={workdir}"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def get_config(:", "SyntaxError: invalid syntax (mine.py, line 1)"),
        ("x = 1", "the config file has no function get_config()"),
        ("x = 1\nraise RuntimeError('boo')", "RuntimeError: boo ({path}, line 2)"),
    ],
)
def test_wrong_config_file(tmp_path, code, message):
    path = tmp_path / "mine.py"
    path.write_text(code)
    assert complaint(train(f"--config={path}", f"--workdir={tmp_path / 'run'}")) == message.format(path=path)


def test_a_run_and_what_can_happen_to_it(scenes, tmp_path):  # noqa: F811
    """One run, then in its folder: another config, a damaged checkpoint, a folder that is not a run's."""
    config = toy_config(scenes, num_steps=2, eval_every=2, log_every=1)
    workdir, file = f"--workdir={tmp_path / 'run'}", config_file(config, tmp_path / "config.py")
    done = train(file, workdir)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("step 1/2  loss ") and line.endswith(" left") for line in lines)
    assert "question alone" in done.stdout and "\x1b" not in done.stdout

    before = (tmp_path / "run" / "config.json").read_text()
    assert "config.seed was 0 and is now 1" in complaint(train(file, workdir, "--config.seed=1"))
    assert (tmp_path / "run" / "config.json").read_text() == before
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [2]

    for path in (tmp_path / "run" / "checkpoints" / "2" / "state").rglob("d/*"):
        path.write_bytes(b"")
    found = complaint(train(file, workdir, "--config.train.num_steps=3"))
    assert "checkpoints/2 cannot be read" in found and "Remove that folder to start anew" in found

    (tmp_path / "run" / "config.json").write_text("{}x")
    assert "config.json is not the settings of a run" in complaint(train(file, workdir))


def test_a_full_disk(scenes, tmp_path):  # noqa: F811
    """A limit on the size of files stands in for a disk that takes no more."""
    config = with_train(toy_config(scenes, num_steps=2), cache_dir="none")
    for split in ("train", "validation"):
        open_split(config.data, split, progress=False)  # made before the disk is full
    file = config_file(config, tmp_path / "config.py")
    found = complaint(train(file, f"--workdir={tmp_path / 'run'}", limit=20_000))
    assert "a checkpoint cannot be written" in found and "File too large" in found
    found = complaint(train(file, f"--workdir={tmp_path / 'small'}", limit=100))
    assert found.endswith("cannot be written: File too large")


def test_huge_pages_start_the_program_again(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(os, "execve", lambda *args: calls.append(args))
    monkeypatch.setattr(cli, "_has_huge_pages", lambda: True)
    cli.use_huge_pages({"JAX_PLATFORMS": "cpu", "GLIBC_TUNABLES": "glibc.malloc.arena_max=4"})
    assert "starting again with GLIBC_TUNABLES=glibc.malloc.arena_max=4:" in capsys.readouterr().out
    program, arguments, environ = calls.pop()
    assert program == arguments[0] == sys.executable and arguments[1:] == sys.orig_argv[1:]
    settings = environ["GLIBC_TUNABLES"].split(":")
    assert "glibc.malloc.hugetlb=1" in settings
    assert [s for s in settings if "arena_max" in s] == ["glibc.malloc.arena_max=4"]
    cli.use_huge_pages(environ)
    cli.use_huge_pages({"JAX_PLATFORMS": "cuda,cpu"})
    monkeypatch.setattr(cli, "_has_huge_pages", lambda: False)
    cli.use_huge_pages({"JAX_PLATFORMS": "cpu"})
    assert not calls


def test_huge_pages_for_real(tmp_path):
    """The program that comes back is the same one, with the same flags: it finds the same mistake."""
    flags = (QUICKSTART, "--config.data.name=nosuchdata", f"--workdir={tmp_path}")
    done = train(*flags, JAX_PLATFORMS="cpu")
    assert "no such source" in complaint(done)
    assert done.stdout.count("starting again") == (1 if cli._has_huge_pages() else 0)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (Interrupted("saved", 15), 143, "saved"),
        (BatchError("text.ids is\nmissing"), 1, "text.ids is missing"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (None, 0, ""),
    ],
)
def test_status(monkeypatch, capsys, error, status, said):
    def run(main, flags_parser):
        main([])

    def main():
        if error is not None:
            raise error

    monkeypatch.setattr(cli.app, "run", run)
    with pytest.raises(SystemExit) as left:
        cli.run(main)
    assert left.value.code == status and said in capsys.readouterr().err


def test_an_error_of_the_program_keeps_its_traceback(monkeypatch):
    def run(main, flags_parser):
        main([])

    def main():
        raise ValueError("a bug")

    monkeypatch.setattr(cli.app, "run", run)
    with pytest.raises(ValueError, match="a bug"):
        cli.run(main)
