"""One pass over a split's texts, for all who want to know what is in it: vocabulary, answers, kinds, priors."""

from __future__ import annotations

import dataclasses
import functools
import itertools

from singlestream.data.mixture import Mixture
from singlestream.data.record import Sentence, Source


@dataclasses.dataclass(frozen=True)
class Survey:
    """What the texts of a split are.

    `texts[i]` holds record i's texts without their ids, groups, mentions, arcs and the annotators' answers; `mentions`:
    whether any word is known to name something in its picture; `annotators`: whether several people answered any
    question; `arcs`: whether those between the words of any text are known.
    """

    texts: tuple[tuple[Sentence, ...], ...]
    mentions: bool
    annotators: bool
    arcs: bool


def is_question(text: Sentence) -> bool:
    """A text with an answer, published or not; any other is a caption."""
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


@functools.lru_cache(maxsize=8)  # the corpora of a mixture
def _survey(same: _Same) -> Survey:
    texts: list[tuple[Sentence, ...]] = []
    shared: dict[Sentence, Sentence] = {}  # the same texts come again and again: keep one of each
    mentions = annotators = arcs = False
    if isinstance(same.source, Mixture):
        parts = [survey(corpus.source) for corpus in same.source.corpora]
        joined = tuple(itertools.chain.from_iterable(part.texts for part in parts))
        return Survey(
            joined,
            mentions=any(part.mentions for part in parts),
            annotators=any(part.annotators for part in parts),
            arcs=any(part.arcs for part in parts),
        )
    for i in range(len(same.source)):
        found = same.source.texts(i)
        mentions = mentions or any(text.mentions for text in found)
        annotators = annotators or any(text.answers for text in found)
        arcs = arcs or any(text.arcs is not None for text in found)
        bare = (dataclasses.replace(text, id="", mentions=(), arcs=None, answers=(), group="") for text in found)
        texts.append(tuple(shared.setdefault(text, text) for text in bare))
    return Survey(tuple(texts), mentions=mentions, annotators=annotators, arcs=arcs)
