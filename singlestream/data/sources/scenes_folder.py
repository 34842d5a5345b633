"""Makes a TFDS dataset once, whole or not at all, with one progress bar and without TFDS' own noise."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging
from tqdm import tqdm

from singlestream.data.record import DataError


def default_folder() -> Path:
    """The user's cache folder for data, where `config.data.dir` names none."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "singlestream" / "data"


class Progress:
    """A bar on a terminal, a line each quarter elsewhere, nothing where `show` is False; all on standard error."""

    def __init__(self, label: str, total: int, *, show: bool = True):
        self._label, self._total, self._done, self._start = label, total, 0, time.monotonic()
        self._bar = tqdm(total=total, desc=label, unit="") if show and sys.stderr.isatty() else None
        self._lines = show and self._bar is None
        if self._lines:
            print(f"{label}: {total:,} pictures to make", file=sys.stderr, flush=True)

    def advance(self) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.update()
            if self._done == self._total:
                self._bar.close()
        elif self._lines and (4 * self._done) // self._total > (4 * (self._done - 1)) // self._total:
            seconds = time.monotonic() - self._start
            print(f"{self._label}: {self._done:,} of {self._total:,}, {seconds:.0f} s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what TFDS prints, logs and draws while it builds: it speaks of downloads that do not happen."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        logging.set_verbosity(verbosity)


def make_once(builder: tfds.core.DatasetBuilder, needed: int) -> None:
    """Prepares `builder` unless it is; other processes that want the same wait, and what a killed one left goes.

    TFDS writes into a folder of another name and renames it at the end, so that a folder of the right name is whole.

    Args:
        builder: of array_record files.
        needed: bytes that it takes, checked before.

    Raises:
        DataError: the folder cannot be written, or the disk is full.
    """
    parent = Path(builder.data_path.parent)
    try:
        if builder.data_path.exists():
            return
        parent.mkdir(parents=True, exist_ok=True)
        with _alone(parent / "lock"):
            if builder.data_path.exists():
                return
            for left in parent.glob("incomplete.*"):
                shutil.rmtree(left)
            free = shutil.disk_usage(parent).free
            if free < needed:
                raise OSError(f"{needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free")
            with quiet(), tempfile.TemporaryDirectory() as nothing:  # TFDS insists on a folder for downloads
                builder.download_and_prepare(download_dir=nothing)
    except (OSError, RuntimeError) as error:  # RuntimeError: from array_record's writer
        reason = str(error).strip().splitlines()[-1]
        raise DataError(
            f"cannot make the data in {parent}: {reason}; name a folder with room where you may write "
            "by --config.data.dir= (eval.py: --data_dir=)"
        ) from error


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds a lock file: of the processes of one machine, one at a time. Freed also when the process is killed."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
