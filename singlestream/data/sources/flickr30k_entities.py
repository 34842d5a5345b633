"""Flickr30k Entities: the captions with what their phrases name, and the boxes of it (Plummer et al. 2015).

A line of `Sentences/1000092795.txt` is a caption, `[/EN#1/people Two young guys] with ...`; the file beside it,
`Annotations/1000092795.xml`, has boxes of the things by their numbers. What has none (a scene, what cannot be seen) is
no mention.
"""

from __future__ import annotations

import pathlib
import re
from xml.etree import ElementTree

import numpy as np

from singlestream.data.json_file import published
from singlestream.data.record import DataError, Mention, Sentence
from singlestream.data.regions import unit_boxes

PHRASE = re.compile(r"\[/EN#(\d+)/\S+ (.*?)\](?=\s|$)")  # [/EN#137644/people A group of friends]


def read_entities(folder: pathlib.Path, picture: str) -> tuple[Sentence, ...]:
    """A picture's captions; what a phrase names, where it has boxes, is a mention.

    Raises:
        DataError: a file is missing or damaged; names it.
    """
    path = folder / "Sentences" / f"{picture}.txt"
    boxes = _read_boxes(folder / "Annotations" / f"{picture}.xml")
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not lines:
        raise DataError(f"{path}: holds no caption")
    return tuple(_sentence(f"{picture}#{i}", line, boxes) for i, line in enumerate(lines))


def _sentence(number: str, line: str, boxes: dict[str, np.ndarray]) -> Sentence:
    text, mentions, end = "", [], 0
    for phrase in PHRASE.finditer(line.strip()):
        text += line.strip()[end : phrase.start()]
        if phrase[1] in boxes:
            mentions.append(Mention(start=len(text), end=len(text) + len(phrase[2]), boxes=boxes[phrase[1]]))
        text, end = text + phrase[2], phrase.end()
    return Sentence(id=number, text=text + line.strip()[end:], mentions=tuple(mentions))


def _read_boxes(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The boxes of each thing by its number; their pixels count from 1 there."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    found: dict[str, list[list[float]]] = {}
    with published(path, "an annotation of Flickr30k Entities"):
        width, height = (float(root.findtext(f"size/{side}") or "") for side in ("width", "height"))
        for thing in root.iterfind("object"):
            if thing.find("bndbox") is not None:
                sides = (thing.findtext(f"bndbox/{side}") or "" for side in ("xmin", "ymin", "xmax", "ymax"))
                box = [float(side) - 1 for side in sides]
                for name in thing.iterfind("name"):
                    found.setdefault(name.text or "", []).append(box)
        return {name: unit_boxes(each, width, height) for name, each in found.items()}
