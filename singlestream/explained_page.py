"""The page of what is explained of one picture and text; `explain/study.js` draws it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from singlestream.explain.html import pack_attention, pack_picture, to_html, to_json, write_page
from singlestream.explain.question import Relevance
from singlestream.explained import Explained
from singlestream.explained_heads import Heads

SCRIPTS = ("charts.js", "attention.js", "maps.js", "tables.js", "study.js")
STYLES = ("report.css", "study.css")
GROUND = np.full((360, 360, 3), 96, np.uint8)  # where the model reads regions and no picture is there
NUM_ANSWERS = 6


def page_of(explained: Explained, *, title: str) -> str:
    """One self-contained HTML file; maps are divided by their own largest number, so that any can be seen.

    Of words it is the largest of those that the text spells: beside what `[CLS]` and `[SEP]` gather they would be pale.
    """
    prediction = explained.prediction
    data = {
        "title": title,
        "text": explained.text,
        "answer": explained.answer,
        "predicted": prediction.answer if prediction else "",
        "probabilities": list(prediction.probabilities.items())[:NUM_ANSWERS] if prediction else [],
        "image_token": "region" if explained.regions else "patch",
        "located": explained.located,
        "sound": None if explained.sound is None else pack_picture(_picture_of(explained.sound)),
        "images": [pack_picture(image) for image in _grounds(explained)],
        "words": explained.words,
        "special": explained.special.tolist(),
        "patches": explained.patches,
        "instruments": [_instrument(name, said, ~explained.special) for name, said in explained.instruments.items()],
        "pruned": explained.pruned,
        "heads": None if explained.heads is None else _heads(explained.heads),
    }
    plain = "This page draws itself with JavaScript."
    return to_html(title=title, data=to_json(data), scripts=SCRIPTS, styles=STYLES, plain=plain)


def write_explained(explained: Explained, path: Path, *, title: str) -> None:
    """Writes the page; a page that is there already is replaced whole or not at all."""
    write_page(page_of(explained, title=title), path)


def _grounds(explained: Explained) -> list[np.ndarray]:
    if explained.images:
        return list(explained.images)
    return [GROUND] * (1 + int(explained.patches[:, 0].max(initial=0)))


def _picture_of(spectrogram: Float[np.ndarray, "M bands"]) -> UInt8[np.ndarray, "bands M 3"]:
    """Time from left to right, high bands above, loud is bright."""
    loud = np.rint(255 * np.clip(_scaled(spectrogram), 0, 1)).astype(np.uint8)
    return np.repeat(loud.T[::-1, :, None], 3, axis=2)


def _instrument(name: str, said: Relevance, spelled: Bool[np.ndarray, " W"]) -> dict[str, Any]:
    num_image = len(said.image)
    seen, asked = said.image, said.words
    if said.audio is not None:  # one scale for both, so that a page shows whether picture or sound counted
        seen = np.concatenate([seen, said.audio])
    if asked is not None and said.words_audio is not None:
        asked = np.concatenate([asked, said.words_audio], axis=1)
    seen, asked = _scaled(seen), None if asked is None else [_scaled(each) for each in asked]
    return {
        "name": name.replace("_", " "),
        "text": np.clip(_scaled(said.text, by=spelled), -1, 1),
        "image": seen[:num_image],
        "words": None if asked is None else [each[:num_image] for each in asked],
        "audio": seen[num_image:],
        "words_audio": None if asked is None else [each[num_image:] for each in asked],
    }


def _heads(heads: Heads) -> dict[str, Any]:
    return {
        "to_image": pack_attention(heads.to_image),
        "to_text": None if heads.to_text is None else pack_attention(heads.to_text),
        "tables": [{"name": name, "values": values} for name, values in heads.tables.items()],
        "similarity": [
            {"name": name, "heads": each.shape[1], "values": each.reshape(2 * (each.shape[0] * each.shape[1],))}
            for name, each in heads.similarity.items()
        ],
        "modes": heads.modes._asdict(),
        "mean_modes": heads.mean_modes._asdict(),
        "coverage": [_scaled(each) for each in heads.coverage],
        "fertility": _scaled(heads.fertility),
    }


def _scaled(values: np.ndarray, by: Any = ...) -> np.ndarray:
    """Divided by the largest size of the numbers at `by`, by default of all."""
    most = np.abs(values[by]).max(initial=0)
    return values / most if most else values
