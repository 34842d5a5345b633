"""A small ViLT as transformers writes it, without torch; `test_vilt.py` holds the names against the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

WIDTH, HIDDEN, LAYERS, PATCH, SIDE, LENGTH = 16, 24, 2, 8, 4, 24
SETTINGS = {
    "architectures": ["ViltForQuestionAnswering"],
    "model_type": "vilt",
    "num_attention_heads": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}


def shapes(words: int, answers: int) -> dict[str, tuple[int, ...]]:
    """Every key of a ViltForQuestionAnswering of that many words and answers."""

    def linear(name: str, width: int, into: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (width, into), f"{name}.bias": (width,)}

    def norm(name: str, width: int = WIDTH) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (width,), f"{name}.bias": (width,)}

    text, image = "vilt.embeddings.text_embeddings", "vilt.embeddings"
    found: dict[str, tuple[int, ...]] = {
        f"{text}.word_embeddings.weight": (words, WIDTH),
        f"{text}.position_embeddings.weight": (LENGTH, WIDTH),
        f"{text}.token_type_embeddings.weight": (2, WIDTH),
        **norm(f"{text}.LayerNorm"),
        f"{image}.cls_token": (1, 1, WIDTH),
        f"{image}.position_embeddings": (1, SIDE**2 + 1, WIDTH),
        f"{image}.token_type_embeddings.weight": (2, WIDTH),
        f"{image}.patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH),
        f"{image}.patch_embeddings.projection.bias": (WIDTH,),
        **norm("vilt.layernorm"),
        **linear("vilt.pooler.dense", WIDTH, WIDTH),
        **linear("classifier.0", 2 * WIDTH, WIDTH),
        **norm("classifier.1", 2 * WIDTH),
        **linear("classifier.3", answers, 2 * WIDTH),
    }
    for i in range(LAYERS):
        layer = f"vilt.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            found |= linear(f"{layer}.attention.attention.{part}", WIDTH, WIDTH)
        found |= linear(f"{layer}.attention.output.dense", WIDTH, WIDTH)
        found |= linear(f"{layer}.intermediate.dense", HIDDEN, WIDTH) | linear(f"{layer}.output.dense", WIDTH, HIDDEN)
        found |= norm(f"{layer}.layernorm_before") | norm(f"{layer}.layernorm_after")
    return found


def write_vilt(folder: Path, words: list[str], answers: list[str], *, seed: int = 0) -> dict[str, np.ndarray]:
    """Writes weights, settings and vocabulary; returns the weights."""
    rng = np.random.default_rng(seed)
    sizes = shapes(len(words), len(answers))
    tensors = {key: rng.normal(0, 0.2, shape).astype(np.float32) for key, shape in sizes.items()}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    labels = {str(i): answer for i, answer in enumerate(answers)}
    (folder / "config.json").write_text(json.dumps({**SETTINGS, "id2label": labels}))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    return tensors
