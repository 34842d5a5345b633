"""A start from ViT (Dosovitskiy et al. 2021) or DeiT (Touvron et al. 2021): patches, positions, layers in a model like
ViLT, which began so. What reads the text stays fresh. DeiT's distillation token has no place and is left out; its
pictures were normalised with ImageNet's mean and deviation, here they come in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from singlestream.interop.parts import SQUEEZE, norm, one, patches, timm_layers, vit_layers
from singlestream.interop.plan import Plan, activation, bert_spec, count_layers, num_heads, prefix_of, shape_of
from singlestream.interop.rules import Constant, Layout, Rule, Rules, Tensor, WeightsError
from singlestream.model.config import ModelConfig

# Keys by dialect, after the prefix; `timm` is also what the authors of ViLT and DeiT wrote.
NAMES = {
    "transformers": {
        "stem": "embeddings.patch_embeddings.projection",
        "positions": "embeddings.position_embeddings",
        "cls": "embeddings.cls_token",
        "layer": "encoder.layer.{i}",
        "up": "encoder.layer.{i}.intermediate.dense.weight",
        "norm": "layernorm",
    },
    "timm": {
        "stem": "patch_embed.proj",
        "positions": "pos_embed",
        "cls": "cls_token",
        "layer": "blocks.{i}",
        "up": "blocks.{i}.mlp.fc1.weight",
        "norm": "norm",
    },
}
# What a picture's classifier has beside; the pooler is of a picture's class token, not of a text's.
UNREAD = ("classifier", "cls_classifier", "distillation_classifier", "head", "pre_logits", "pooler")
WORDS, LENGTH = 30522, 40  # of the fresh text side: BERT's vocabulary, ViLT's length


def plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> Plan | None:
    """The plan for a file of a ViT and nothing more."""
    for dialect, names in NAMES.items():
        prefix = prefix_of(tensors, names["positions"])
        if prefix is not None and not any("text" in key for key in tensors) and f"{prefix}{names['cls']}" in tensors:
            return _plan(tensors, settings or {}, dialect, prefix)
    return None


def _plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], dialect: str, prefix: str) -> Plan:
    names = {name: f"{prefix}{key}" for name, key in NAMES[dialect].items()}
    width, _, patch, _ = shape_of(tensors, f"{names['stem']}.weight")
    count = shape_of(tensors, names["positions"])[1]
    tokens = count - math.isqrt(count) ** 2  # beside the grid: the class token, and DeiT's second
    side = math.isqrt(count)
    if tokens not in (1, 2):
        raise WeightsError(f"{names['positions']} has {count} places: not a square grid and one or two tokens")
    config = ModelConfig(
        width=width,
        num_layers=count_layers(tensors, names["up"]),
        num_heads=num_heads(settings, width),
        mlp_dim=shape_of(tensors, names["up"].replace("{i}", "0"))[0],
        norm="pre",
        norm_eps=float(settings.get("layer_norm_eps", 1e-12 if dialect == "transformers" else 1e-6)),
        activation=activation(settings.get("hidden_act", "gelu")),
        text_norm=True,
        embed_norm_eps=1e-12,
        max_text_length=LENGTH,
        modality="pictures",
        image_grid=(side, side),
        position_resize="corners",
        image_cls=True,
        patch_size=patch,
        pooler=True,
    )
    layers = vit_layers if dialect == "transformers" else timm_layers
    rules = [
        one("embed/cls/token", names["cls"], SQUEEZE),
        Rule(
            ours=("embed/cls/position", "embed/image/position/table"),
            theirs=(names["positions"],),
            layout=_positions(side, tokens),
        ),
        one("embed/image/stem/project/kernel", f"{names['stem']}.weight", patches(patch)),
        one("embed/image/stem/project/bias", f"{names['stem']}.bias"),
        *layers("encoder/blocks", names["layer"]),
        *norm("encoder/norm", names["norm"]),
    ]
    unread = [
        key
        for key in tensors
        if key.removeprefix(prefix).split(".")[0] in UNREAD
        or key.endswith(("distillation_token", "dist_token", "mask_token"))
    ]
    return Plan(
        family="vit",
        dialect=dialect,
        config=config,
        spec=bert_spec(WORDS, {}),
        heads={},
        rules=Rules(rules=rules, constants=[Constant(key=key) for key in unread]),
        fresh=("embed/text/", "embed/modality/", "pooler/"),
    )


def _positions(side: int, tokens: int) -> Layout:
    """The class token's place and the grid's; DeiT's second token is skipped, and empty where shapes are asked for."""
    return Layout(
        read=lambda x: (x[0, 0], x[0, tokens:].reshape(side, side, -1)),
        write=lambda cls, grid: (
            np.concatenate([cls[None], *[np.zeros_like(cls)[None]] * (tokens - 1), grid.reshape(side**2, -1)])[None],
        ),
    )
