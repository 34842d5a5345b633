"""CLEVR: questions made by programs about rendered scenes, one answer each (Johnson et al. 2017, arXiv:1612.06890).

`config.data.dir` is the folder CLEVR_v1.0 as it unpacks (https://cs.stanford.edu/people/jcjohns/clevr/):

    questions/CLEVR_train_questions.json  questions/CLEVR_val_questions.json  questions/CLEVR_test_questions.json
    images/train/CLEVR_train_000000.png  images/val/  images/test/

A split needs its own files alone: 699,989 questions about 70,000 pictures train, 149,991 about 15,000 validate. Answers
of `test` are not published. A text's kind is what its program does last: count, exist, query_color, equal_size, ...
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from singlestream.config import DataConfig
from singlestream.data.json_file import published, read_json
from singlestream.data.questions import Questions, dataset_folder
from singlestream.data.record import DataError, Sentence

SPLITS = ("train", "validation", "test")
PARTS = {"train": "train", "validation": "val", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Keys of `config.data.options`."""

    images: str = "images"  # folder that holds train, val and test, seen from `config.data.dir`
    features: str = ""  # region features to read in place of pictures: a table or a folder, seen from there


def open_split(data: DataConfig, options: Options, split: str, *, progress: bool = True) -> Questions:
    """Opens a split; `progress` is not needed: `train` takes half a minute and 0.6 GB (1.6 at most).

    Raises:
        DataError: files are missing (lists those expected and found) or damaged, or pictures are missing.
    """
    part = PARTS[split]
    name, images = f"questions/CLEVR_{part}_questions.json", f"{options.images}/{part}/".lstrip("/")
    folder = dataset_folder(data, "CLEVR", [name] if options.features else [name, images])
    with published(folder / name, "CLEVR's questions"):
        asked = read_json(folder / name, dict, shrink=_shrink)["questions"]
        texts = [Sentence(id=f"{part}-{number}", **fields) for number, _, fields in asked]
    if not texts:
        raise DataError(f"{folder / name}: holds no question")
    return Questions(
        texts,
        [picture for _, picture, _ in asked],
        shared=data.texts_per_row > 1,
        images=folder / images,
        features=folder / options.features if options.features else None,
    )


def _shrink(value: dict[str, Any]) -> Any:
    """A step of a program becomes its name, a question (its number, its picture, fields of `Sentence`)."""
    if "image_filename" not in value:
        # Older files say `type`.
        return sys.intern(value.get("function") or value["type"]) if "inputs" in value else value
    said = {"text": value["question"], "answer": None}
    if "answer" in value:
        said |= {"answer": sys.intern(value["answer"]), "kind": value["program"][-1]}
    return value["question_index"], sys.intern(value["image_filename"]), said
