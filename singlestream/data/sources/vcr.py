"""VCR: which of four answers is right, and which of four reasons for it? (Zellers et al. 2019, arXiv:1811.10830)

`config.data.dir` holds the published files as they unpack (https://visualcommonsense.com/download):

    train.jsonl  val.jsonl  test.jsonl
    vcr1images/lsmdc_3015_CHARLIE_ST_CLOUD/3015_CHARLIE_ST_CLOUD_00.23.57.935-00.24.00.783@0.jpg  and .json beside it

A record is one question (config.data.texts_per_row=4): its texts are "question [SEP] choice", with the answer "true" or
"false", as the objective `choose` wants them. What `test` answers is not published. Things are numbers there; see
`vcr_words` for how they are read. 212,923 questions train, 26,534 validate, 25,263 test; pictures are of films, and in
no other collection.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
from typing import Any

import numpy as np

from singlestream.config import ConfigError, DataConfig
from singlestream.data.json_file import published, read_json, read_json_lines
from singlestream.data.questions import Questions, dataset_folder
from singlestream.data.record import DataError, Sentence
from singlestream.data.regions import unit_boxes
from singlestream.data.sources.vcr_words import join, names_of, words_of

SPLITS = ("train", "validation", "test")
FILES = {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}
CHOICES = 4


@dataclasses.dataclass(frozen=True)
class Options:
    """Keys of `config.data.options`."""

    rationale: bool = False  # ask for the reason, the right answer being given (QA->R); else for the answer (Q->A)
    boxes: bool = False  # words for things are mentions with boxes; reads a file more a picture
    images: str = "vcr1images"  # folder of the pictures, seen from `config.data.dir`
    features: str = ""  # region features to read in place of pictures: a table or a folder, seen from there


def open_split(data: DataConfig, options: Options, split: str, *, progress: bool = True) -> Questions:
    """Opens a split; `progress` is not needed: `train` takes 20 seconds and 0.5 GB, with `boxes` more.

    Raises:
        ConfigError: `config.data.texts_per_row` is neither 1 nor room for the four choices.
        DataError: files are missing (lists those expected and found) or damaged, pictures are missing, or reasons are
            asked for where the right answer is not published.
    """
    if 1 < data.texts_per_row < CHOICES:
        raise ConfigError(
            f"config.data.texts_per_row={data.texts_per_row}: a question of VCR has {CHOICES} choices, set it to that"
        )
    name = FILES[split]
    if options.rationale and split == "test":
        raise DataError(
            f"{name}: reasons are for the right answer, which is not published; config.data.options.rationale=True has "
            "no split 'test'"
        )
    needs_folder = options.boxes or not options.features
    folder = dataset_folder(data, "VCR", [name, f"{options.images}/"] if needs_folder else [name])
    reader = _Reader(folder / options.images, options, answered=split != "test")
    found = read_json_lines(folder / name, "a question of VCR", reader.choices)
    if not found:
        raise DataError(f"{folder / name}: holds no question")
    texts = [text for choices, _ in found for text in choices]
    return Questions(
        texts,
        [picture for choices, picture in found for _ in choices],
        shared=data.texts_per_row > 1,
        images=folder / options.images,
        features=folder / options.features if options.features else None,
        groups=[text.group for text in texts],
    )


@dataclasses.dataclass(frozen=True)
class _Reader:
    """From a line of the file to the four texts of its question, and the picture's file."""

    images: pathlib.Path
    options: Options
    answered: bool

    def choices(self, line: dict[str, Any]) -> tuple[list[Sentence], str]:
        names = names_of(line["objects"])
        asked, kind = line["question"], "rationale" if self.options.rationale else "answer"
        if self.options.rationale:
            asked = asked + line["answer_choices"][line["answer_label"]]
        opening = [*words_of(asked, names), ("[SEP]", -1)]
        right = range(CHOICES).index(line[f"{kind}_label"]) if self.answered else None
        boxes = _read_boxes(self.images / line["metadata_fn"], len(names)) if self.options.boxes else None
        group, texts = line["annot_id"], []
        for number, choice in zip(range(CHOICES), line[f"{kind}_choices"], strict=True):
            text, mentions = join([*opening, *words_of(choice, names)], boxes)
            answer = None if right is None else "true" if number == right else "false"
            texts.append(Sentence(id=f"{group}-{number}", text=text, answer=answer, mentions=mentions, group=group))
        return texts, sys.intern(line["img_fn"])


@functools.lru_cache(maxsize=64)  # questions about a picture follow one another
def _read_boxes(path: pathlib.Path, count: int) -> np.ndarray:
    """The boxes of a picture's things from its own file, in [0, 1]; after the corners each has its confidence."""
    with published(path, "a picture's things of VCR"):
        value = read_json(path, dict)
        boxes = unit_boxes([box[:4] for box in value["boxes"]], value["width"], value["height"])
        if len(boxes) != count:
            raise ValueError(f"{len(boxes)} boxes of {count} things")
        return boxes
