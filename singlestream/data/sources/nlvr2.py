"""NLVR2: is this sentence true of these two photographs? (Suhr et al. 2019, https://github.com/lil-lab/nlvr, nlvr2)

`config.data.dir` holds the files of `nlvr2/data`, and anywhere in it the pictures by their published names, as the
authors hand them out (images/train/0/..., dev/..., test1/...) or as `util/download_images.py` writes them:

    train.json  dev.json  test1.json
    images/train/0/train-10171-0-img0.png  dev/dev-850-0-img0.png  test1/test1-0-0-img0.png

An example is two pictures (config.model.num_images=2), the left one first, and a sentence with the answer "True" or
"False". Examples `SPLIT-SET-PAIR-SENTENCE` that differ in PAIR alone ask the same sentence; they are one group.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

from singlestream.config import DataConfig
from singlestream.data.json_file import read_json_lines
from singlestream.data.questions import Questions, dataset_folder
from singlestream.data.record import DataError, Sentence

SPLITS = ("train", "validation", "test")
PARTS = {"train": "train", "validation": "dev", "test": "test1"}
ANSWERS = ("True", "False")


@dataclasses.dataclass(frozen=True)
class Options:
    """Keys of `config.data.options`."""

    images: str = ""  # folder in which the pictures are looked for, seen from `config.data.dir`
    features: str = ""  # region features to read in place of pictures: a table or a folder, seen from there


def open_split(data: DataConfig, options: Options, split: str, *, progress: bool = True) -> Questions:
    """Opens a split; `progress` is not needed: every folder with pictures is listed once, which takes seconds.

    Raises:
        DataError: files are missing (lists those expected and found) or damaged, or pictures are missing.
    """
    name = f"{PARTS[split]}.json"
    folder = dataset_folder(data, "NLVR2", [name])
    texts = read_json_lines(folder / name, "an example of NLVR2", _sentence)
    if not texts:
        raise DataError(f"{folder / name}: holds no sentence")
    images = folder / options.images
    places = {} if options.features else _find_pictures(images, f"{PARTS[split]}-")

    def files(pair: str) -> tuple[str, ...]:
        sides = (f"{pair}-img0.png", f"{pair}-img1.png")
        return tuple(places.get(side, "") + side for side in sides)

    return Questions(
        texts,
        [text.id.rpartition("-")[0] for text in texts],
        shared=data.texts_per_row > 1,
        images=images,
        features=folder / options.features if options.features else None,
        files=files,
    )


def _sentence(line: dict[str, Any]) -> Sentence:
    label = str(line["label"])
    if label not in ANSWERS:
        raise ValueError(f"label={label!r}, expected {' or '.join(ANSWERS)}")
    part, pictures, _, sentence = line["identifier"].split("-")
    group = f"{part}-{pictures}-{sentence}"  # as the authors' eval/metrics.py counts consistency
    return Sentence(id=line["identifier"], text=line["sentence"], answer=label, group=group)


def _find_pictures(images: pathlib.Path, prefix: str) -> dict[str, str]:
    """The folder of each picture of a split, seen from `images` and with its slash, by the picture's name."""
    places: dict[str, str] = {}
    for place, _, names in os.walk(images):
        here = pathlib.Path(place).relative_to(images).as_posix()
        places |= dict.fromkeys((name for name in names if name.startswith(prefix)), "" if here == "." else f"{here}/")
    return places
