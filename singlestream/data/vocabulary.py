"""A WordPiece vocabulary learned from texts: the same texts give the same one, in whatever order they come."""

from __future__ import annotations

import collections
import heapq
from collections.abc import Iterable, Mapping

from tokenizers import normalizers, pre_tokenizers

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUES = "##"


def count_words(texts: Iterable[str] | Mapping[str, int]) -> dict[str, int]:
    """How often each word occurs, as the tokenizer splits and lower-cases text."""
    repeated = texts if isinstance(texts, Mapping) else collections.Counter(texts)
    # Only a chunk between blanks is normalised, once for all its occurrences: a word of BERT's never crosses a blank.
    # (`split()` would also split at control characters, which BERT takes out instead.)
    chunks: collections.Counter[str] = collections.Counter()
    for text, count in repeated.items():
        for chunk in text.split(" "):
            chunks[chunk] += count
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    counts: collections.Counter[str] = collections.Counter()
    for chunk, count in chunks.items():
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(chunk)):
            counts[word] += count
    return dict(counts)


def train_vocabulary(counts: Mapping[str, int], vocab_size: int) -> list[str]:
    """The WordPiece vocabulary of words with their counts: special tokens, characters, then whole words or pieces.

    Where all words fit they are taken whole. Else it is the algorithm of `tokenizers` (byte-pair merges with BERT's
    `##`, most frequent pair first), but a tie goes to the alphabetically first pair, so that the result depends on the
    counts alone; `tokenizers` breaks ties by the order of a hash table, which changes from run to run
    (https://github.com/huggingface/tokenizers/issues/1794).

    Args:
        counts: word -> number of occurrences.
        vocab_size: the most tokens to have, special tokens included. Characters that find no room become [UNK].
    """
    words = sorted(counts)
    splits = [[c if i == 0 else CONTINUES + c for i, c in enumerate(word)] for word in words]
    letters: collections.Counter[str] = collections.Counter()
    for word, pieces in zip(words, splits, strict=True):
        for piece in pieces:
            letters[piece] += counts[word]
    vocabulary = list(SPECIAL) + sorted(letters, key=lambda c: (-letters[c], c))[: vocab_size - len(SPECIAL)]
    known = set(vocabulary)
    if len(known.union(words)) <= vocab_size:
        # No room is spent on the pieces that merging would pass through on its way to the words.
        return vocabulary + sorted(set(words) - known, key=lambda word: (-counts[word], word))
    merges = _Merges(splits, [counts[word] for word in words])
    while len(vocabulary) < vocab_size:
        pair = merges.best()
        merged = pair[0] + pair[1].removeprefix(CONTINUES)
        merges.apply(pair, merged)
        if merged not in known:  # two pairs can spell the same piece
            known.add(merged)
            vocabulary.append(merged)
    return vocabulary


class _Merges:
    """Counts of neighbouring pieces, kept up to date while pairs are merged."""

    def __init__(self, splits: list[list[str]], counts: list[int]):
        self.splits, self.counts = splits, counts
        self.pairs: collections.Counter[tuple[str, str]] = collections.Counter()
        self.where: collections.defaultdict[tuple[str, str], set[int]] = collections.defaultdict(set)
        for i in range(len(splits)):
            self._count(i, 1)
        self.heap = [(-count, pair) for pair, count in self.pairs.items()]
        heapq.heapify(self.heap)

    def _count(self, i: int, sign: int) -> set[tuple[str, str]]:
        pieces = self.splits[i]
        pairs = list(zip(pieces, pieces[1:], strict=False))
        for pair in pairs:
            self.pairs[pair] += sign * self.counts[i]
            self.where[pair].add(i)
        return set(pairs)

    def best(self) -> tuple[str, str]:
        """The most frequent pair; there is one as long as a word is in pieces."""
        while True:
            count, pair = heapq.heappop(self.heap)
            if self.pairs[pair] == -count > 0:  # else an entry from before a change; the newer one is in the heap too
                return pair

    def apply(self, pair: tuple[str, str], merged: str) -> None:
        changed: set[tuple[str, str]] = set()
        for i in self.where.pop(pair):
            changed |= self._count(i, -1)
            self.splits[i] = _merge(self.splits[i], pair, merged)
            changed |= self._count(i, 1)
        for other in changed:
            if self.pairs[other] > 0:
                heapq.heappush(self.heap, (-self.pairs[other], other))


def _merge(pieces: list[str], pair: tuple[str, str], merged: str) -> list[str]:
    result: list[str] = []
    for piece in pieces:
        # A piece that was just merged is longer than pair[0] and cannot be taken for it again.
        if result and result[-1] == pair[0] and piece == pair[1]:
            result[-1] = merged
        else:
            result.append(piece)
    return result
