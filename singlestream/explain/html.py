"""Self-contained pages: data, scripts and styles in one HTML file that asks nothing of the network.

The content security policy of `report.html` forbids every request. Texts go in as data, never as markup.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib.resources
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

LONGEST = 1024  # pixels of a picture's longer side


def to_json(data: Any) -> str:
    """The page's data; `<` is escaped, so that no text can close the element that holds it.

    Raises:
        ValueError: a number that JSON has no form for.
    """
    text = json.dumps(data, default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def to_html(*, title: str, data: str, scripts: Sequence[str], styles: Sequence[str], plain: str) -> str:
    """The page.

    Args:
        data: what `to_json` made.
        scripts, styles: files of this folder, in order.
        plain: what stands there without JavaScript.
    """
    parts = {"data": data, "script": _assets(scripts), "style": _assets(styles)}
    parts |= {"title": _escaped(title), "plain": _escaped(plain)}
    # One pass, so that a text which looks like a placeholder stays text.
    return re.sub(r"\{\{(style|script|data|title|plain)\}\}", lambda m: parts[m[1]], _assets(["report.html"]))


def write_page(html: str, path: Path) -> None:
    """Writes the page; a page that is there already is replaced whole or not at all."""
    partial = path.with_suffix(".html.part")
    partial.write_text(html, encoding="utf-8")
    partial.replace(path)


def pack_picture(image: UInt8[np.ndarray, "height width 3"]) -> dict[str, Any]:
    """A picture as a data URI, with its size; one that is larger than `LONGEST` is made smaller, its shape kept."""
    buffer, picture = io.BytesIO(), Image.fromarray(image)
    picture.thumbnail((LONGEST, LONGEST))
    picture.save(buffer, format="PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"src": source, "width": picture.width, "height": picture.height}


def pack_attention(maps: Float[np.ndarray, "layers H Q K"]) -> dict[str, Any]:
    """Weights as bytes: byte / 255 * scale of its (layer, head, query) is the weight."""
    maps = np.asarray(maps, np.float32)
    scale = maps.max(axis=-1, initial=0.0)
    levels = np.rint(255 * maps / np.maximum(scale, 1e-30)[..., None]).astype(np.uint8)
    return {
        "layers": maps.shape[0],
        "heads": maps.shape[1],
        "levels": base64.b64encode(levels.tobytes()).decode(),
        "scale": base64.b64encode(scale.astype("<f4").tobytes()).decode(),
    }


def _assets(names: Sequence[str]) -> str:
    folder = importlib.resources.files("singlestream.explain")
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, (np.ndarray, np.generic)):
        return np.round(value, 4).tolist()
    raise TypeError(f"no JSON form for {type(value).__name__}")
