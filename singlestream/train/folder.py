"""A run's folder: which file lies where, and how it is written so that a kill at any moment leaves a usable folder.

`config.json` is written last of the small files and marks a folder as a run. Until there is a checkpoint nothing in it
is worth keeping, and the next start writes everything anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from singlestream.config import Config, ConfigError
from singlestream.model.heads import HeadConfig
from singlestream.train.errors import FolderError

# What a restart may change: how long, how often it reports, where it computes, and where the data lie (they may have
# been moved). Everything else shapes the result.
MAY_CHANGE = (
    "train.num_steps",
    "train.log_every",
    "train.eval_every",
    "train.eval_batches",
    "train.checkpoint_every",
    "train.keep_latest",
    "train.keep_best",
    "train.best_metric",
    "train.profile",
    "train.huge_pages",
    "train.cache_dir",
    "train.mesh",
    "data.dir",
    "data.num_threads",
    "data.prefetch",
)
OTHER_FOLDER = re.compile(r"data\.corpora\..*\.dir")  # where the data of other corpora lie


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Names of everything in a run's folder. Processor files (vocabulary, answers, spec) lie in the folder itself."""

    path: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> RunFolder:
        return cls(Path(path).expanduser().absolute())

    config = property(lambda self: self.path / "config.json")
    heads = property(lambda self: self.path / "heads.json")
    priors = property(lambda self: self.path / "priors.json")
    pictures = property(lambda self: self.path / "pictures.npz")  # ids of those trained on, with those of config.init
    teachers = property(lambda self: self.path / "teachers.json")  # published models that objectives learn from
    published = property(lambda self: self.path / "published.json")  # of a run that began with published weights
    metrics = property(lambda self: self.path / "metrics.jsonl")
    checkpoints = property(lambda self: self.path / "checkpoints")
    profile = property(lambda self: self.path / "profile")

    def eval(self, split: str) -> Path:
        """Folder of an evaluation's files."""
        return self.path / "eval" / split

    @property
    def is_run(self) -> bool:
        return self.config.is_file()

    def create(self) -> None:
        """Makes the folder, and finds out now rather than at the first checkpoint whether it can be written.

        Raises:
            FolderError: it cannot be made, is a file, or is read-only.
        """
        try:
            make_writable(self.path)
        except OSError as error:
            raise FolderError(f"--workdir={self.path} cannot be written: {error.strerror}") from error

    def read_config(self) -> Config:
        """The settings of the run.

        Raises:
            FolderError: there is no run here, or its `config.json` is not one of ours.
        """
        if not self.is_run:
            raise FolderError(f"{self.path} is not a run's folder: it has no config.json (train.py makes one)")
        try:
            return Config.from_json(self.config.read_text())
        except (ValueError, TypeError, AttributeError) as error:
            raise FolderError(f"{self.config} is not the settings of a run: {error}") from error

    def check_same(self, config: Config) -> None:
        """Refuses to continue a run with settings that would have made another one.

        Raises:
            ConfigError: names each setting that differs, with both values.
        """
        old, new = (_flat(json.loads(c.to_json())) for c in (self.read_config(), config))
        lines = [
            f"config.{key} was {old.get(key)!r} and is now {new.get(key)!r}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and not key.startswith(MAY_CHANGE) and not OTHER_FOLDER.fullmatch(key)
        ]
        if lines:
            raise ConfigError(
                f"{self.path} holds a run with other settings: {'; '.join(lines)}. "
                "Use another --workdir, or the run's own settings to continue it"
            )

    def read_json(self, path: Path) -> Any:
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise FolderError(f"{path} cannot be read: {error}") from error

    def read_heads(self) -> dict[str, HeadConfig]:
        """The heads of the run's model.

        Raises:
            FolderError: the file is missing or does not describe heads.
        """
        try:
            return {name: HeadConfig(**values) for name, values in self.read_json(self.heads).items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise FolderError(f"{self.heads} does not describe heads: {error}") from error

    def write_json(self, path: Path, value: Any) -> None:
        write_atomic(path, json.dumps(value, indent=1, sort_keys=True) + "\n")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """What the system says against writing here (a full disk) as a FolderError."""
        try:
            yield
        except OSError as error:
            raise FolderError(f"{error.filename or self.path} cannot be written: {error.strerror}") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second training process out of the folder. The lock dies with the process, however it dies.

        Raises:
            FolderError: another process is training here.
        """
        try:
            import fcntl
        except ImportError:  # no such locks on this platform
            yield
            return
        with open(self.path / ".lock", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise FolderError(f"another process is training in {self.path}") from error
            except OSError:  # a file system without locks
                pass
            yield


def make_writable(path: Path) -> None:
    """Makes a folder where there is none; raises OSError where no file can be made in it."""
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f".probe-{os.getpid()}"
    probe.touch()
    probe.unlink()


def write_atomic(path: Path, text: str) -> None:
    """Writes a file so that it is either the old one or the new one, whole, whenever the process is killed."""
    write_together({path: text})


def write_together(texts: Mapping[Path, str]) -> None:
    """Writes several files, each whole or not at all; if the disk takes not all of them, all stay as they were."""
    parts = {path: path.with_name(f".{path.name}.part") for path in texts}
    try:
        for path, text in texts.items():
            with open(parts[path], "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        for part in parts.values():
            with contextlib.suppress(OSError):
                part.unlink()
        raise
    for path, part in parts.items():
        os.replace(part, path)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; an empty mapping stays a value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
