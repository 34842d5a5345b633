"""Text to ids: a WordPiece tokenizer with BERT's special tokens, and the training of its vocabulary."""

from __future__ import annotations

import collections
import dataclasses
import functools
import heapq
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers

from singlestream.data.record import DataError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUES = "##"
VOCABULARY = "vocab.txt"


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A text as ids, `[CLS] words [SEP]`.

    `spans[i]` are the characters (start, end) of the text that token i stands for, (0, 0) for a special token;
    `truncated` says that the text was longer and lost its end.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    truncated: bool


class Tokenizer:
    """WordPiece over lower-case text without accents, as BERT's uncased models read it.

    Args:
        vocabulary: token -> id; it holds the five special tokens. Ids are 0, 1, 2, ... without a gap.

    Raises:
        DataError: a special token is missing, or the ids have gaps.
    """

    def __init__(self, vocabulary: Mapping[str, int]):
        missing = [token for token in SPECIAL if token not in vocabulary]
        if missing:
            raise DataError(f"the vocabulary lacks {', '.join(missing)}: it has to be a WordPiece vocabulary as BERT's")
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise DataError("the vocabulary's ids have gaps or repeat: one token a line, every line another one")
        self.vocabulary = dict(vocabulary)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (self.vocabulary[t] for t in SPECIAL)
        self._tokens = sorted(self.vocabulary, key=self.vocabulary.__getitem__)
        self._backend = Backend(models.WordPiece(self.vocabulary, unk_token="[UNK]"))
        self._backend.normalizer = normalizers.BertNormalizer(lowercase=True)
        self._backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._backend.decoder = decoders.WordPiece(prefix=CONTINUES)
        # The same questions come again and again; a hit costs a hundredth of tokenising.
        self._encode = functools.lru_cache(maxsize=1 << 16)(self._encode_anew)

    @classmethod
    def train(cls, texts: Iterable[str] | Mapping[str, int], vocab_size: int) -> Tokenizer:
        """A vocabulary of at most `vocab_size` pieces learned from `texts` (or from how often each occurs).

        The same texts give the same vocabulary, in whatever order they come.
        """
        return cls({token: i for i, token in enumerate(train_vocabulary(count_words(texts), vocab_size))})

    @classmethod
    def from_file(cls, path: str | pathlib.Path) -> Tokenizer:
        """Reads `vocab.txt`: one token a line, its id is the line's number from 0.

        Raises:
            DataError: no such file, or no such vocabulary.
        """
        try:
            lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot read the vocabulary ({error})") from error
        vocabulary = {token: i for i, token in enumerate(lines)}
        try:
            return cls(vocabulary)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    def save(self, folder: str | pathlib.Path) -> None:
        """Writes `vocab.txt` into the folder."""
        (pathlib.Path(folder) / VOCABULARY).write_text("\n".join(self._tokens) + "\n", encoding="utf-8")

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    @functools.cached_property
    def continuations(self) -> tuple[int, ...]:
        """Ids of the pieces that continue a word, in order."""
        return tuple(sorted(i for token, i in self.vocabulary.items() if token.startswith(CONTINUES) and token != "##"))

    def encode(self, text: str, max_length: int) -> Tokens:
        """`[CLS] words [SEP]` of at most `max_length` tokens; what is longer loses its end, and says so.

        Raises:
            DataError: the text holds no word.
        """
        return self._encode(text, max_length)

    def _encode_anew(self, text: str, max_length: int) -> Tokens:
        encoding = self._backend.encode(text, add_special_tokens=False)
        if not encoding.ids:
            raise DataError(f"the text {text!r} is empty: it holds no word or sign to read")
        room = max_length - 2
        ids = (self.cls_id, *encoding.ids[:room], self.sep_id)
        spans = ((0, 0), *encoding.offsets[:room], (0, 0))
        return Tokens(ids, spans, len(encoding.ids) > room)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of the ids, special tokens left out, pieces joined."""
        special = {self.vocabulary[token] for token in SPECIAL} - {self.unk_id}
        return self._backend.decode([int(i) for i in ids if int(i) not in special], skip_special_tokens=False)

    def token(self, token_id: int | np.integer) -> str:
        """The piece with this id, as in the vocabulary (`##ing`)."""
        return self._tokens[int(token_id)]


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
