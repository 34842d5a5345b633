"""Weights, inputs and targets that the ViLBERT golden files are made of: drawn by name, so that no file holds them.

`golden/make_vilbert.py` gives them to the authors' code and writes down what comes out; `test_vilbert.py` gives them to
ours. Numbers are made in float64 and rounded to what a test computes in.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

ROWS, WORDS, REGIONS, FEATURES, VOCABULARY = 4, 7, 5, 6, 40
ANSWERS, GQA_ANSWERS, OBJECTS = 9, 8, 7
TASK = 3

COMMON = dict(
    vocab_size=VOCABULARY, max_position_embeddings=10, type_vocab_size=2, v_feature_size=FEATURES, v_target_size=OBJECTS
)
# The authors' names. Widths of all kinds differ; one has a single layer; one has its first layers fixed.
SIZES: dict[str, dict[str, Any]] = {
    "odd": dict(
        **dict(hidden_size=15, num_attention_heads=3, num_hidden_layers=3, intermediate_size=17),
        **dict(v_hidden_size=10, v_num_attention_heads=2, v_num_hidden_layers=2, v_intermediate_size=9),
        **dict(bi_hidden_size=12, bi_num_attention_heads=4, v_biattention_id=[0, 1], t_biattention_id=[1, 2]),
    ),
    "one_layer": dict(
        **dict(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=12),
        **dict(v_hidden_size=6, v_num_attention_heads=1, v_num_hidden_layers=1, v_intermediate_size=5),
        **dict(bi_hidden_size=4, bi_num_attention_heads=2, v_biattention_id=[0], t_biattention_id=[0]),
    ),
    "fixed": dict(
        **dict(hidden_size=8, num_attention_heads=2, num_hidden_layers=3, intermediate_size=10),
        **dict(v_hidden_size=9, v_num_attention_heads=3, v_num_hidden_layers=3, v_intermediate_size=7),
        **dict(bi_hidden_size=6, bi_num_attention_heads=2, v_biattention_id=[1, 1], t_biattention_id=[1, 2]),
        **dict(fixed_t_layer=1, fixed_v_layer=1, fusion_method="sum"),
    ),
}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [-1, 1] that hang on the name and the shape alone."""
    return 2 * np.random.default_rng(zlib.crc32(name.encode())).random(shape) - 1


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Every parameter of a file; LayerNorms and biases too, so that none of them is a neutral element."""
    found = {}
    for name, shape in shapes.items():
        value = 0.3 * draw(name, tuple(shape))
        neutral_one = ("LayerNorm" in name or "logit_fc.2" in name) and name.endswith("weight")
        found[name] = value + 1.0 if neutral_one or name.endswith("weight_g") else value
    decoder, words = "cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"
    return {**found, decoder: found[words]} if decoder in found else found


def inputs() -> dict[str, np.ndarray]:
    """Four rows with padding in every place but the first, where the authors pool; the padding holds numbers, too."""
    text = draw("text mask", (ROWS, WORDS)) > -0.4
    image = draw("image mask", (ROWS, REGIONS)) > -0.4
    text[:, 0] = image[:, 0] = text[0] = image[0] = True
    image[1] = np.arange(REGIONS) == 0
    corners = np.sort((draw("boxes", (ROWS, REGIONS, 2, 2)) + 1) / 2, axis=2)  # (x0, y0), (x1, y1)
    return {
        "ids": (5 + (draw("ids", (ROWS, WORDS)) + 1) / 2 * (VOCABULARY - 5)).astype(int),
        "types": (draw("types", (ROWS, WORDS)) > 0).astype(int),
        "text": text.astype(int),
        "image": image.astype(int),
        "features": draw("features", (ROWS, REGIONS, FEATURES)),
        "boxes": corners.reshape(ROWS, REGIONS, 4),
    }


def boxes5(boxes: np.ndarray) -> np.ndarray:
    """The authors' five numbers of a box."""
    area = (boxes[..., 3] - boxes[..., 1]) * (boxes[..., 2] - boxes[..., 0])
    return np.concatenate([boxes, area[..., None]], -1)


def targets() -> dict[str, np.ndarray]:
    """What the losses of both trainings want."""
    given = inputs()
    words = (draw("masked words", (ROWS, WORDS)) > 0.2) & (given["text"] == 1)
    regions = (draw("masked regions", (ROWS, REGIONS - 1)) > -0.4) & (given["image"][:, 1:] == 1)
    objects = np.exp(2 * draw("objects", (ROWS, REGIONS - 1, OBJECTS)))
    return {
        "words": np.where(words, given["ids"], -1),
        "regions": regions.astype(int),
        "objects": objects / objects.sum(-1, keepdims=True),
        "match": np.array([0, 1, 1, 0]),
        "vqa": (draw("answers", (ROWS, ANSWERS)) + 1) / 2,
        "gqa": (draw("gqa answers", (ROWS, GQA_ANSWERS)) + 1) / 2,
        "retrieval": np.array([1]),  # of the four rows
        "entailment": np.array([2, 0, 1, 1]),
        "nlvr2": np.array([1, 0]),
        "grounding": np.where(given["image"] == 1, (draw("grounding", (ROWS, REGIONS)) + 1) / 2, 0),
    }


# Our names of what the authors' multi-task models return, in order; the mask of images is added to `grounding`.
OUTPUTS = {
    "beta": ("vqa", "retrieval", "itm", "objects", "grounding", "mlm", "words"),
    "multi_task": ("vqa", "gqa", "retrieval", "nlvr2", "entailment", "objects", "grounding", "mlm", "words"),
}
# Layout, size, and which of the authors' models; the layouts differ in their heads alone.
CASES = [
    ("beta", "odd", "tasks"),
    ("beta", "one_layer", "tasks"),
    ("multi_task", "odd", "tasks"),
    ("multi_task", "one_layer", "pretraining"),
    ("multi_task", "fixed", "tasks"),
]
TRAINED = [
    ("beta", "one_layer", "tasks"),
    ("multi_task", "one_layer", "pretraining"),
    ("multi_task", "fixed", "tasks"),
]


def has_tasks(layout: str, size: str, kind: str) -> bool:
    """Whether the texts have a task token."""
    return layout == "multi_task" and kind == "tasks" and size != "fixed"
