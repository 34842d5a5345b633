"""COCO captions: five sentences about each photograph, in Karpathy's split (Chen et al. 2015, arXiv:1504.00325).

`config.data.dir` holds the captions (https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip) and
the pictures of COCO (https://cocodataset.org/#download):

    dataset_coco.json
    train2014/COCO_train2014_000000000009.jpg  val2014/

A record is a picture with its captions (config.data.texts="captions"): 113,287 to train on, 5,000 each to validate and
to test. A row draws as many of them as it takes, anew each epoch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from singlestream.config import DataConfig
from singlestream.data.karpathy import read_karpathy
from singlestream.data.overlap import COCO, ids_of_file
from singlestream.data.questions import Questions, dataset_folder

SPLITS = ("train", "validation", "test")
NAMES = {"train": ("train", "restval"), "validation": ("val",), "test": ("test",)}


@dataclasses.dataclass(frozen=True)
class Options:
    """Keys of `config.data.options`."""

    restval: bool = True  # train on the 30,504 pictures of val2014 that neither validate nor test, too
    images: str = ""  # folder that holds train2014 and val2014, seen from `config.data.dir`
    features: str = ""  # region features to read in place of pictures: a table or a folder, seen from there
    distribution: bool = False  # also read a detector's class probabilities there, for `mrm`


def open_split(data: DataConfig, options: Options, split: str, *, progress: bool = True) -> Questions:
    """Opens a split; `progress` is not needed: reading takes seconds.

    Raises:
        DataError: files are missing (lists those expected and found) or damaged, or pictures are missing.
    """
    names = NAMES[split] if options.restval else NAMES[split][:1]
    places = ["train2014"] * ("train" in names) + ["val2014"] * (names != ("train",))
    expected = ["dataset_coco.json"]
    if not options.features:
        expected += [f"{options.images}/{place}/".lstrip("/") for place in places]
    folder = dataset_folder(data, "COCO captions", expected)
    captions = read_karpathy(folder / "dataset_coco.json", names)
    return Questions(
        [text for texts in captions.values() for text in texts],
        [picture for picture, texts in captions.items() for _ in texts],
        shared=True,
        images=folder / options.images,
        features=folder / options.features if options.features else None,
        distribution=options.distribution,
        identify=functools.partial(ids_of_file, COCO),
    )


def caption_results(said: Mapping[str, str]) -> list[dict[str, Any]]:
    """Captions as COCO's evaluation reads them (`COCO.loadRes`), of the files whose names end in an id."""
    return [{"image_id": found.id, "caption": said[file]} for file in said for found in ids_of_file(COCO, file)]
