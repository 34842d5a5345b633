"""Datasets, one file each, found by the file's name.

A file `NAME.py` here is `config.data.name = "NAME"` (a file `NAME_more.py` is a part of it, not a source). It offers

    SPLITS: tuple[str, ...]            its splits, "train" and "validation" among them
    Options                            a frozen dataclass of its own settings, `config.data.options`
    open_split(data, options, split, *, progress) -> Source
    AUGMENT: {name: function}          optional: augmentations of its own, `config.data.augment`
    pictures(image, name) -> images    optional: the pictures of one example from the one image that people hand over
    submission({id: answer}) -> Any    optional: answers as the dataset's server takes them, written as JSON
    caption_results({file: caption}) -> Any   optional: captions as the dataset's own evaluation reads them, likewise
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from singlestream.config import ConfigError, DataConfig, build_options
from singlestream.data.record import DataError, Source


def source_names() -> list[str]:
    """The names that `config.data.name` can have."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return [name for name in names if not any(name.startswith(other + "_") for other in names)]


def source_module(name: str) -> ModuleType:
    """The file of a source.

    Raises:
        ConfigError: there is none of that name; lists those there are.
    """
    if name not in source_names():
        raise ConfigError(f"config.data.name={name!r}: no such source; there are {', '.join(source_names())}")
    return importlib.import_module(f"{__name__}.{name}")


def split_names(data: DataConfig) -> tuple[str, ...]:
    """The splits of the configured source."""
    return tuple(source_module(data.name).SPLITS)


def open_split(data: DataConfig, split: str, *, progress: bool = True) -> Source:
    """Opens one split of the configured source; a source may make or unpack its data first.

    Args:
        data: `name`, `dir` and `options` say which data.
        split: one of `split_names(data)`.
        progress: show how far a longer preparation is.

    Raises:
        ConfigError: no such source, or an unknown or wrong option.
        DataError: no such split, or data that is missing, damaged or of another layout.
    """
    module = source_module(data.name)
    if split not in module.SPLITS:
        raise DataError(f"source {data.name!r} has no split {split!r}: choose one of {', '.join(module.SPLITS)}")
    options = build_options(module.Options, data.options, "config.data.options")
    return module.open_split(data, options, split, progress=progress)
