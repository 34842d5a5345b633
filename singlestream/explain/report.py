"""The page that shows a run: one self-contained HTML file, built from plain values.

What the page knows is the JSON that `Report.to_json` makes; `report.html`, `report.css` and the scripts beside this
file draw it, put together by `html.py`. Attention travels as bytes: every map is scaled by its own largest weight,
which is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from singlestream.explain.html import pack_attention, pack_picture, to_html, to_json, write_page
from singlestream.explain.question import Relevance
from singlestream.explain.scores import CalibrationBin

SCRIPTS = ("charts.js", "attention.js", "report.js")
ATTENTION_BUDGET = 6_000_000  # bytes of maps in one page; above it the heads of a layer are averaged


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """A share with its 95% interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One line of the table: a kind of question, and what answers it how often."""

    kind: str
    count: int
    model: Share
    no_image: Share | None = None  # the model with the picture taken away
    no_audio: Share | None = None  # the model with the sound taken away
    blind: Share | None = None  # the question's words alone
    majority: Share | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """One diagram of what happened while training: lines of (step, value)."""

    title: str
    lines: Mapping[str, Sequence[tuple[int, float]]]
    percent: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointingResult:
    """The pointing score of the chosen layer and head, and of all of them."""

    score: Share
    chance: float
    words: int
    layer: int  # counted from 0
    head: int
    chosen_on: str  # the split on which layer and head were chosen
    by_head: Float[np.ndarray, "layers H"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Word:
    """A word as the text spells it, and the boxes (image, x0, y0, x1, y1) in [0, 1] of what it names, if it does."""

    text: str
    boxes: Sequence[Sequence[float]] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One answered question. `patches` are (image, x0, y0, x1, y1) of each image token; attention is by words.

    `to_text` is None where the picture reads no words (`direction="prefix"`). `instruments` say by name what counted
    for the answer that was predicted, image [N], and what each word asks of the picture, words [W, N]: numbers from 0.
    """

    id: str
    kind: str
    text: str
    answer: str
    predicted: str
    probabilities: Sequence[tuple[str, float]]
    images: Sequence[np.ndarray]
    words: Sequence[Word]
    patches: Float[np.ndarray, "N 5"]
    to_image: Float[np.ndarray, "layers H W N"]
    to_text: Float[np.ndarray, "layers H N W"] | None = None
    instruments: Mapping[str, Relevance] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Everything on the page. `facts` are (name, value) lines about the run, `other` further metrics by name.

    `image_token` is what the page calls one: patch or region. `notes` are sentences that say what the page leaves out,
    `hint` how one looks further.
    """

    title: str
    subtitle: str
    image_token: str = "patch"
    facts: Sequence[tuple[str, str]] = ()
    table: Sequence[ResultRow] = ()
    calibration_error: float | None = None
    bins: Sequence[CalibrationBin] = ()
    pointing: PointingResult | None = None
    curves: Sequence[Curve] = ()
    other: Sequence[tuple[str, float]] = ()
    examples: Sequence[Example] = ()
    notes: Sequence[str] = ()
    hint: str = ""

    def to_json(self) -> str:
        """The page's data, see `html.to_json`."""
        shallow = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        weights = sum(np.size(e.to_image) + np.size(e.to_text if e.to_text is not None else ()) for e in self.examples)
        shallow["examples"] = [_example(e, average=weights > ATTENTION_BUDGET) for e in self.examples]
        return to_json(shallow)

    def to_html(self) -> str:
        plain = "This page draws itself with JavaScript; the figures are also in metrics.json beside it."
        return to_html(title=self.title, data=self.to_json(), scripts=SCRIPTS, styles=("report.css",), plain=plain)


def write_report(report: Report, path: Path) -> None:
    """Writes the page; a page that is there already is replaced whole or not at all."""
    write_page(report.to_html(), path)


def _example(example: Example, *, average: bool) -> dict[str, Any]:
    def pack(maps: Float[np.ndarray, "layers H Q K"]) -> dict[str, Any]:
        return pack_attention(maps.mean(axis=1, keepdims=True) if average else maps)

    data = {f.name: getattr(example, f.name) for f in dataclasses.fields(example)}
    data["images"] = [pack_picture(image) for image in example.images]
    data["to_image"] = pack(example.to_image)
    data["to_text"] = None if example.to_text is None else pack(example.to_text)
    data["instruments"] = [_instrument(name, said) for name, said in example.instruments.items()]
    return data


def _instrument(name: str, said: Relevance) -> dict[str, Any]:
    """The maps of the words and, as one word more, of the answer."""
    words = np.zeros((0, said.image.size)) if said.words is None else said.words
    maps = np.concatenate([words, said.image[None]])
    return {"name": name.replace("_", " "), "maps": pack_attention(maps[None, None])}
