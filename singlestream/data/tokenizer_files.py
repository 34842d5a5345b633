"""The files of a BERT tokenizer, as published checkpoints have them: `vocab.txt`, `tokenizer.json`, their settings."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from singlestream.data.json_file import read_json
from singlestream.data.record import DataError
from singlestream.data.vocabulary import CONTINUES, SPECIAL

VOCABULARY, SETTINGS, WHOLE = "vocab.txt", "tokenizer_config.json", "tokenizer.json"
NO_LIMIT = 10**9  # `model_max_length` beyond this is how `transformers` says that it knows none
NAMES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")  # of SPECIAL, in its order


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How BERT's tokenizer reads a text before it looks words up (Devlin et al. 2019; `BasicTokenizer` of its code).

    `strip_accents`: None does it where `lowercase` does; `split_chinese`: each Chinese character is a word;
    `max_length`: tokens of a text at most, 0 where that is not known.
    """

    lowercase: bool = True
    strip_accents: bool | None = None
    split_chinese: bool = True
    max_length: int = 0


def has_tokenizer(folder: pathlib.Path) -> bool:
    """Whether a vocabulary lies in the folder."""
    return any((folder / name).is_file() for name in (VOCABULARY, WHOLE))


def read_folder(folder: pathlib.Path) -> tuple[pathlib.Path, dict[str, int], Reading]:
    """The file that holds the vocabulary, the vocabulary, and how text is read.

    `transformers.BertTokenizer` takes the vocabulary from `tokenizer.json` where there is one, and everything else from
    `tokenizer_config.json` alone; so does this.

    Raises:
        DataError: no such file, a damaged one, or one of another kind of tokenizer.
    """
    whole, plain = folder / WHOLE, folder / VOCABULARY
    if whole.is_file():
        return whole, _read_whole(whole), read_reading(folder)
    if plain.is_file():
        return plain, read_vocabulary(plain), read_reading(folder)
    raise DataError(f"{folder} has no tokenizer: {VOCABULARY} or {WHOLE} is needed, as BERT's")


def read_vocabulary(path: pathlib.Path) -> dict[str, int]:
    """Token -> number of its line in `vocab.txt`.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        # Lines end at line breaks alone: published vocabularies hold characters at which `splitlines` would cut too.
        with path.open(encoding="utf-8") as file:
            return {line.removesuffix("\n"): i for i, line in enumerate(file)}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the vocabulary ({error})") from error


def _read_whole(path: pathlib.Path) -> dict[str, int]:
    whole = read_json(path, dict)
    model, added = whole.get("model"), whole.get("added_tokens", [])
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(model, dict) or model.get("type", "WordPiece") != "WordPiece" or not isinstance(vocabulary, dict):
        raise DataError(f"{path}: no WordPiece tokenizer; what is read here is BERT's")
    if model.get("continuing_subword_prefix", CONTINUES) != CONTINUES:
        raise DataError(f"{path}: continuing_subword_prefix={model['continuing_subword_prefix']!r}, BERT's is '##'")
    if not all(isinstance(i, int) for i in vocabulary.values()):
        raise DataError(f"{path}: the vocabulary's ids are no whole numbers")
    _refuse_others(path, "added_tokens", added)
    return vocabulary


def read_reading(folder: pathlib.Path) -> Reading:
    """How `tokenizer_config.json` says that text is read; BERT's uncased way where the folder has none.

    Raises:
        DataError: the file is damaged, or asks for what is not read here: other special tokens than BERT's five.
    """
    path = folder / SETTINGS
    if not path.is_file():
        return Reading()
    settings = read_json(path, dict)
    for name, token in zip(NAMES, SPECIAL, strict=True):
        if (found := _content(settings.get(name, token))) != token:
            raise DataError(f"{path}: {name}={found!r}, BERT's is {token!r}; no other is read here")
    for name in ("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens"):
        _refuse_others(path, name, settings.get(name))
    length = settings.get("model_max_length")
    return Reading(
        lowercase=_flag(path, settings, "do_lower_case", True),
        strip_accents=_flag(path, settings, "strip_accents", None),
        split_chinese=_flag(path, settings, "tokenize_chinese_chars", True),
        max_length=int(length) if isinstance(length, (int, float)) and 0 < length < NO_LIMIT else 0,
    )


def write_files(folder: pathlib.Path, tokens: Sequence[str], reading: Reading) -> None:
    """Writes `vocab.txt` and `tokenizer_config.json` so that `transformers.BertTokenizer` reads text the same way."""
    settings: dict[str, Any] = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": reading.lowercase,
        "strip_accents": reading.strip_accents,
        "tokenize_chinese_chars": reading.split_chinese,
        **dict(zip(NAMES, SPECIAL, strict=True)),
    }
    if reading.max_length:
        settings["model_max_length"] = reading.max_length
    (folder / VOCABULARY).write_text("\n".join(tokens) + "\n", encoding="utf-8")
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _flag(path: pathlib.Path, settings: Mapping[str, Any], name: str, default: bool | None) -> Any:
    value = settings.get(name, default)
    if value is not None and not isinstance(value, bool):
        raise DataError(f"{path}: {name}={value!r}, expected true or false")
    return default if value is None else value


def _refuse_others(path: pathlib.Path, name: str, tokens: Any) -> None:
    """Tokens beside the five special ones change how text is split; they are named, not left out in silence."""
    given: Iterable[Any] = tokens.values() if isinstance(tokens, dict) else tokens if isinstance(tokens, list) else ()
    others = [token for token in map(_content, given) if token not in SPECIAL]
    if others:
        raise DataError(
            f"{path}: {name} has {', '.join(map(repr, others[:5]))}: only BERT's special tokens are read here"
        )


def _content(token: Any) -> Any:
    """The text of a token that is written as itself or as an object with its properties."""
    return token.get("content") if isinstance(token, dict) else token
