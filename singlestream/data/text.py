"""Text to ids: a WordPiece tokenizer with BERT's special tokens."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers

from singlestream.data.record import DataError
from singlestream.data.tokenizer_files import Reading, read_folder, read_reading, read_vocabulary, write_files
from singlestream.data.vocabulary import CONTINUES, SPECIAL, count_words, train_vocabulary

UNCASED = Reading()


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
    """WordPiece as BERT reads text: the ids are those of `transformers.BertTokenizer`.

    A special token that stands in the text (`[MASK]`) is that token, and is not split.

    Args:
        vocabulary: token -> id; it holds the five special tokens. Ids are 0, 1, 2, ... without a gap.
        reading: what is done to the text before it is looked up; by default that of BERT's uncased models.

    Raises:
        DataError: a special token is missing, or the ids have gaps.
    """

    def __init__(self, vocabulary: Mapping[str, int], reading: Reading = UNCASED):
        missing = [token for token in SPECIAL if token not in vocabulary]
        if missing:
            raise DataError(f"the vocabulary lacks {', '.join(missing)}: it has to be a WordPiece vocabulary as BERT's")
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise DataError("the vocabulary's ids have gaps or repeat: one token a line, every line another one")
        self.vocabulary, self.reading = dict(vocabulary), reading
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (self.vocabulary[t] for t in SPECIAL)
        self._tokens = sorted(self.vocabulary, key=self.vocabulary.__getitem__)
        self._backend = Backend(models.WordPiece(self.vocabulary, unk_token="[UNK]"))
        self._backend.normalizer = normalizers.BertNormalizer(
            lowercase=reading.lowercase,
            strip_accents=reading.strip_accents,
            handle_chinese_chars=reading.split_chinese,
        )
        self._backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._backend.decoder = decoders.WordPiece(prefix=CONTINUES)
        self._backend.add_special_tokens(list(SPECIAL))
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

        How text is read stands in `tokenizer_config.json` beside it, where there is one.

        Raises:
            DataError: no such file, no such vocabulary, or another kind of tokenizer.
        """
        path = pathlib.Path(path)
        return cls._checked(path, read_vocabulary(path), read_reading(path.parent))

    @classmethod
    def from_folder(cls, folder: str | pathlib.Path) -> Tokenizer:
        """Reads the tokenizer of a run's or a published checkpoint's folder.

        Its vocabulary is `tokenizer.json` or else `vocab.txt`, and `tokenizer_config.json` says how text is read, as
        `transformers.BertTokenizer.from_pretrained` takes them.

        Raises:
            DataError: none of these files is there, one is damaged, or it is another kind of tokenizer than BERT's.
        """
        return cls._checked(*read_folder(pathlib.Path(folder)))

    @classmethod
    def _checked(cls, path: pathlib.Path, vocabulary: Mapping[str, int], reading: Reading) -> Tokenizer:
        try:
            return cls(vocabulary, reading)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    def save(self, folder: str | pathlib.Path) -> None:
        """Writes `vocab.txt` and `tokenizer_config.json`, which `transformers.BertTokenizer` reads too."""
        write_files(pathlib.Path(folder), self._tokens, self.reading)

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    @functools.cached_property
    def continuations(self) -> tuple[int, ...]:
        """Ids of the pieces that continue a word, in order."""
        return tuple(sorted(i for token, i in self.vocabulary.items() if token.startswith(CONTINUES) and token != "##"))

    def encode(
        self, text: str, max_length: int, *, opening: tuple[int, ...] = (), ending: tuple[int, ...] = ()
    ) -> Tokens:
        """`[CLS] words [SEP]` of at most `max_length` tokens; what is longer loses its end, and says so.

        Args:
            opening: ids that stand between `[CLS]` and the words.
            ending: ids that stand between the words and `[SEP]`, however long the text is.

        Raises:
            DataError: the text holds no word.
        """
        return self._encode(text, max_length, opening, ending)

    def _encode_anew(self, text: str, max_length: int, opening: tuple[int, ...], ending: tuple[int, ...]) -> Tokens:
        encoding = self._backend.encode(text, add_special_tokens=False)
        if not encoding.ids:
            raise DataError(f"the text {text!r} is empty: it holds no word or sign to read")
        first, last = (self.cls_id, *opening), (*ending, self.sep_id)
        room = max_length - len(first) - len(last)
        ids = (*first, *encoding.ids[:room], *last)
        spans = (*((0, 0) for _ in first), *encoding.offsets[:room], *((0, 0) for _ in last))
        return Tokens(ids, spans, len(encoding.ids) > room)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of the ids, special tokens left out, pieces joined."""
        special = {self.vocabulary[token] for token in SPECIAL} - {self.unk_id}
        return self._backend.decode([int(i) for i in ids if int(i) not in special], skip_special_tokens=False)

    def token(self, token_id: int | np.integer) -> str:
        """The piece with this id, as in the vocabulary (`##ing`)."""
        return self._tokens[int(token_id)]
