"""What a detector finds, written in the formats that others have published."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np

SIZE = (50, 100)  # height, width


def found(seed: int, count: int = 4, dim: int = 6) -> dict[str, np.ndarray]:
    """Features, boxes in pixels of SIZE, and the detector's classes."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2), np.float32), axis=1) * np.array(SIZE[::-1], np.float32)
    return {
        "features": rng.random((count, dim), np.float32),
        "boxes": corners.reshape(count, 4).astype(np.float32),
        "objects_id": rng.integers(0, 1600, count),
        "objects_conf": rng.random(count, np.float32),
        "attrs_id": rng.integers(0, 400, count),
        "attrs_conf": rng.random(count, np.float32),
        "cls_prob": rng.dirichlet(np.ones(5), count).astype(np.float32),
    }


def shares(boxes: np.ndarray) -> np.ndarray:
    """Boxes in pixels of SIZE as shares of its sides."""
    return boxes / np.array([SIZE[1], SIZE[0]] * 2, np.float32)


def cell(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array)).decode()


def attention_line(name: str, values: dict[str, np.ndarray]) -> str:
    """A line of bottom-up-attention's table."""
    features, boxes = values["features"], values["boxes"]
    return "\t".join([name, str(SIZE[1]), str(SIZE[0]), str(len(boxes)), cell(boxes), cell(features)])


def vilbert_line(name: str, values: dict[str, np.ndarray]) -> str:
    """A line of ViLBERT's table: bottom-up-attention's with the probabilities of all classes."""
    return "\t".join([attention_line(name, values), cell(values["cls_prob"])])


def lxmert_line(name: str, values: dict[str, np.ndarray]) -> str:
    """A line of LXMERT's table."""
    labels = [cell(values[key]) for key in ("objects_id", "objects_conf", "attrs_id", "attrs_conf")]
    count = str(len(values["boxes"]))
    return "\t".join(
        [name, str(SIZE[0]), str(SIZE[1]), *labels, count, cell(values["boxes"]), cell(values["features"])]
    )


def write_table(path: Path, names: list[str], line=attention_line) -> Path:
    """A table of pictures; the n-th holds `found(n)`."""
    path.write_text("".join(line(name, found(i)) + "\n" for i, name in enumerate(names)), encoding="utf-8")
    return path
