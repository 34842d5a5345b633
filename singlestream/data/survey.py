"""One pass over a split's texts, for all who want to know what is in it: vocabulary, answers, kinds, priors."""

from __future__ import annotations

import collections
import dataclasses
import functools

from singlestream.data.record import Sentence, Source


@dataclasses.dataclass(frozen=True)
class Survey:
    """What the texts of a split are.

    `counts` says how often each (text, answer, kind) occurs; `sorts[i]` holds the (is a question, kind) of record i's
    texts; `mentions`: whether any word is known to name something in its picture.
    """

    counts: collections.Counter[tuple[str, str, str]]
    sorts: tuple[frozenset[tuple[bool, str]], ...]
    mentions: bool


def is_question(text: Sentence) -> bool:
    """A text with an answer; one without is a caption."""
    return text.answer != ""


def survey(source: Source) -> Survey:
    """Reads every text of the split once, no picture; asked again about the same source it remembers."""
    return _survey(_Same(source))


class _Same:
    """A source as a key: equal to itself alone, whatever its `__eq__` says."""

    def __init__(self, source: Source):
        self.source = source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.source is other.source

    def __hash__(self) -> int:
        return id(self.source)


@functools.lru_cache(maxsize=1)
def _survey(same: _Same) -> Survey:
    counts: collections.Counter[tuple[str, str, str]] = collections.Counter()
    sorts: list[frozenset[tuple[bool, str]]] = []
    shared: dict[frozenset[tuple[bool, str]], frozenset[tuple[bool, str]]] = {}
    mentions = False
    for i in range(len(same.source)):
        texts = same.source.texts(i)
        counts.update((text.text, text.answer, text.kind) for text in texts)
        mentions = mentions or any(text.mentions for text in texts)
        found = frozenset((is_question(text), text.kind) for text in texts)
        sorts.append(shared.setdefault(found, found))  # records have few different sets: keep one of each
    return Survey(counts, tuple(sorts), mentions)
