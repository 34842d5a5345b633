"""Weights, inputs and targets that the golden file of UNITER is made of, drawn by name.

`golden/make_uniter.py` gives them to the authors' code; `test_uniter.py` gives them to ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from tests.interop.vilbert_recipe import draw

ROWS, WORDS, REGIONS, FEATURES, VOCABULARY, LENGTH = 4, 7, 5, 6, 30, 9
ANSWERS, OBJECTS = 9, 7

# The authors' names. Three widths; more heads than one; layers whose number is one, two and four.
SIZES: dict[str, dict[str, int]] = {
    "odd": dict(hidden_size=21, num_attention_heads=3, num_hidden_layers=2, intermediate_size=17),
    "one_layer": dict(hidden_size=6, num_attention_heads=2, num_hidden_layers=1, intermediate_size=7),
    "deep": dict(hidden_size=12, num_attention_heads=1, num_hidden_layers=4, intermediate_size=9),
}
CASES = [
    ("odd", "pretraining"),
    ("odd", "grounding"),
    ("deep", "grounding_hidden"),
    ("deep", "vqa"),
    ("one_layer", "pretraining"),
    ("one_layer", "vqa"),
    ("one_layer", "retrieval"),
]
TRAINED = [case for case in CASES if case[0] == "one_layer"]

NORMS = re.compile(r"(_layer_norm|LayerNorm|(net|_output)\.2)\.weight$")
WORD_TABLE, DECODER = "uniter.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
STEM, REGRESSION = "uniter.img_embeddings.img_linear.weight", "feat_regress.weight"


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Every parameter of a file; LayerNorms and biases too, so that none of them is a neutral element."""
    found = {name: 0.3 * draw(name, shape) + bool(NORMS.search(name)) for name, shape in shapes.items()}
    tied = {DECODER: WORD_TABLE, REGRESSION: STEM}
    return {name: found[tied.get(name, name)] for name in found}


def inputs() -> dict[str, np.ndarray]:
    """Padding in every place but the first word, where the authors pool; the padding holds numbers, too."""
    text, image = draw("text mask", (ROWS, WORDS)) > -0.4, draw("image mask", (ROWS, REGIONS)) > -0.4
    text[:, 0] = image[:, 1] = text[0] = image[0] = True
    corners = np.sort((draw("boxes", (ROWS, REGIONS, 2, 2)) + 1) / 2, axis=2)  # (x0, y0), (x1, y1)
    return {
        "ids": (5 + (draw("ids", (ROWS, WORDS)) + 1) / 2 * (VOCABULARY - 5)).astype(int),
        "text": text.astype(int),
        "image": image.astype(int),
        "features": draw("features", (ROWS, REGIONS, FEATURES)),
        "boxes": corners.reshape(ROWS, REGIONS, 4),
    }


def boxes7(boxes: np.ndarray) -> np.ndarray:
    """The authors' seven numbers of a box."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return np.concatenate([boxes, sides, sides.prod(-1, keepdims=True)], -1)


def targets() -> dict[str, np.ndarray]:
    given = inputs()
    words = (draw("masked words", (ROWS, WORDS)) > 0.2) & (given["text"] == 1)
    regions = (draw("masked regions", (ROWS, REGIONS)) > -0.4) & (given["image"] == 1)
    objects = np.exp(2 * draw("objects", (ROWS, REGIONS, OBJECTS)))
    return {
        "words": np.where(words, given["ids"], -1),
        "regions": regions,
        "objects": objects / objects.sum(-1, keepdims=True),
        "match": np.array([0, 1, 1, 0]),
        "vqa": (draw("answers", (ROWS, ANSWERS)) + 1) / 2,
    }
