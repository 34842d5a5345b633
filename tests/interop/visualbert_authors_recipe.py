"""Weights, inputs and targets that the golden file of the authors' VisualBERT is made of, drawn by name.

`golden/make_visualbert_authors.py` gives them to the authors' code; `test_visualbert_authors.py` gives them to ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tests.interop.vilbert_recipe import draw

ROWS, WORDS, REGIONS, FEATURES, VOCABULARY, LENGTH, PHRASES = 4, 7, 5, 6, 30, 9, 3
ANSWERS = 9

# Three widths; more heads than one; layers whose number is one, two and four.
SIZES: dict[str, dict[str, int]] = {
    "odd": dict(hidden_size=21, num_attention_heads=3, num_hidden_layers=2, intermediate_size=17),
    "one_layer": dict(hidden_size=6, num_attention_heads=2, num_hidden_layers=1, intermediate_size=7),
    "deep": dict(hidden_size=12, num_attention_heads=1, num_hidden_layers=4, intermediate_size=9),
}
# The authors' `training_head_type`; `late` is `pretraining` with their `bypass_transformer` and `image_text_alignment`.
CASES = [
    ("odd", "pretraining"),
    ("deep", "flickr"),
    ("one_layer", "pretraining"),
    ("one_layer", "vqa"),
    ("one_layer", "nlvr"),
    ("one_layer", "multichoice"),
    ("one_layer", "flickr"),
    ("one_layer", "late"),
]
TRAINED = [case for case in CASES if case[0] == "one_layer"]
FILE = ("one_layer", "pretraining")  # of the file in the format of 2019
WORD_TABLE, DECODER = "bert.bert.embeddings.word_embeddings.weight", "bert.cls.predictions.decoder.weight"


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Every parameter of a file; LayerNorms and biases too, so that none of them is a neutral element."""
    found = {name: 0.3 * draw(name, shape) + name.endswith("LayerNorm.weight") for name, shape in shapes.items()}
    return {**found, DECODER: found[WORD_TABLE]} if DECODER in found else found


def inputs() -> dict[str, np.ndarray]:
    """Texts of several lengths, regions with padding in every place; the padding holds numbers, too."""
    text = np.arange(WORDS) < np.array([7, 2, 5, 4])[:, None]
    image = draw("image mask", (ROWS, REGIONS)) > -0.4
    image[:, 1] = image[0] = True
    positions = ((draw("words", (ROWS, REGIONS, 2)) + 1) / 2 * WORDS).astype(int)
    return {
        "ids": (5 + (draw("ids", (ROWS, WORDS)) + 1) / 2 * (VOCABULARY - 5)).astype(int),
        "types": (draw("types", (ROWS, WORDS)) > 0).astype(int),
        "text": text.astype(int),
        "image": image.astype(int),
        "picture": (draw("picture", (ROWS, REGIONS)) > 0).astype(int),  # of NLVR2's two
        "words": np.where(draw("aligned", (ROWS, REGIONS, 2)) > -0.2, positions, -1),  # of each region, up to two
        "features": draw("features", (ROWS, REGIONS, FEATURES)),
    }


def targets() -> dict[str, np.ndarray]:
    given = inputs()
    words = (draw("masked words", (ROWS, WORDS)) > 0) & (given["text"] == 1)
    answers = np.exp(2 * draw("answers", (ROWS, ANSWERS)))
    places = np.array([[1, 3, 6], [1, -1, -1], [0, 4, -1], [2, 3, -1]])  # the last words of phrases
    regions = np.exp(2 * draw("regions", (ROWS, PHRASES, REGIONS))) * given["image"][:, None] * (places >= 0)[..., None]
    return {
        "words": np.where(words, given["ids"], -1),
        "match": np.array([0, 1, 1, 0]),
        "vqa": answers / answers.sum(-1, keepdims=True),
        "nlvr": np.array([1, 0, 1, 1]),
        "multichoice": np.array([2]),  # of the four rows
        "places": places,
        "flickr": regions / np.maximum(regions.sum(-1, keepdims=True), 1e-9),
    }
