"""Conceptual Captions: pictures of the web with their cleaned descriptions (Sharma et al. 2018, 3.3 million).

`config.data.dir` holds the published tables, a line `caption<TAB>url` each, and what could be downloaded:

    Train_GCC-training.tsv  Validation_GCC-1.1.0-Validation.tsv

Where a line's picture lies, `options.train` and `options.validation` say, as patterns of `{line}` (from 0), `{shard}`
(line // 10,000) and `{crc}` (zlib.crc32 of the url). By default that is how img2dataset numbers the files that it
writes from the whole table in its order; `"training/{crc}"` is how the authors of ViLBERT name them. A line whose
picture is not there is left out; how many, is said.
"""

from __future__ import annotations

import array
import dataclasses
import os
import pathlib
import sys
import zlib
from collections.abc import Mapping, Sequence

from singlestream.config import DataConfig
from singlestream.data.columns import TextColumn
from singlestream.data.image import read_image
from singlestream.data.questions import dataset_folder
from singlestream.data.record import DataError, Record, Sentence

SPLITS = ("train", "validation")
FILES = {"train": "Train_GCC-training.tsv", "validation": "Validation_GCC-1.1.0-Validation.tsv"}
SHARD = 10_000  # pictures in a folder of img2dataset


@dataclasses.dataclass(frozen=True)
class Options:
    """Keys of `config.data.options`: patterns of the pictures' files, seen from `config.data.dir`."""

    train: str = "training/{shard:05d}/{line:09d}.jpg"
    validation: str = "validation/{shard:05d}/{line:09d}.jpg"

    def __post_init__(self) -> None:
        for split in SPLITS:
            try:
                place(getattr(self, split), 0, 0)
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError(
                    f"config.data.options.{split}={getattr(self, split)!r}: a pattern of {{line}}, {{shard}}, {{crc}}"
                ) from error


class ConceptualCaptions:
    """The lines of a split whose pictures are there, by random access; a record is a line."""

    region_classes: Mapping[str, Sequence[str]] = {}

    def __init__(self, folder: pathlib.Path, split: str, pattern: str):
        self._folder, self._split, self._pattern = folder, split, pattern
        self._captions, self._lines, self._crcs = TextColumn(), array.array("q"), array.array("q")
        self.missing = 0

    def __len__(self) -> int:
        return len(self._lines)

    def texts(self, i: int) -> tuple[Sentence, ...]:
        return (Sentence(id=f"{self._split}-{self._lines[i]}", text=self._captions[i]),)

    def __getitem__(self, i: int) -> Record:
        file, texts = place(self._pattern, self._lines[i], self._crcs[i]), self.texts(i)
        image = read_image(self._folder / file)
        return Record(id=texts[0].id, images=(image,), texts=texts, picture=self._lines[i] + 1, files=(file,))

    def read(self, path: pathlib.Path) -> None:
        """Takes the lines of a table; folders with pictures are listed once."""
        there: dict[str, frozenset[str]] = {}
        number = -1
        try:
            with path.open(encoding="utf-8", newline="\n") as file:
                for number, line in enumerate(file):
                    caption, _, url = line.rstrip("\r\n").partition("\t")
                    if not (caption.strip() and url):
                        raise ValueError("expected caption<TAB>url")
                    crc = zlib.crc32(url.encode())
                    part, _, name = place(self._pattern, number, crc).rpartition("/")
                    if part not in there:
                        there[part] = _listed(self._folder / part)
                    if name in there[part]:
                        self._captions.append(caption.strip())
                        self._lines.append(number)
                        self._crcs.append(crc)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}, line {number + 1}: cannot be read ({error})") from error
        self.missing = number + 1 - len(self)


def open_split(data: DataConfig, options: Options, split: str, *, progress: bool = True) -> ConceptualCaptions:
    """Opens a split; says with `progress` how many pictures are missing.

    Raises:
        DataError: files are missing (lists those expected and found) or damaged, or no picture is there.
    """
    folder = dataset_folder(data, "Conceptual Captions", [FILES[split]])
    source = ConceptualCaptions(folder, split, getattr(options, split))
    source.read(folder / FILES[split])
    if not len(source):
        first = folder / place(getattr(options, split), 0, 0)
        raise DataError(
            f"{folder}: of {source.missing:,} lines of {FILES[split]} no picture is there, as {first} would be; "
            f"config.data.options.{split} says where they lie"
        )
    if progress and source.missing:
        print(
            f"{FILES[split]}: {source.missing:,} of {source.missing + len(source):,} pictures are missing",
            file=sys.stderr,
        )
    return source


def place(pattern: str, line: int, crc: int) -> str:
    """The file of a line's picture."""
    return pattern.format(line=line, shard=line // SHARD, crc=crc)


def _listed(folder: pathlib.Path) -> frozenset[str]:
    return frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()
