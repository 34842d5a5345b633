"""The folder of Scenes: whole or not at all, made once, and one clear error where it cannot be made or read."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from singlestream.config import DataConfig
from singlestream.data.record import DataError
from singlestream.data.sources import open_split, scenes
from singlestream.data.sources.scenes_folder import Progress, default_folder, make_once

TINY = {"train_scenes": 12, "validation_scenes": 2, "test_scenes": 2, "composition_scenes": 2}

OPEN = """
import sys
from singlestream.config import DataConfig
from singlestream.data.record import DataError
from singlestream.data.sources import open_split
{before}
options = {{"train_scenes": int(sys.argv[2]), "validation_scenes": 2, "test_scenes": 2, "composition_scenes": 2}}
try:
    print(len(open_split(DataConfig(dir=sys.argv[1], options=options), "train")))
except DataError as error:
    print("DataError", error)
"""


def _start(folder: Path, size: int, before: str = "") -> subprocess.Popen:
    command = [sys.executable, "-c", OPEN.format(before=before), str(folder), str(size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    _open(folder)
    return folder


def _open(folder: Path, progress: bool = False) -> scenes.ScenesSource:
    return open_split(DataConfig(dir=str(folder), options=TINY), "train", progress=progress)


def test_a_killed_process_leaves_nothing_that_is_taken_for_data(tmp_path):
    process = _start(tmp_path, 1500)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("scenes/*/incomplete.*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert list(tmp_path.glob("scenes/*/incomplete.*")) and not list(tmp_path.glob(f"scenes/*/{scenes.VERSION}"))
    process = _start(tmp_path, 1500)
    process.communicate()
    assert process.returncode == 0
    assert not list(tmp_path.glob("scenes/*/incomplete.*")) and list(tmp_path.glob(f"scenes/*/{scenes.VERSION}"))


def test_two_processes_make_the_data_once(tmp_path):
    processes = [_start(tmp_path, 12) for _ in range(2)]
    answers = [process.communicate() for process in processes]
    assert [out for out, _ in answers] == ["12\n", "12\n"]
    assert sum("pictures to make" in told for _, told in answers) == 1


def test_other_options_make_another_folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "data")
    open_split(DataConfig(dir=str(tmp_path / "data"), options={**TINY, "seed": 5}), "test", progress=False)
    assert len(list((tmp_path / "data").glob("scenes/*/dataset_info.json"))) == 0
    assert len(list((tmp_path / "data").glob("scenes/*/*/dataset_info.json"))) == 2


def _cut(place: Path) -> None:
    file = next(place.glob("*train*"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _lose(place: Path) -> None:
    next(place.glob("*train*")).unlink()


def _scribble(place: Path) -> None:
    (place / "dataset_info.json").write_text("{")


def _empty(place: Path) -> None:
    for file in place.iterdir():
        file.unlink()


@pytest.mark.parametrize("damage", [_cut, _lose, _scribble, _empty])
def test_damaged_data_is_named(made, tmp_path, damage):
    shutil.copytree(made, tmp_path / "data")
    (place,) = (tmp_path / "data").glob("scenes/*/*/")
    damage(place)
    with pytest.raises(DataError, match="is damaged.*remove that folder") as error:
        _open(tmp_path / "data")
    assert str(place) in str(error.value)


def test_a_damaged_record_is_named(made, tmp_path):
    shutil.copytree(made, tmp_path / "data")
    (file,) = (tmp_path / "data").glob("scenes/*/*/*train*")
    content = bytearray(file.read_bytes())
    content[3000:4000] = bytes(1000)
    file.write_bytes(content)
    source = _open(tmp_path / "data")
    with pytest.raises(DataError, match="record 0 of train"):
        source[0]


def test_a_full_disk_is_one_clear_error_and_leaves_no_data(tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))"
    out, _ = _start(tmp_path, 12, before=limit).communicate()
    assert out.startswith("DataError cannot make the data in") and "--config.data.dir" in out and out.count("\n") == 1
    assert not list(tmp_path.glob("scenes/*/*/"))
    assert len(_open(tmp_path)) == 12


def test_too_little_room_is_known_before(tmp_path):
    config = scenes.ScenesConfig(scenes.Options(**TINY))
    builder = scenes.Scenes(config=config, data_dir=str(tmp_path), file_format="array_record")
    with pytest.raises(DataError, match="MB needed"):
        make_once(builder, needed=10**18)


@pytest.mark.parametrize("place", ["file", "/proc/nowhere"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, place):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="cannot make the data in"):
        _open(tmp_path / place)


def test_progress_is_lines_on_standard_error_and_nothing_else(tmp_path, capfd):
    _open(tmp_path, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and err.splitlines()[0] == "Scenes: 18 pictures to make"
    assert err.splitlines()[-1].startswith("Scenes: 18 of 18") and len(err.splitlines()) == 5
    _open(tmp_path, progress=True)
    assert capfd.readouterr() == ("", "")


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress("Scenes", 3)
    for _ in range(3):
        progress.advance()
    assert "3/3" in terminal.getvalue() and "to make" not in terminal.getvalue()


def test_the_default_folder_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "singlestream" / "data"
    open_split(DataConfig(options=TINY), "test", progress=False)
    assert list(default_folder().glob("scenes/*/*/dataset_info.json"))
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache" / "singlestream" / "data"
