"""A user's mistakes, made with the real program: one clear line, status 1, no traceback, nothing overwritten."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from singlestream import cli
from singlestream.batch import BatchError
from singlestream.data.sources import open_split
from singlestream.train import checkpoint
from singlestream.train.errors import Interrupted
from singlestream.train.folder import RunFolder

from .data.toy_nlvr import write_nlvr
from .train.conftest import scenes  # noqa: F401  (a fixture)
from .train.toy import config_file, toy_config, with_train

ROOT = Path(__file__).parents[1]
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # of <linux/prctl.h> and <linux/capability.h>
QUICKSTART = "--config=configs/quickstart.py"


def program(
    name: str, *flags: str, limit: int | None = None, read_only: bool = False, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs a program; no file may exceed `limit` bytes; with `read_only` a folder's permissions bind root, too."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if read_only and sys.platform == "linux" and os.geteuid() == 0:
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE)

    # What measures coverage would write its own file under that limit.
    inherited = {k: v for k, v in os.environ.items() if limit is None or not k.startswith("COVERAGE")}
    return subprocess.run(
        [sys.executable, name, *flags],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**inherited, **env},
        preexec_fn=limited,
    )


train = functools.partial(program, "train.py")


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed program printed."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    name = f"{done.args[1]}: "
    lines = [line for line in done.stderr.splitlines() if line.startswith(name)]
    assert len(lines) == 1, done.stderr
    return lines[0].removeprefix(name)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            [QUICKSTART, "--config.train.num_stepz=3"],
            "--config.train.num_stepz=3: no such setting, did you mean num_steps?",
        ),
        (
            [QUICKSTART, "--config.data.rate=2", "--config.train.rate=1"],
            "--config.data.rate=2 or --config.train.rate=1: no such setting",
        ),
        (
            [QUICKSTART, "--config.train.num_steps=many"],
            "flag --config.train.num_steps=many: invalid literal for int()",
        ),
        ([QUICKSTART, "--config.train.optimizer=sgd"], "config.train.optimizer='sgd': choose one of adamw, lion, muon"),
        (["--config=configs/nothing.py"], "--config=configs/nothing.py: no such file"),
        (
            [QUICKSTART, "--config.data.name=nosuchdata"],
            "config.data.name='nosuchdata': no such source; there are clevr, ",
        ),
        (["--config=configs/scenes_vqa.py:nosuch"], "configs/scenes_vqa.py:nosuch: "),
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


@pytest.mark.slow
def test_a_run_and_what_can_happen_to_it(scenes, tmp_path):  # noqa: F811
    """One run, then in its folder: another config, a damaged checkpoint, a folder that is not a run's."""
    config = toy_config(scenes, model={"num_layers": 1}, num_steps=2, eval_every=2, log_every=1)
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


@pytest.mark.slow
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


# ---- mistakes in the data, and folders that take no more -------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with `data`, a small NLVR, and `run`, one step on it."""
    base = tmp_path_factory.mktemp("nlvr")
    asked = write_nlvr(base / "data") / "test/test.json"
    asked.write_text(asked.read_text() * 30)  # more predictions than metrics
    config = toy_config(base / "data", model={"num_images": 3, "num_layers": 1}, num_steps=1)
    data = dataclasses.replace(config.data, name="nlvr", options={}, texts_per_row=1)
    file = config_file(dataclasses.replace(config, data=data), base / "config.py")
    done = train(file, f"--workdir={base / 'run'}")
    assert done.returncode == 0, done.stderr
    return base


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, but the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def missing_picture(data: Path) -> None:
    (data / "dev/images/2/dev-2-2-0.png").unlink()


def corrupt_picture(data: Path) -> None:
    path = data / "dev/images/2/dev-2-2-0.png"
    path.write_bytes(path.read_bytes()[:200])


def empty_text(data: Path) -> None:
    path = data / "dev/dev.json"
    path.write_text(path.read_text().replace("There is a box with 2 items.", " "))


def other_layout(data: Path) -> None:
    (data / "dev").rename(data / "development")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing_picture, "{data}: dev/images/2/dev-2-2-0.png (record dev-2-2): no such image file"),
        pytest.param(
            corrupt_picture,
            "{data}: dev/images/2/dev-2-2-0.png (record dev-2-2): not a readable image (",
            marks=pytest.mark.slow,
        ),
        pytest.param(empty_text, "text dev-2-2: the text ' ' is empty", marks=pytest.mark.slow),
        (other_layout, "{data} is not NLVR: expected dev/dev.json, test/test.json, "),
    ],
)
def test_damaged_data(trained, tmp_path, damage, message):
    """In a run that goes on: what it has stays as it is, and so do the data."""
    data, run = trained / "data", tmp_path / "run"
    shutil.copytree(trained / "run", run)
    whole = tmp_path / "whole"
    shutil.copytree(data, whole)
    try:
        damage(data)
        before = content(data), content(run)
        done = train(f"--config={trained / 'config.py'}", f"--workdir={run}", "--config.train.num_steps=2")
        after = content(data), content(run)
    finally:
        shutil.rmtree(data)
        shutil.copytree(whole, data)
    assert complaint(done).startswith(message.format(data=data))
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert after[0] == before[0]
    # Its settings now say two steps; events of TensorBoard may have come.
    assert {**after[1], "config.json": b""}.items() >= {**before[1], "config.json": b""}.items()
    assert checkpoint.steps(run / "checkpoints") == [1]


def evaluated(trained: Path, run: Path) -> dict[str, bytes]:
    """Copies the run and puts into it what an evaluation has left; all of its files."""
    shutil.copytree(trained / "run", run)
    folder = RunFolder.at(run)
    # What is compiled is not written where the disk is full, nor half of it.
    folder.config.write_text(with_train(folder.read_config(), cache_dir="none").to_json())
    folder.eval("test").mkdir(parents=True)
    for name in ("metrics.json", "predictions.jsonl", "report.html"):
        (folder.eval("test") / name).write_text(f"{name} of before")
    return content(run)


@pytest.mark.slow
def test_evaluation_on_a_full_disk(trained, tmp_path):
    """It takes metrics.json, but not predictions.jsonl: the old ones stay, both."""
    before = evaluated(trained, tmp_path / "run")
    done = program("eval.py", f"--workdir={tmp_path / 'run'}", "--split=test", limit=6000)
    assert complaint(done) == f"{tmp_path / 'run'} cannot be written: File too large"
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert content(tmp_path / "run") == before


def test_evaluation_of_a_read_only_folder(trained, tmp_path):
    before, run = evaluated(trained, tmp_path / "run"), tmp_path / "run"
    folders = [run, *(path for path in run.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        done = program("eval.py", f"--workdir={run}", "--split=test", read_only=True)
    finally:
        for path in folders:
            path.chmod(0o755)
    assert complaint(done) == f"{run / 'eval' / 'test'} cannot be written: Permission denied"
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert content(run) == before


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
