"""Combinations of kind, direction, norm and position: the axes, the settings of one, and what is refused.

`pairs.cover` makes few of them, `python -m tests.model.all_combinations` goes through all.
"""

from __future__ import annotations

import itertools
from typing import Any

from singlestream.model.attention.config import CHOICES as KINDS
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.config import CHOICES, REGION_POSITIONS, ModelConfig
from tests.model.pairs import all_pairs

# What a selection, or a direction, is given besides its name, so that it has something to decide in a few tokens.
OF_SELECTION: dict[str, dict[str, Any]] = {
    "local": {"window": 1},
    "multi_scale": {"windows": (1, 0)},
    "routed": {"keep": 1.0, "block": 2},
    "topk": {"keep": 2.0},
    **{f"graph {name}": {"selection": "graph", "graph": name} for name in KINDS["graph"]},
}
OF_DIRECTION: dict[str, dict[str, Any]] = {
    "multi_hop": {"hops": 1, "num_layers": 2},  # one layer in which each modality reads itself
    "bottleneck": {"bottlenecks": 2},
}
SELECTIONS = (*(name for name in KINDS["selection"] if name != "graph"), *(f"graph {name}" for name in KINDS["graph"]))
OF_ATTENTION: dict[str, tuple[Any, ...]] = {
    "score": KINDS["score"],
    "selection": SELECTIONS,
    "relative": KINDS["relative"],
    "head_scale": (False, True),
    "qk_norm": (False, True),
    "implementation": KINDS["implementation"],
}
AXES: dict[str, tuple[Any, ...]] = {
    **OF_ATTENTION,
    "direction": CHOICES["direction"],
    "norm": CHOICES["norm"],
    "text_positions": CHOICES["text_positions"],
    # Patches or regions, and their positions, of which each has some of its own. (The other stem of patches makes
    # vectors of the same shape, and nothing else knows which it was.)
    "image": tuple(
        (stem, name)
        for stem, name in itertools.product(("linear", "regions"), CHOICES["image_positions"])
        if name == "none" or (name in REGION_POSITIONS) == (stem == "regions")
    ),
}
DEFAULT = {
    **{name: getattr(AttentionConfig(), name) for name in OF_ATTENTION},
    **{name: getattr(ModelConfig(), name) for name in ("direction", "norm", "text_positions")},
    "image": ("linear", "learned"),
}
# A row is five words, four tokens of the image, and two bottlenecks or two more of the image: one shape for all.
WORDS, LENGTH = 5, 11
SIZES: dict[str, Any] = dict(width=8, num_heads=2, mlp_dim=8, max_text_length=8, image_grid=(2, 3), region_dim=192)


def attention_of(values: dict[str, Any]) -> AttentionConfig:
    """The settings of attention of a combination: a value of each of `OF_ATTENTION`, or of some."""
    given = {name: values[name] for name in OF_ATTENTION if name in values}
    return AttentionConfig(**given | OF_SELECTION.get(given.get("selection", "soft"), {}))


def model_of(values: dict[str, Any], attention: AttentionConfig) -> ModelConfig:
    """The smallest model of a combination."""
    values, pooled = DEFAULT | values, {"pooling": "mean", "join": "sum"}  # which any direction allows
    given = {name: values[name] for name in ("direction", "norm", "text_positions")}
    given["image_stem"], given["image_positions"] = values["image"]
    given |= {"num_layers": 1, **OF_DIRECTION.get(values["direction"], {})}
    return ModelConfig(**SIZES, **pooled, **given, attention=attention)


def config_of(values: dict[str, Any]) -> ModelConfig:
    return model_of(values, attention_of(values))


def refusal(values: dict[str, Any]) -> str:
    """The sentence that refuses a combination; empty where none does."""
    try:
        config_of(values)
    except ValueError as error:
        return str(error)
    return ""


def table() -> str:
    """The pairs of values that are refused, and why, as docs/attention.md has them."""
    rights: dict[tuple[str, str], list[str]] = {}
    for one, two in all_pairs(AXES):
        if sentence := refusal(dict((one, two))):
            lefts = rights.setdefault((_setting(*two), sentence.partition(": ")[2]), [])
            lefts.append(_setting(*one))
    rows: dict[tuple[str, str], list[str]] = {}
    for (right, why), lefts in rights.items():
        rows.setdefault((", ".join(dict.fromkeys(lefts)), why), []).append(right)
    lines = [f"| {lefts} | {', '.join(right)} | {why} |" for (lefts, why), right in rows.items()]
    return "\n".join(["| | does not go with | |", "| --- | --- | --- |", *lines])


def _setting(axis: str, value: Any) -> str:
    if axis == "image":
        return f'`image_stem="{value[0]}"`'
    if axis == "selection" and value.startswith("graph "):
        axis, value = "graph", value.removeprefix("graph ")
    prefix = "" if axis in ("direction", "norm", "text_positions") else "attention."
    return f"`{prefix}{axis}={value}`" if isinstance(value, bool) else f'`{prefix}{axis}="{value}"`'
