"""BLEU, ROUGE-L and CIDEr of captions, by pycocoevalcap: `pip install -c constraints.txt -e ".[captions]"`, and Java.

The library is the code that published figures on COCO are made with (Chen et al. 2015); nothing is computed here.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import shutil
from collections.abc import Sequence

LIBRARY = "pycocoevalcap"


def missing() -> str:
    """What has to be installed before captions can be scored; "" where nothing is missing."""
    if importlib.util.find_spec(LIBRARY) is None:
        return f'{LIBRARY} is not installed: pip install -c constraints.txt -e ".[captions]"'
    if shutil.which("java") is None:
        return f"{LIBRARY} splits texts into words by a Java program, and there is no java: install Java 8 or later"
    return ""


def caption_scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Scores of a whole split: `bleu_1` to `bleu_4` and `rouge_l` in [0, 1], `cider` from 0 up.

    Args:
        captions: one a picture.
        references: those that people wrote about it, at least one.

    Raises:
        ValueError: the two have different lengths, or a picture has no reference.
    """
    if len(captions) != len(references) or not all(references):
        raise ValueError(f"{len(captions)} captions, {len(references)} lists of references: each needs one or more")
    tokenizer = _part("tokenizer.ptbtokenizer", "PTBTokenizer")()
    truth = tokenizer.tokenize({i: [{"caption": text} for text in each] for i, each in enumerate(references)})
    said = tokenizer.tokenize({i: [{"caption": text}] for i, text in enumerate(captions)})
    with contextlib.redirect_stdout(io.StringIO()):  # the scorers talk
        bleu = _part("bleu.bleu", "Bleu")(4).compute_score(truth, said)[0]
        rouge = _part("rouge.rouge", "Rouge")().compute_score(truth, said)[0]
        cider = _part("cider.cider", "Cider")().compute_score(truth, said)[0]
    scores = {f"bleu_{n}": float(value) for n, value in enumerate(bleu, start=1)}
    return {**scores, "rouge_l": float(rouge), "cider": float(cider)}


def _part(module: str, name: str) -> type:
    return getattr(importlib.import_module(f"{LIBRARY}.{module}"), name)
