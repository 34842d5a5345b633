"""RefCOCO, RefCOCO+ and RefCOCOg: which thing in the photograph is meant? (Yu et al. 2016; Mao et al. 2016)

`config.data.dir` is the folder `data` of https://github.com/lichengunc/refer: its files, and the pictures of COCO:

    refcoco/instances.json   refcoco/refs(unc).p   refcoco/refs(google).p
    refcoco+/instances.json  refcoco+/refs(unc).p
    refcocog/instances.json  refcocog/refs(umd).p  refcocog/refs(google).p
    images/mscoco/images/train2014/COCO_train2014_000000581857.jpg

A text is an expression (config.data.texts="captions") whose one mention, all of it, has the box of what it refers to.
`testA` (of people) and `testB` (of other things) are of the split by "unc", `test` is of the others; RefCOCOg by
"google" has only `train` and `validation`.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import pickle
from collections.abc import Set
from typing import Any, NoReturn

import numpy as np

from singlestream.config import DataConfig
from singlestream.data.json_file import published, read_json
from singlestream.data.overlap import COCO, ids_of_file
from singlestream.data.questions import Questions, dataset_folder
from singlestream.data.record import DataError, Mention, Sentence
from singlestream.data.regions import unit_boxes

SPLITS = ("train", "validation", "test", "testA", "testB")
DATASETS = {"refcoco": ("unc", "google"), "refcoco+": ("unc",), "refcocog": ("umd", "google")}


@dataclasses.dataclass(frozen=True)
class Options:
    """Keys of `config.data.options`."""

    dataset: str = "refcoco"  # refcoco, refcoco+ or refcocog
    split_by: str = "unc"  # whose split: unc or google; of refcocog umd or google
    images: str = "images/mscoco/images"  # folder that holds train2014, seen from `config.data.dir`
    features: str = ""  # region features to read in place of pictures: a table or a folder, seen from there

    def __post_init__(self) -> None:
        if self.split_by not in DATASETS.get(self.dataset, ()):
            known = "; ".join(f"{name} by {' or '.join(by)}" for name, by in DATASETS.items())
            raise ValueError(
                f"config.data.options: dataset={self.dataset!r} with split_by={self.split_by!r}; there are {known}"
            )


def open_split(data: DataConfig, options: Options, split: str, *, progress: bool = True) -> Questions:
    """Opens a split; `progress` is not needed: reading takes seconds.

    Raises:
        DataError: files are missing (lists those expected and found) or damaged, pictures are missing, or this way of
            splitting has no such split.
    """
    refs, instances = f"{options.dataset}/refs({options.split_by}).p", f"{options.dataset}/instances.json"
    pictures = [] if options.features else [f"{options.images}/train2014/".lstrip("/")]
    folder = dataset_folder(data, "RefCOCO", [refs, instances, *pictures])
    said = _read_expressions(folder / refs, split)
    things = _read_things(folder / instances, {thing for _, _, thing in said})
    if missing := [thing for _, _, thing in said if thing not in things]:
        raise DataError(f"{folder / instances}: has no thing {missing[0]}, of which {refs} speaks")
    return Questions(
        [_sentence(number, text, things[thing][1]) for number, text, thing in said],
        [f"train2014/{things[thing][0]}" for _, _, thing in said],
        shared=data.texts_per_row > 1,
        images=folder / options.images,
        features=folder / options.features if options.features else None,
        identify=functools.partial(ids_of_file, COCO),
    )


def _sentence(number: str, text: str, boxes: np.ndarray) -> Sentence:
    return Sentence(id=number, text=text, mentions=(Mention(start=0, end=len(text), boxes=boxes),))


def _read_expressions(path: pathlib.Path, split: str) -> list[tuple[str, str, int]]:
    """The expressions of a split that are not empty: number, text, and the thing they refer to."""
    with published(path, "refer's expressions"):
        refs = _read_plain(path)
        name = "val" if split == "validation" else split
        found = [
            (str(each["sent_id"]), text, int(ref["ann_id"]))
            for ref in refs
            if ref["split"] == name
            for each in ref["sentences"]
            if (text := each["sent"].strip())
        ]
        if not found:
            names = sorted({"validation" if ref["split"] == "val" else ref["split"] for ref in refs})
            raise DataError(f"{path}: has no split {split!r}; it has {', '.join(names)}")
    return found


def _read_things(path: pathlib.Path, wanted: Set[int]) -> dict[int, tuple[str, np.ndarray]]:
    """Of each wanted thing the file of its picture, and its box in [0, 1]."""

    def shrink(value: dict[str, Any]) -> Any:
        if "bbox" in value:
            return (value["id"], value["image_id"], value["bbox"]) if value["id"] in wanted else None
        if "file_name" in value:
            return value["id"], (value["file_name"], value["width"], value["height"])
        return value

    with published(path, "refer's instances"):
        read = read_json(path, dict, shrink=shrink)
        pictures, things = dict(read["images"]), {}
        for number, picture, (left, top, wide, high) in filter(None, read["annotations"]):
            file, width, height = pictures[picture]
            things[number] = file, unit_boxes([(left, top, left + wide, top + high)], width, height)
        return things


class _Plain(pickle.Unpickler):
    """Reads containers, texts and numbers alone: a pickle can call nothing whose name it may not look up."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}, which such a file does not need")


def _read_plain(path: pathlib.Path) -> Any:
    try:
        with path.open("rb") as file:
            return _Plain(file, encoding="utf-8", errors="replace").load()
    except (OSError, EOFError, pickle.UnpicklingError, OverflowError, MemoryError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
