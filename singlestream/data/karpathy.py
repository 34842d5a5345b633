"""Captions in Karpathy's files `dataset_coco.json` and `dataset_flickr30k.json` (Karpathy and Fei-Fei 2015).

https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Collection
from typing import Any

from singlestream.data.json_file import published, read_json
from singlestream.data.record import DataError, Sentence


def read_karpathy(path: pathlib.Path, splits: Collection[str]) -> dict[str, tuple[Sentence, ...]]:
    """The captions of each picture of the splits, by its file: `train2014/COCO_...jpg`, `1000092795.jpg`.

    Raises:
        DataError: the file is damaged, or has no caption of these splits; names it.
    """

    def shrink(value: dict[str, Any]) -> Any:
        if "raw" in value:
            return Sentence(id=str(value["sentid"]), text=value["raw"].strip())
        if "filename" in value:
            name = "/".join(part for part in (value.get("filepath"), value["filename"]) if part)
            return (sys.intern(name), tuple(value["sentences"])) if value["split"] in splits else None
        return value

    with published(path, "Karpathy's captions"):
        found = dict(each for each in read_json(path, dict, shrink=shrink)["images"] if each)
        if any(not isinstance(text, Sentence) for texts in found.values() for text in texts):
            raise ValueError("a caption without raw")
    if not any(found.values()):
        raise DataError(f"{path}: holds no caption of {', '.join(splits)}")
    return found
