"""Visual Genome's `image_data.json`: its pictures, and which of them are COCO's (Krishna et al. 2017)."""

from __future__ import annotations

import pathlib

from singlestream.data.json_file import published, read_json
from singlestream.data.overlap import COCO, FLICKR30K, VISUAL_GENOME, PictureId

PICTURES = "image_data.json"
Picture = tuple[str, int, int, tuple[PictureId, ...]]  # file, width, height, ids


def read_pictures(path: pathlib.Path) -> dict[int, Picture]:
    """The pictures by id: the last two parts of an address are folder and file.

    Raises:
        DataError: the file is damaged.
    """
    with published(path, "Visual Genome's pictures"):
        found: dict[int, Picture] = {}
        for each in read_json(path, list):
            elsewhere = {COCO: each.get("coco_id"), FLICKR30K: each.get("flickr_id")}  # of Flickr's few are Flickr30k's
            others = (PictureId(collection, int(number)) for collection, number in elsewhere.items() if number)
            file = "/".join(each["url"].split("/")[-2:])
            ids = (*others, PictureId(VISUAL_GENOME, each["image_id"]))
            width, height = int(each["width"]), int(each["height"])
            if min(width, height) < 1:
                raise ValueError(f"picture {each['image_id']} of {width} x {height}")
            found[each["image_id"]] = (file, width, height, ids)
        return found
