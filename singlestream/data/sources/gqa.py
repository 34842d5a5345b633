"""GQA: questions made from scene graphs of photographs, one answer each (Hudson and Manning 2019).

`config.data.dir` holds the balanced questions and the pictures as they are published (https://cs.stanford.edu/people/
dorarad/gqa/download.html, "questions" and "images"):

    train_balanced_questions.json  val_balanced_questions.json  testdev_balanced_questions.json
    images/2354786.jpg

A split needs its own file alone. A text's kind is its structural type: query, verify, choose, logical or compare. The
pictures are Visual Genome's, half of which are COCO's; Visual Genome's `image_data.json` beside the others tells which.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from singlestream.config import DataConfig
from singlestream.data.genome_pictures import PICTURES, read_pictures
from singlestream.data.json_file import read_json
from singlestream.data.overlap import VISUAL_GENOME, PictureId, ids_of_file
from singlestream.data.questions import Questions, dataset_folder
from singlestream.data.record import DataError, Sentence

SPLITS = ("train", "validation", "test_dev")
FILES = {"train": "train", "validation": "val", "test_dev": "testdev"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Keys of `config.data.options`."""

    images: str = "images"  # folder of the pictures, seen from `config.data.dir`
    features: str = ""  # region features to read in place of pictures: a table or a folder, seen from there


def open_split(data: DataConfig, options: Options, split: str, *, progress: bool = True) -> Questions:
    """Opens a split; `progress` is not needed.

    Raises:
        DataError: files are missing (lists those expected and found) or damaged, or pictures are missing.
    """
    name = f"{FILES[split]}_balanced_questions.json"
    folder = dataset_folder(data, "GQA", [name] if options.features else [name, f"{options.images}/"])
    try:
        found = read_json(folder / name, dict, shrink=_shrink)
        asked = [(Sentence(id=number, **text), picture) for number, (picture, text) in found.items()]
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / name}: not GQA's questions ({error!r})") from error
    if not asked:
        raise DataError(f"{folder / name}: holds no question")
    return Questions(
        [text for text, _ in asked],
        [picture for _, picture in asked],
        shared=data.texts_per_row > 1,
        images=folder / options.images,
        features=folder / options.features if options.features else None,
        identify=functools.partial(_identify, _read_ids(folder / PICTURES)),
    )


def _read_ids(path: pathlib.Path) -> dict[str, tuple[PictureId, ...]]:
    """The ids of the pictures in Visual Genome's file, by what they are called here; {} where there is no such file."""
    if not path.is_file():
        return {}
    return {f"{number}.jpg": ids for number, (_, _, _, ids) in read_pictures(path).items()}


def _identify(known: Mapping[str, tuple[PictureId, ...]], name: str) -> tuple[PictureId, ...]:
    return known.get(name) or ids_of_file(VISUAL_GENOME, name)


def _shrink(value: dict[str, Any]) -> Any:
    """A question becomes (its picture's file, fields of `Sentence`), its types their `structural`, the rest nothing."""
    if "imageId" in value:
        said = {"text": value["question"], "answer": sys.intern(value["answer"]), "kind": value["types"]}
        return sys.intern(f"{value['imageId']}.jpg"), said
    if "structural" in value:
        return sys.intern(value["structural"])
    return value if all(isinstance(each, tuple) for each in value.values()) else None
