"""SNLI-VE: does the picture entail the sentence? (Xie et al. 2019, arXiv:1901.06706, github.com/necla-ml/SNLI-VE)

`config.data.dir` holds the published files and the pictures of Flickr30k:

    snli_ve_train.jsonl  snli_ve_dev.jsonl  snli_ve_test.jsonl
    flickr30k-images/1000092795.jpg

A text is the hypothesis (`sentence2`); the answer is "entailment", "neutral" or "contradiction". 529,527 examples
train, 17,858 validate, 17,901 test. The premise that people had written, a caption of the picture, is not read. A
picture's key is the one that the authors' parser reads, `Flikr30kID`, or the one that their generator writes,
`Flickr30K_ID`; its value is a number, or the name of the file, "1000092795.jpg".
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from typing import Any

from singlestream.config import DataConfig
from singlestream.data.json_file import read_json_lines
from singlestream.data.overlap import FLICKR30K, ids_of_file
from singlestream.data.questions import Questions, dataset_folder
from singlestream.data.record import DataError, Sentence

SPLITS = ("train", "validation", "test")
FILES = {"train": "snli_ve_train.jsonl", "validation": "snli_ve_dev.jsonl", "test": "snli_ve_test.jsonl"}
ANSWERS = ("entailment", "neutral", "contradiction")
PICTURE = ("Flikr30kID", "Flickr30K_ID")  # keys that name it: what the authors' parser reads, their generator writes


@dataclasses.dataclass(frozen=True)
class Options:
    """Keys of `config.data.options`."""

    images: str = "flickr30k-images"  # folder of the pictures, seen from `config.data.dir`
    features: str = ""  # region features to read in place of pictures: a table or a folder, seen from there


def open_split(data: DataConfig, options: Options, split: str, *, progress: bool = True) -> Questions:
    """Opens a split; `progress` is not needed: `train` takes half a minute and 0.4 GB.

    Raises:
        DataError: files are missing (lists those expected and found) or damaged, or pictures are missing.
    """
    name = FILES[split]
    folder = dataset_folder(data, "SNLI-VE", [name] if options.features else [name, f"{options.images}/"])
    found = read_json_lines(folder / name, "an example of SNLI-VE", _example)
    if not found:
        raise DataError(f"{folder / name}: holds no example")
    return Questions(
        [text for text, _ in found],
        [picture for _, picture in found],
        shared=data.texts_per_row > 1,
        images=folder / options.images,
        features=folder / options.features if options.features else None,
        identify=functools.partial(ids_of_file, FLICKR30K),
    )


def _example(line: dict[str, Any]) -> tuple[Sentence, str]:
    label = line["gold_label"]
    if label not in ANSWERS:
        raise ValueError(f"gold_label={label!r}, expected {', '.join(ANSWERS)}")
    text = Sentence(id=line["pairID"], text=line["sentence2"], answer=sys.intern(label))
    parsed, generated = PICTURE
    picture = str(line[parsed if parsed in line else generated])
    return text, sys.intern(f"{picture.removesuffix('.jpg')}.jpg")
