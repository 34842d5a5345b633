"""Several corpora in one training, each at its own rate, and any of them for its texts or its pictures alone."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from singlestream.config import ConfigError, DataConfig
from singlestream.data.image import Augmentation, choose_augmentations
from singlestream.data.overlap import PictureId, picture_ids
from singlestream.data.record import Record, Sentence, Source
from singlestream.data.sources import open_split, source_module


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """One source of a training; `data` are the run's settings with this corpus's own keys in their place.

    `same_classes`: its classes of regions are those of the run; others are left out of what is learned.

    Raises:
        ConfigError: an augmentation that this source does not have.
    """

    source: Source
    data: DataConfig
    rate: float = 1.0
    same_classes: bool = True
    augmentations: tuple[Augmentation, ...] = dataclasses.field(init=False, default=())

    def __post_init__(self) -> None:
        if self.data.augment:
            offered = getattr(source_module(self.data.name), "AUGMENT", {})
            object.__setattr__(self, "augmentations", choose_augmentations(self.data.augment, offered))

    def prepared(self, record: Record, rng: np.random.Generator) -> Record:
        """The record augmented, which may need its classes, and then without those that are not the run's."""
        for augment in self.augmentations:
            record = augment(record, rng)
        return record if self.same_classes else _without_classes(record)


def _without_classes(record: Record) -> Record:
    regions = tuple(dataclasses.replace(each, classes=None, scores=None, distribution=None) for each in record.regions)
    return dataclasses.replace(
        record,
        regions=regions,
        classes=np.zeros((len(record.boxes), 0), np.int32),
    )


class Mixture:
    """Corpora one after the other as one `Source`; the first one's classes of regions are the run's."""

    def __init__(self, corpora: Sequence[Corpus]):
        self.corpora = tuple(corpora)
        self.region_classes: Mapping[str, Sequence[str]] = corpora[0].source.region_classes
        self.starts = [0, *itertools.accumulate(len(corpus.source) for corpus in corpora)]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, i: int) -> Record:
        source, k = self._at(i)
        return source[k]

    def texts(self, i: int) -> tuple[Sentence, ...]:
        source, k = self._at(i)
        return source.texts(k)

    def picture_ids(self) -> list[tuple[PictureId, ...]]:
        return [ids for corpus in self.corpora for ids in picture_ids(corpus.source)]

    def _at(self, i: int) -> tuple[Source, int]:
        number = bisect.bisect_right(self.starts, i) - 1
        return self.corpora[number].source, i - self.starts[number]


class TextsAlone:
    """A source without its pictures."""

    region_classes: Mapping[str, Sequence[str]] = {}

    def __init__(self, source: Source):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> Record:
        # Which picture it was does not matter: none is there that could be a negative.
        return Record(id=f"{i}", images=(), texts=self.texts(i), picture=0)

    def texts(self, i: int) -> tuple[Sentence, ...]:
        return tuple(dataclasses.replace(text, mentions=()) for text in self._source.texts(i))


def open_training(data: DataConfig, *, progress: bool = True) -> Source:
    """The training split of `data.name`; with `data.corpora` a `Mixture` of it and theirs.

    Raises:
        ConfigError: as `open_split`, with the key of `config.data.corpora`.
        DataError: as `open_split`.
    """
    first = open_split(data, "train", progress=progress)
    if not data.corpora:
        return first
    corpora = [Corpus(source=first, data=data, rate=data.rate)]
    for key, corpus in data.corpora.items():
        own = data.of_corpus(key)
        try:
            source = open_split(own, "train", progress=progress)
            same = list(source.region_classes.items()) == list(first.region_classes.items())
            source = source if corpus.pictures else TextsAlone(source)
            corpora.append(Corpus(source=source, data=own, rate=corpus.rate, same_classes=same))
        except ConfigError as error:
            raise ConfigError(f"config.data.corpora.{key}: {error}") from error
    return Mixture(corpora)


def corpora_of(source: Source, data: DataConfig) -> tuple[Corpus, ...]:
    """What a training reads: the corpora of a mixture, or the source itself as the only one."""
    return source.corpora if isinstance(source, Mixture) else (Corpus(source=source, data=data),)
