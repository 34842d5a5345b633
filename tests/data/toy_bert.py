"""A small vocabulary with BERT's own numbers for special tokens, and what `transformers.BertTokenizer` makes of texts.

`golden_tokens.json` beside this file is written by `python tests/data/toy_bert.py` where transformers is installed;
`test_transformers.py` holds it against transformers again, `test_published.py` needs neither that nor torch.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from singlestream.data.vocabulary import SPECIAL

GOLDEN = Path(__file__).with_name("golden_tokens.json")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789éÉüßøİıнётΣσς一丁龥가क"
WORDS = ("the", "The", "cat", "cafe", "café", "##s", "##ing", "walk", "un", "##aff", "##able", "naïve", "naive", "##é")
SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¿。，"
READINGS = (
    {},
    {"do_lower_case": False},
    {"strip_accents": False},
    {"do_lower_case": False, "strip_accents": True},
    {"tokenize_chinese_chars": False},
)
TEXTS = (
    "The cat's walking; unaffable CATS!",
    "Is the [MASK] left of [UNK]? [mask] [SEP]x[CLS]y [PAD]",
    "[[MASK]] [ MASK ] [MASK][MASK]##s",
    "café CAFÉ cafe\u0301 naïve Straße İstanbul ΣΑΣ",
    "一丁cat龥 中 的the",
    "a\u0000b\ufffdc\u200bd\u00ade\tf\ng\rh\u00a0i\u2028j\u3000k",
    'don\'t e-mail a@b.c $5.00 3,000 50% (yes) "no" …–—',
    "нёт Нёт НЁТ क가 ㄱ",
    "a" * 100 + " " + "a" * 101,
    "🙂 the cat 👩‍👩‍👧 flag🇩🇪",
    "x\u0301\u0302\u0303 \u0301 alone",
    "¿Qué? 。，！",
    "aaa##s ##s # #",
)


def vocabulary() -> list[str]:
    """Tokens in the order of their ids: [PAD] is 0, [UNK], [CLS], [SEP], [MASK] are 100 to 103."""
    unused = [f"[unused{i}]" for i in range(1, 100)]
    pieces = [c for letter in LETTERS for c in (letter, f"##{letter}")]
    return list(dict.fromkeys([SPECIAL[0], *unused, *SPECIAL[1:], *SIGNS, *pieces, *WORDS]))


def write_bert(folder: Path, **settings: object) -> Path:
    """A folder with the two files that tokenizers of BERT were published with."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **settings}))
    return folder


def cases() -> list[dict]:
    """Each text read by transformers with each reading: {"settings", "text", "ids"}."""
    from transformers import BertTokenizer

    found = []
    for settings in READINGS:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = BertTokenizer.from_pretrained(write_bert(Path(folder), **settings))
        found += [{"settings": settings, "text": text, "ids": tokenizer(text)["input_ids"]} for text in TEXTS]
    return found


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(case) for case in cases())
    GOLDEN.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
