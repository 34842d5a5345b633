"""Weights, inputs and targets that the golden file of the authors' ViLT is made of, drawn by name.

`golden/make_vilt_authors.py` gives them to the authors' code; `test_vilt_authors.py` gives them to ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from tests.interop.vilbert_recipe import draw

ROWS, WORDS, VOCABULARY, PATCH, SIDE, LENGTH = 3, 7, 30, 2, 3, 9
ANSWERS, COLOURS = 6, 12
# Patches of each row's first and second picture, rows and columns; the largest of all is the batch's.
GRIDS = np.array([[[2, 5], [4, 1], [3, 3]], [[4, 2], [1, 5], [2, 2]]])
HEIGHT, WIDTH = 4, 5

# The authors' names of sizes. Three widths; more heads than one; layers whose number is one, two and four.
SIZES: dict[str, dict[str, int]] = {
    "odd": dict(hidden_size=21, num_heads=3, num_layers=2, mlp_ratio=2),
    "one_layer": dict(hidden_size=6, num_heads=2, num_layers=1, mlp_ratio=3),
    "deep": dict(hidden_size=12, num_heads=1, num_layers=4, mlp_ratio=1),
}
LOSSES = {"pretraining": ("mlm", "itm", "mpp"), "vqa": ("vqa",), "nlvr2": ("nlvr2",), "irtr": ("itm", "irtr")}
CASES = [
    ("odd", "pretraining"),
    ("odd", "nlvr2"),
    ("deep", "vqa"),
    ("one_layer", "pretraining"),
    ("one_layer", "nlvr2"),
    ("one_layer", "vqa"),
    ("one_layer", "irtr"),
]
TRAINED = [case for case in CASES if case[0] == "one_layer"]
CHECKPOINT = ("one_layer", "vqa")  # of the file as Lightning writes it

NORMS = re.compile(r"(norm\d?|LayerNorm|_classifier\.1)\.weight$")


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Every parameter of a file; LayerNorms and biases too, so that none of them is a neutral element."""
    return {name: 0.3 * draw(name, shape) + bool(NORMS.search(name)) for name, shape in shapes.items()}


def pixels(picture: int) -> np.ndarray:
    """The first or second pictures [B, H, W, 3], 127.5 (which becomes 0) beyond each one's own size."""
    inside = mask(picture).repeat(PATCH, 1).repeat(PATCH, 2)
    values = np.floor(128 * (1 + draw(f"pixels {picture}", (*inside.shape, 3))))
    return np.where(inside[..., None], values, 127.5)


def mask(picture: int) -> np.ndarray:
    """Which patches [B, rows, columns] are picture."""
    rows, columns = GRIDS[picture, :, 0, None, None], GRIDS[picture, :, 1, None, None]
    return (np.arange(HEIGHT)[:, None] < rows) & (np.arange(WIDTH) < columns)


def inputs() -> dict[str, np.ndarray]:
    """Texts with padding in every place but the first, where the authors pool; the padding holds words, too."""
    text = draw("text mask", (ROWS, WORDS)) > -0.4
    text[:, 0] = text[0] = True
    ids = (5 + (draw("ids", (ROWS, WORDS)) + 1) / 2 * (VOCABULARY - 5)).astype(int)
    return {"ids": ids, "text": text.astype(int)}


def targets() -> dict[str, np.ndarray]:
    given = inputs()
    words = (draw("masked words", (ROWS, WORDS)) > 0.2) & (given["text"] == 1)
    patches = (draw("masked patches", (ROWS, HEIGHT * WIDTH)) > 0) & mask(0).reshape(ROWS, -1)
    colours = ((draw("colours", (ROWS, HEIGHT * WIDTH)) + 1) / 2 * COLOURS).astype(int)
    return {
        "words": np.where(words, given["ids"], -100),
        "colours": np.where(patches, colours, -100),
        "match": np.array([0, 1, 1]),
        "vqa": (draw("answers", (ROWS, ANSWERS)) + 1) / 2,
        "nlvr2": np.array([1, 0, 1]),
        "rank": np.array([0]),  # of the three rows
    }
