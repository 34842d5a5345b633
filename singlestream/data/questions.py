"""What datasets of questions or captions share: their folder, their pictures or regions, a source of both."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Int32

from singlestream.config import DataConfig
from singlestream.data.features import detected_classes, open_features
from singlestream.data.image import read_image
from singlestream.data.overlap import PictureId
from singlestream.data.record import DataError, Record, RegionFeatures, Sentence


def dataset_folder(data: DataConfig, dataset: str, expected: Sequence[str]) -> pathlib.Path:
    """`config.data.dir`, which holds the expected files (and folders, whose names end in "/").

    Raises:
        DataError: it does not; lists what was expected, what of it is missing, and what is there.
    """
    listed = ", ".join(expected)
    if not data.dir:
        raise DataError(f"config.data.dir is empty: {dataset} is not downloaded, give the folder that holds {listed}")
    folder = pathlib.Path(data.dir).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder (config.data.dir); {dataset} expects {listed} in it")
    missing = [name for name in expected if not _is_there(folder / name, name.endswith("/"))]
    if missing:
        found = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
        shown = ", ".join(found[:12]) + (", ..." if len(found) > 12 else "") if found else "nothing"
        raise DataError(
            f"{folder} is not {dataset}, or not all of it: expected {listed}; found {shown}; it has no "
            f"{', '.join(missing)}"
        )
    return folder


def _is_there(path: pathlib.Path, is_folder: bool) -> bool:
    return path.is_dir() if is_folder else path.is_file()


class Questions:
    """A split by random access: a record is a question, or a picture with all its questions where rows share it.

    Args:
        texts: every question.
        pictures: the file of each question's picture, seen from `images`; those of one picture are the same.
        shared: whether texts share a row (`config.data.texts_per_row` above 1).
        images: the folder of the pictures.
        features: a table or folder of region features (`open_features`) to read in place of pictures; None: pictures.
        distribution: also read a detector's class probabilities there; `region_classes` are then its classes.
        files: the files of a question with several pictures, where `pictures` holds one name for all of them.
        identify: a picture's ids in known collections; the first makes `Record.picture`. A picture without one gets its
            place among the split's pictures.
        groups: of each question what it belongs to, where rows share less than a picture: a record is then a group
            (the answers to choose from), all about one picture.

    Raises:
        DataError: pictures or region features that are missing; says which and how many.
    """

    region_classes: Mapping[str, Sequence[str]] = {}

    def __init__(
        self,
        texts: Sequence[Sentence],
        pictures: Sequence[str],
        *,
        shared: bool,
        images: pathlib.Path,
        features: pathlib.Path | None,
        distribution: bool = False,
        files: Callable[[str], tuple[str, ...]] = lambda name: (name,),
        identify: Callable[[str], tuple[PictureId, ...]] = lambda name: (),
        groups: Sequence[str] | None = None,
    ):
        self._texts, self._images, self._files, self._identify = texts, images, files, identify
        self._names, self._picture = _numbered(pictures)
        together = self._picture if groups is None else _numbered(groups)[1]
        # Questions of record i are _order[_starts[i] : _starts[i + 1]].
        self._order = np.argsort(together, kind="stable") if shared else np.arange(len(texts))
        changes = np.diff(together[self._order]) > 0 if shared else np.ones(len(texts) - 1, bool)
        self._starts = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(texts)]])
        self._features = open_features(features, distribution=distribution) if features else None
        missing = self._missing_pictures() if features is None else self._missing_features()
        if missing:
            raise DataError(
                f"{features or images}: {len(missing)} of the split's {len(self._all_files())} pictures are missing, "
                f"the first is {missing[0]}"
            )
        if distribution:
            first = self._all_files()[0]
            self.region_classes = detected_classes(self._features, _key(self._features or {}, first))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def texts(self, i: int) -> tuple[Sentence, ...]:
        return tuple(self._texts[q] for q in self._order[self._starts[i] : self._starts[i + 1]])

    def __getitem__(self, i: int) -> Record:
        texts, place = self.texts(i), int(self._picture[self._order[self._starts[i]]])
        name = self._names[place]
        files, ids = self._files(name), self._identify(name)
        picture = ids[0].number if ids else place + 1
        if self._features is not None:
            found = tuple(self._features[_key(self._features, file)] for file in files)
            return Record(id=texts[0].id, texts=texts, picture=picture, files=files, images=(), regions=found)
        images = tuple(read_image(self._images / file) for file in files)
        return Record(id=texts[0].id, texts=texts, picture=picture, files=files, images=images)

    def picture_ids(self) -> list[tuple[PictureId, ...]]:
        """The ids of each picture."""
        return [self._identify(name) for name in self._names]

    # What is missing is told before the training, not in the middle of it.

    def _all_files(self) -> list[str]:
        return [file for name in self._names for file in self._files(name)]

    def _missing_features(self) -> list[str]:
        assert self._features is not None
        return [file for file in self._all_files() if _key(self._features, file) not in self._features]

    def _missing_pictures(self) -> list[str]:
        """Lists each folder once: a question to the file system for each of 80,000 pictures would take a while."""
        split = [file.rpartition("/") for file in self._all_files()]
        folders = {folder for folder, _, _ in split}
        there = {folder: frozenset(_listed(self._images / folder)) for folder in folders}
        return ["".join(parts) for parts in split if parts[2] not in there[parts[0]]]


def _numbered(names: Sequence[str]) -> tuple[list[str], Int32[np.ndarray, " Q"]]:
    """The different names in the order in which they come, and of each name its place among them."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return list(numbers), np.array([numbers[name] for name in names], np.int32)


def _listed(folder: pathlib.Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _key(features: Mapping[str, RegionFeatures], name: str) -> str:
    """What the features call a picture: its file without the ending, or the number at the end of that."""
    stem = pathlib.PurePosixPath(name).stem
    return stem if stem in features else stem.rpartition("_")[2].lstrip("0")
