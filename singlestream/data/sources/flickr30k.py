"""Flickr30k: five captions of each photograph (Young et al. 2014), with boxes of what they name (Plummer et al. 2015).

`config.data.dir` holds the captions in Karpathy's split (https://cs.stanford.edu/people/karpathy/deepimagesent/
caption_datasets.zip), the pictures, and with `options.entities` the annotations of Flickr30k Entities
(https://github.com/BryanPlummer/flickr30k_entities, annotations.zip):

    dataset_flickr30k.json
    flickr30k-images/1000092795.jpg
    Annotations/1000092795.xml  Sentences/1000092795.txt

A record is a picture with its captions (config.data.texts="captions"): 29,000 to train on, 1,014 to validate, 1,000 to
test.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib

from singlestream.config import DataConfig
from singlestream.data.karpathy import read_karpathy
from singlestream.data.overlap import FLICKR30K, ids_of_file
from singlestream.data.questions import Questions, dataset_folder
from singlestream.data.sources.flickr30k_entities import read_entities

SPLITS = ("train", "validation", "test")
NAMES = {"train": "train", "validation": "val", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Keys of `config.data.options`."""

    entities: bool = False  # captions as Entities has them (words and signs apart), with mentions and their boxes
    images: str = "flickr30k-images"  # folder of the pictures, seen from `config.data.dir`
    features: str = ""  # region features to read in place of pictures: a table or a folder, seen from there


def open_split(data: DataConfig, options: Options, split: str, *, progress: bool = True) -> Questions:
    """Opens a split; `progress` is not needed: with `entities` two small files a picture are read, which takes seconds.

    Raises:
        DataError: files are missing (lists those expected and found) or damaged, or pictures are missing.
    """
    expected = ["dataset_flickr30k.json", *([] if options.features else [f"{options.images}/"])]
    folder = dataset_folder(data, "Flickr30k", expected + ["Annotations/", "Sentences/"] * options.entities)
    captions = read_karpathy(folder / "dataset_flickr30k.json", (NAMES[split],))
    if options.entities:
        captions = {picture: read_entities(folder, pathlib.PurePath(picture).stem) for picture in captions}
    return Questions(
        [text for texts in captions.values() for text in texts],
        [picture for picture, texts in captions.items() for _ in texts],
        shared=True,
        images=folder / options.images,
        features=folder / options.features if options.features else None,
        identify=functools.partial(ids_of_file, FLICKR30K),
    )
