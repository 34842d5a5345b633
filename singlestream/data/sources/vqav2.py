"""VQA v2: ten people's answers to each question about a photograph (Goyal et al. 2017, https://visualqa.org/download).

`config.data.dir` holds the published files as they unpack, and the pictures of COCO:

    v2_OpenEnded_mscoco_{train2014,val2014,test-dev2015,test2015}_questions.json
    v2_mscoco_{train2014,val2014}_annotations.json
    train2014/COCO_train2014_000000000009.jpg  val2014/  test2015/

A split needs its own files alone. Answers of `test_dev` and `test` (test-std) are not published: `eval.py` then writes
`submission.json` for the server. A text's kind is its answer's type: yes/no, number or other.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from singlestream.config import DataConfig
from singlestream.data.json_file import read_json
from singlestream.data.official_vqa import clean, normalise
from singlestream.data.overlap import COCO, ids_of_file
from singlestream.data.questions import Questions, dataset_folder
from singlestream.data.record import DataError, Sentence

SPLITS = ("train", "validation", "test_dev", "test")
PARTS = {"train": "train2014", "validation": "val2014", "test_dev": "test-dev2015", "test": "test2015"}
ANSWERED = ("train2014", "val2014")

Asked = list[tuple[Sentence, int]]  # questions with the number of their picture


@dataclasses.dataclass(frozen=True)
class Options:
    """Keys of `config.data.options`.

    With `held_out` above 0, training takes train2014 and val2014 but for so many pictures of it (those of the highest
    numbers), which are then the validation split: ViLT keeps 1,000 so (section 4.3), without saying which.
    """

    held_out: int = 0  # pictures; 0: all of val2014
    images: str = ""  # folder that holds train2014 and the others, seen from `config.data.dir`
    features: str = ""  # region features to read in place of pictures: a table or a folder, seen from there

    def __post_init__(self) -> None:
        if self.held_out < 0:
            raise ValueError(f"config.data.options.held_out={self.held_out}: must be at least 0")


def open_split(data: DataConfig, options: Options, split: str, *, progress: bool = True) -> Questions:
    """Opens a split; `progress` is not needed: the 440,000 questions of train2014 take ten seconds and 0.4 GB.

    Raises:
        DataError: files are missing (lists those expected and found), damaged, or of other questions; or pictures are.
    """
    both = split == "train" and options.held_out > 0
    parts = ANSWERED if both else (PARTS[split],)
    expected = [name for part in parts for name in _files(part)]
    if not options.features:
        expected += [f"{options.images}/{_pictures(part)}/".lstrip("/") for part in parts]
    folder = dataset_folder(data, "VQA v2", expected)
    texts: list[Sentence] = []
    pictures: list[str] = []
    for part in parts:
        asked = _read(folder, part)
        if part == "val2014" and options.held_out:
            asked = _halves(asked, options.held_out)[split == "validation"]
        place = _pictures(part)
        texts += [sentence for sentence, _ in asked]
        pictures += [sys.intern(f"{place}/COCO_{place}_{number:012d}.jpg") for _, number in asked]
    return Questions(
        texts,
        pictures,
        shared=data.texts_per_row > 1,
        images=folder / options.images,
        features=folder / options.features if options.features else None,
        identify=functools.partial(ids_of_file, COCO),
    )


def submission(said: Mapping[str, str]) -> list[dict[str, Any]]:
    """Answers by question id as the VQA server takes them."""
    return [{"question_id": int(question), "answer": answer} for question, answer in said.items()]


def _files(part: str) -> list[str]:
    annotations = [f"v2_mscoco_{part}_annotations.json"] if part in ANSWERED else []
    return [f"v2_OpenEnded_mscoco_{part}_questions.json", *annotations]


def _pictures(part: str) -> str:
    return part.replace("-dev", "")


def _read(folder: pathlib.Path, part: str) -> Asked:
    questions, *annotations = (folder / name for name in _files(part))
    given = dict(_rows(annotations[0], "annotations", _annotation)) if annotations else {}
    asked = [
        (Sentence(id=str(id), text=text, **given.get(id, {"answer": None})), picture)
        for id, (picture, text) in _rows(questions, "questions", _question)
    ]
    if annotations and {int(sentence.id) for sentence, _ in asked} != set(given):
        raise DataError(f"{annotations[0]}: holds other questions than {questions.name}")
    return asked


def _rows(path: pathlib.Path, key: str, shrink: Any) -> list[tuple[int, Any]]:
    try:
        found = read_json(path, dict, shrink=shrink).get(key)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not VQA v2's {key} ({error!r})") from error
    if not isinstance(found, list) or not found or not all(isinstance(row, tuple) for row in found):
        raise DataError(f"{path}: not VQA v2's {key}")
    return found


def _question(value: dict[str, Any]) -> Any:
    if "question_id" not in value:
        return value
    return value["question_id"], (int(value["image_id"]), sys.intern(value["question"]))


def _annotation(value: dict[str, Any]) -> Any:
    """An annotator's answer becomes the string, an annotation (id, fields of `Sentence`)."""
    if "answer_id" in value:
        return sys.intern(value["answer"])
    if "question_id" not in value:
        return value
    # Where all say the same, the evaluation compares letter by letter; `official_vqa.points` says so at length.
    given = {clean(answer) for answer in value["answers"]}
    commonest = value["multiple_choice_answer"]
    answer = sys.intern(given.pop() if len(given) == 1 else normalise(commonest) or commonest)
    kind = sys.intern(value["answer_type"])
    return value["question_id"], {"answer": answer, "kind": kind, "answers": tuple(value["answers"])}


def _halves(asked: Asked, held_out: int) -> tuple[Asked, Asked]:
    """The questions without those of the `held_out` pictures of the highest numbers, and these."""
    kept = set(sorted({picture for _, picture in asked})[-held_out:])
    return [each for each in asked if each[1] not in kept], [each for each in asked if each[1] in kept]
