"""What a source gives: a picture (or several), the texts about it, and what is known of the truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from singlestream.data.official_vqa import accuracy

DETECTED = "detected"  # name of an attribute of regions, see `Source`
Span = tuple[int, int]  # first and last + 1 of the characters of a word


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mention:
    """A word that names something: characters `start` to `end` of its text, and the boxes it speaks of.

    `boxes` are (x0, y0, x1, y1) in [0, 1] of the picture with number `index` of the record, origin top left.
    """

    start: int
    end: int
    boxes: Float[np.ndarray, "M 4"]
    index: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """One text about the pictures of a record: a question with its answer, or a caption (answer "").

    `answers` are those of all annotators as they wrote them, where several were asked (VQA), and `answer` is then the
    commonest. None is the answer of a question to which none is published. Texts with the same `group` are right
    together or not at all, where consistency is counted (NLVR).

    `arcs` are pairs of words that stand in a dependency, each by its characters, in either order; None: not known. So
    parsers tell where words lie: spaCy `(token.idx, token.idx + len(token))`, Stanza `(start_char, end_char)`, and
    TokenRange in CoNLL-U. Numbers of words would be those of the parser's own way to divide a text.
    """

    id: str
    text: str
    answer: str | None = ""
    kind: str = ""
    mentions: tuple[Mention, ...] = ()
    answers: tuple[str, ...] = ()
    group: str = ""
    arcs: tuple[tuple[Span, Span], ...] | None = None

    def score(self, said: str) -> float:
        """Points, 0 to 1, of giving this answer: the VQA accuracy where several annotators were asked, else 0 or 1."""
        return accuracy(said, self.answers) if self.answers else float(said == self.answer)

    def about(self, number: int) -> Sentence:
        """The text beside one picture alone, which then is the first."""
        own = (dataclasses.replace(mention, index=0) for mention in self.mentions if mention.index == number)
        return dataclasses.replace(self, mentions=tuple(own))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionFeatures:
    """What a detector found in one picture.

    `features` float32 [N, F]; `boxes` float32 [N, 4] (x0, y0, x1, y1) in [0, 1]; `classes` int32 [N, A] and `scores`
    float32 [N, A] are the detector's own, of the object and, where A is 2, of its attribute. `distribution` float32
    [N, C] are its probabilities of all classes of objects, the background first. None: not known.
    """

    features: Float[np.ndarray, "N F"]
    boxes: Float[np.ndarray, "N 4"] | None = None
    classes: Int[np.ndarray, "N A"] | None = None
    scores: Float[np.ndarray, "N A"] | None = None
    distribution: Float[np.ndarray, "N C"] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One picture (or pair, or frames) with its texts.

    `images` are uint8 [height, width, 3] arrays; `regions` stand in their place, or beside them: what a detector found
    in each picture. `boxes[i]` and `classes[i]` say what lies where: a class of each attribute in the source's
    `region_classes`, in that order, and `index[i]` in which picture. `relations`, a scene graph, are pairs of numbers
    of `boxes` whose objects stand in a relation, in either order; None: not known. `picture` is the same for records
    that show the same picture, and fits into int32. `files` are the names of the pictures' files as the dataset has
    them, () where a source knows none. `sound` is what is heard with the pictures, `config.data.audio_rate` samples a
    second in [-1, 1].

    Raises:
        DataError: a `picture` that does not fit, a relation of a box that is not there.
    """

    id: str
    images: tuple[np.ndarray, ...]
    texts: tuple[Sentence, ...]
    picture: int
    files: tuple[str, ...] = ()
    sound: Float[np.ndarray, " S"] | None = None
    regions: tuple[RegionFeatures, ...] = ()
    boxes: Float[np.ndarray, "M 4"] = dataclasses.field(default_factory=lambda: np.zeros((0, 4), np.float32))
    classes: Int[np.ndarray, "M A"] = dataclasses.field(default_factory=lambda: np.zeros((0, 0), np.int32))
    index: Int[np.ndarray, " M"] = dataclasses.field(default_factory=lambda: np.zeros((0,), np.int32))
    relations: Int[np.ndarray, "R 2"] | None = None

    def __post_init__(self) -> None:
        if not -(2**31) <= self.picture < 2**31:
            raise DataError(
                f"record {self.id}: picture={self.picture} does not fit into int32; number the pictures anew"
            )
        if self.relations is not None and not ((self.relations >= 0) & (self.relations < len(self.boxes))).all():
            raise DataError(
                f"record {self.id}: relations number {self.relations.min()} to {self.relations.max()} of its "
                f"{len(self.boxes)} boxes, which count from 0"
            )

    def alone(self, number: int) -> Record:
        """The record with one of its pictures and what is known of that one."""
        here = self.index == number
        relations = self.relations
        if relations is not None:
            relations = (np.cumsum(here) - 1)[relations[here[relations].all(axis=1)]]
        return dataclasses.replace(
            self,
            texts=tuple(text.about(number) for text in self.texts),
            images=self.images[number : number + 1],
            files=self.files[number : number + 1],
            regions=self.regions[number : number + 1],
            boxes=self.boxes[here],
            classes=self.classes[here],
            index=self.index[here] * 0,
            relations=relations,
        )


class DataError(ValueError):
    """Data that is missing, damaged or of another layout; its message names the file or record and what to do."""


@runtime_checkable
class Source(Protocol):
    """One split of a dataset, by random access. A file in `data/sources/` offers `SPLITS` and `open_split`.

    `region_classes` maps each attribute of a region to its class names ({} where no regions are known). An attribute
    `DETECTED` says that a detector gives the probabilities of its classes (`RegionFeatures.distribution`).
    """

    region_classes: Mapping[str, Sequence[str]]

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Record: ...

    def texts(self, i: int) -> tuple[Sentence, ...]:
        """The record's texts without decoding its pictures (for vocabularies and for what a question alone reaches)."""
        ...
