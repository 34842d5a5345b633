"""Which picture it is, whatever dataset shows it, and which pictures of an evaluation were trained on.

Datasets draw on few collections of pictures: VQA, RefCOCO and the captions on COCO, SNLI-VE and Flickr30k on Flickr30k,
GQA on Visual Genome, and half of Visual Genome on COCO. A source that knows collections' ids of its pictures offers
`picture_ids()`, the ids of each picture; of one without it nothing is said.
"""

from __future__ import annotations

import itertools
import pathlib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from singlestream.data.record import DataError, Source

Ids = Mapping[str, frozenset[int]]  # of pictures, by collection

COCO, FLICKR30K, VISUAL_GENOME = "coco", "flickr30k", "visual_genome"
UNKNOWN: Ids = {"unknown": frozenset()}  # pictures of which nobody knows which they are: those of published weights
_AFTER_COCO = 1 << 20  # above every id of COCO


class PictureId(NamedTuple):
    """A picture's id in its collection."""

    collection: str
    id: int

    @property
    def number(self) -> int:
        """`Record.picture`, the same in every source: COCO's id; apart from those, Flickr's; Visual Genome's below 0.

        Ids of Flickr do not fit into int32 and are folded; of 100,000 a few may meet, which costs negatives, no more.
        """
        if self.collection == VISUAL_GENOME:
            return -self.id
        return self.id if self.collection == COCO else _AFTER_COCO + self.id % (2**31 - _AFTER_COCO)


def ids_of_file(collection: str, name: str) -> tuple[PictureId, ...]:
    """The id that ends the name of a picture's file, 42 of `val2014/COCO_val2014_000000000042.jpg`; () without one."""
    digits = pathlib.PurePosixPath(name).stem.rpartition("_")[2]
    return (PictureId(collection, int(digits)),) if digits.isdecimal() else ()


def picture_ids(source: Source) -> Sequence[tuple[PictureId, ...]]:
    """The ids of each of the source's pictures; () where it does not know them."""
    known = getattr(source, "picture_ids", None)
    return known() if known else ()


def by_collection(pictures: Iterable[tuple[PictureId, ...]]) -> Ids:
    """All the ids of some pictures."""
    found: dict[str, set[int]] = {}
    for collection, number in itertools.chain.from_iterable(pictures):
        found.setdefault(collection, set()).add(number)
    return {collection: frozenset(ids) for collection, ids in found.items()}


def joined(first: Ids, second: Ids) -> Ids:
    """The pictures of both."""
    none: frozenset[int] = frozenset()
    return {name: first.get(name, none) | second.get(name, none) for name in {**first, **second}}


def overlap(trained: Ids, asked: Iterable[tuple[PictureId, ...]]) -> int:
    """How many of the pictures asked about were trained on, by whichever of their ids."""
    none: frozenset[int] = frozenset()
    return sum(any(number in trained.get(collection, none) for collection, number in ids) for ids in asked)


def overlap_lines(trained: Ids, source: Source, split: str) -> list[str]:
    """What a program says of a split before which pictures were trained on; [] where there is nothing to say."""
    asked, lines = picture_ids(source), []
    if seen := overlap(trained, asked):
        count = f"{seen:,} of the {len(asked):,} pictures of split {split!r}"
        lines.append(f"{count} were trained on, here or in what config.init names")
    if trained.keys() & UNKNOWN.keys():
        lines.append("the run began with published weights; it is not known which pictures they were trained on")
    return lines


def write_ids(path: pathlib.Path, ids: Ids) -> None:
    """Keeps ids in a file `.npz`, an array for each collection."""
    arrays: dict[str, Any] = {name: np.array(sorted(found), np.int64) for name, found in ids.items()}
    np.savez_compressed(path, **arrays)


def read_ids(path: pathlib.Path) -> Ids:
    """What `write_ids` kept; {} where there is no such file (runs of before have none).

    Raises:
        DataError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        # Opened here: numpy leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            return {name: frozenset(found[name].tolist()) for name in found.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
