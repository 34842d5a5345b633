"""Hateful Memes: is a picture with its words hateful? (Kiela et al. 2020, arXiv:2005.04790)

`config.data.dir` holds the published files (https://hatefulmemeschallenge.com) and the pictures:

    train.jsonl  dev_seen.jsonl  dev_unseen.jsonl  test_seen.jsonl  test_unseen.jsonl
    img/42953.png

Of the first release `dev.jsonl` and `test.jsonl` stand in for the "seen" files, which are the paper's splits; "unseen"
are those of the competition. A text is what is written in the picture; the answer is "hateful" or "not hateful", for
the objective `classify`. A line without a label, as in the first release's test, has no published answer.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from singlestream.config import DataConfig
from singlestream.data.json_file import read_json_lines
from singlestream.data.questions import Questions, dataset_folder
from singlestream.data.record import DataError, Sentence

SPLITS = ("train", "validation", "test", "validation_unseen", "test_unseen")
FILES = {
    "train": "train.jsonl",
    "validation": "dev_seen.jsonl",
    "test": "test_seen.jsonl",
    "validation_unseen": "dev_unseen.jsonl",
    "test_unseen": "test_unseen.jsonl",
}
ANSWERS = ("not hateful", "hateful")  # by label


@dataclasses.dataclass(frozen=True)
class Options:
    """Keys of `config.data.options`."""

    images: str = ""  # folder that holds img, seen from `config.data.dir`
    features: str = ""  # region features to read in place of pictures: a table or a folder, seen from there


def open_split(data: DataConfig, options: Options, split: str, *, progress: bool = True) -> Questions:
    """Opens a split; `progress` is not needed: there are 8,500 memes to train on, 500 and 1,000 of the seen ones.

    Raises:
        DataError: files are missing (lists those expected and found) or damaged, or pictures are missing.
    """
    name = FILES[split]
    first = name.replace("_seen", "")
    here = pathlib.Path(data.dir).expanduser()
    if (here / first).is_file() and not (here / name).is_file():
        name = first
    expected = [name] if options.features else [name, f"{options.images}/img/".lstrip("/")]
    folder = dataset_folder(data, "Hateful Memes", expected)
    found = read_json_lines(folder / name, "a meme of Hateful Memes", _meme)
    if not found:
        raise DataError(f"{folder / name}: holds no meme")
    return Questions(
        [text for text, _ in found],
        [picture for _, picture in found],
        shared=data.texts_per_row > 1,
        images=folder / options.images,
        features=folder / options.features if options.features else None,
    )


def _meme(line: dict[str, Any]) -> tuple[Sentence, str]:
    answer = None if line.get("label") is None else ANSWERS[range(2).index(line["label"])]
    return Sentence(id=str(line["id"]), text=line["text"].strip(), answer=answer), line["img"]
