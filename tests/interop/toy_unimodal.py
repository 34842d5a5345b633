"""A small BERT and a small ViT as transformers writes them, without torch; `test_unimodal.py` reads the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.data.toy_bert import vocabulary, write_bert

WIDTH, HIDDEN, LAYERS, LENGTH, PATCH, SIDE = 24, 40, 2, 32, 16, 3
SETTINGS = {"num_attention_heads": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-12}


def write_bert_model(folder: Path, *, words: bool = True, seed: int = 0) -> Path:
    """BertForMaskedLM, or (without the head of masked words) BertModel, with `toy_bert`'s vocabulary."""
    size, text, layer = len(vocabulary()), "bert.embeddings", "bert.encoder.layer.{i}"
    shapes = {
        f"{text}.word_embeddings.weight": (size, WIDTH),
        f"{text}.position_embeddings.weight": (LENGTH, WIDTH),
        f"{text}.token_type_embeddings.weight": (2, WIDTH),
        **_norm(f"{text}.LayerNorm"),
        **_layers(layer, "attention.self", ("attention.output.LayerNorm", "output.LayerNorm")),
    }
    if words:
        head = "cls.predictions"
        shapes |= {f"{head}.bias": (size,), **_linear(f"{head}.transform.dense", WIDTH, WIDTH)}
        shapes |= _norm(f"{head}.transform.LayerNorm")
    _write(folder, shapes, "bert", seed)
    return write_bert(folder)


def write_vit_model(folder: Path, *, second: bool = False, seed: int = 0, **pictures: object) -> Path:
    """ViTModel without its pooler; with a `second` token it is a DeiT. `pictures`: preprocessor_config.json."""
    embed = "vit.embeddings"
    shapes = {
        f"{embed}.cls_token": (1, 1, WIDTH),
        f"{embed}.position_embeddings": (1, SIDE**2 + 1 + second, WIDTH),
        f"{embed}.patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH),
        f"{embed}.patch_embeddings.projection.bias": (WIDTH,),
        **_layers("vit.encoder.layer.{i}", "attention.attention", ("layernorm_before", "layernorm_after")),
        **_norm("vit.layernorm"),
    }
    if second:
        shapes[f"{embed}.distillation_token"] = (1, 1, WIDTH)
    _write(folder, shapes, "vit", seed)
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    return folder


def _layers(name: str, attention: str, norms: tuple[str, str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for layer in (name.replace("{i}", str(i)) for i in range(LAYERS)):
        for part in ("query", "key", "value"):
            found |= _linear(f"{layer}.{attention}.{part}", WIDTH, WIDTH)
        found |= _linear(f"{layer}.attention.output.dense", WIDTH, WIDTH)
        found |= _linear(f"{layer}.intermediate.dense", HIDDEN, WIDTH) | _linear(f"{layer}.output.dense", WIDTH, HIDDEN)
        for norm in norms:
            found |= _norm(f"{layer}.{norm}")
    return found


def _linear(name: str, width: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width, into), f"{name}.bias": (width,)}


def _norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def _write(folder: Path, shapes: dict[str, tuple[int, ...]], kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    tensors = {key: rng.normal(0, 0.2, shape).astype(np.float32) for key, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **SETTINGS}))
