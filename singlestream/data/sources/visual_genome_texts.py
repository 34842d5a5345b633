"""The texts of Visual Genome in columns, and the sentences that are made of them."""

from __future__ import annotations

import array
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from singlestream.data.columns import TextColumn
from singlestream.data.genome_pictures import Picture
from singlestream.data.record import Mention, Sentence
from singlestream.data.regions import unit_boxes


class Texts(Sequence[Sentence]):
    """Phrases with their boxes, or questions with answers, made when they are asked for: there are five million."""

    def __init__(self) -> None:
        self.pictures, self._ids, self._boxes = array.array("q"), array.array("q"), array.array("i")
        self._texts, self._answers = TextColumn(), TextColumn()
        self.places: dict[int, Picture] = {}
        self.rows = np.zeros(0, np.int64)  # those of the split

    def take(self, value: dict[str, Any]) -> None:
        """Keeps a region or question of the file, unless it is empty; nothing of it stays in the JSON."""
        if value.get("phrase", "").strip():
            self._keep(value, value["region_id"], value["phrase"])
            self._boxes.extend(int(value[side]) for side in ("x", "y", "width", "height"))
        elif value.get("question", "").strip() and value["answer"].strip(". "):
            self._keep(value, value["qa_id"], value["question"])
            self._answers.append(value["answer"].strip(". ").lower())

    def _keep(self, value: dict[str, Any], number: int, text: str) -> None:
        self.pictures.append(value["image_id"])
        self._ids.append(number)
        self._texts.append(text.strip())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        row = int(self.rows[i])
        number, text = str(self._ids[row]), self._texts[row]
        if len(self._answers):
            return Sentence(id=number, text=text, answer=sys.intern(self._answers[row]))
        left, top, wide, high = self._boxes[4 * row : 4 * row + 4]
        _, width, height, _ = self.places[self.pictures[row]]
        boxes = unit_boxes([(left, top, left + wide, top + high)], width, height)
        return Sentence(id=number, text=text, mentions=(Mention(start=0, end=len(text), boxes=boxes),))
