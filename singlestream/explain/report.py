"""The page that shows a run: one self-contained HTML file, built from plain values.

What the page knows is the JSON that `Report.to_json` makes; `report.html`, `report.css` and the scripts beside this
file draw it. The page asks nothing of the network (its content security policy forbids it) and texts go in
as data, never as markup. Attention travels as bytes: every map is scaled by its own largest weight, which is kept.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib.resources
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

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

    `to_text` is None where the picture reads no words (`direction="prefix"`).
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Everything on the page. `facts` are (name, value) lines about the run, `other` further metrics by name.

    `image_token` is what the page calls one: patch or region.
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

    def to_json(self) -> str:
        """The page's data; `<` is escaped, so that no text can close the element that holds it."""
        shallow = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        weights = sum(np.size(e.to_image) + np.size(e.to_text if e.to_text is not None else ()) for e in self.examples)
        shallow["examples"] = [_example(e, average=weights > ATTENTION_BUDGET) for e in self.examples]
        text = json.dumps(shallow, default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")

    def to_html(self) -> str:
        parts = {
            "style": _asset("report.css"),
            "script": "\n".join(_asset(name) for name in SCRIPTS),
            "data": self.to_json(),
            "title": self.title.replace("&", "&amp;").replace("<", "&lt;"),
        }
        # One pass, so that a text which looks like a placeholder stays text.
        return re.sub(r"\{\{(style|script|data|title)\}\}", lambda m: parts[m[1]], _asset("report.html"))


def write_report(report: Report, path: Path) -> None:
    """Writes the page; a page that is there already is replaced whole or not at all."""
    partial = path.with_suffix(".html.part")
    partial.write_text(report.to_html(), encoding="utf-8")
    partial.replace(path)


def _asset(name: str) -> str:
    return (importlib.resources.files("singlestream.explain") / name).read_text(encoding="utf-8")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, (np.ndarray, np.generic)):
        return np.round(value, 4).tolist()
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _example(example: Example, *, average: bool) -> dict[str, Any]:
    data = {f.name: getattr(example, f.name) for f in dataclasses.fields(example)}
    data["images"] = [_picture(image) for image in example.images]
    data["to_image"] = _pack(example.to_image, average=average)
    data["to_text"] = None if example.to_text is None else _pack(example.to_text, average=average)
    return data


def _picture(image: np.ndarray) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return {"src": _data_uri(buffer.getvalue()), "width": image.shape[1], "height": image.shape[0]}


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _pack(maps: Float[np.ndarray, "layers H Q K"], *, average: bool) -> dict[str, Any]:
    """Weights as bytes: byte / 255 * scale of its (layer, head, query) is the weight."""
    maps = np.asarray(maps, np.float32)
    if average:
        maps = maps.mean(axis=1, keepdims=True)
    scale = maps.max(axis=-1, initial=0.0)
    levels = np.rint(255 * maps / np.maximum(scale, 1e-30)[..., None]).astype(np.uint8)
    return {
        "layers": maps.shape[0],
        "heads": maps.shape[1],
        "levels": base64.b64encode(levels.tobytes()).decode(),
        "scale": base64.b64encode(scale.astype("<f4").tobytes()).decode(),
    }
