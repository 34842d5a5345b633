"""Writes `uniter.npz`: what the authors' code gives for the recipe's numbers.

    python -m tests.interop.golden.make_uniter FOLDER

needs torch, and in FOLDER a checkout of github.com/ChenRocks/UNITER. apex, where it is not installed, is torch's
LayerNorm. Everything is computed in float64.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.interop import uniter_recipe as recipe
from tests.interop.golden import authors


def authors_code(folder: Path) -> dict[str, Any]:
    """Their classes, by our names of tasks."""
    for name in ("apex", "apex.normalization", "apex.normalization.fused_layer_norm"):
        authors.stub(name, FusedLayerNorm=torch.nn.LayerNorm)
    sys.path.insert(0, str(folder))
    found = [importlib.import_module(f"model.{name}") for name in ("model", "pretrain", "vqa", "itm", "re")]
    return {name: value for module in found for name, value in vars(module).items()}


def make_model(code: dict[str, Any], size: str, kind: str) -> torch.nn.Module:
    config = code["UniterConfig"](recipe.VOCABULARY, max_position_embeddings=recipe.LENGTH, **recipe.SIZES[size])
    make = {
        "pretraining": lambda: code["UniterForPretraining"](config, recipe.FEATURES, recipe.OBJECTS),
        "vqa": lambda: code["UniterForVisualQuestionAnswering"](config, recipe.FEATURES, recipe.ANSWERS),
        "retrieval": lambda: code["UniterForImageTextRetrieval"](config, recipe.FEATURES),
        "grounding": lambda: code["UniterForReferringExpressionComprehension"](config, recipe.FEATURES),
        "grounding_hidden": lambda: code["UniterForReferringExpressionComprehension"](config, recipe.FEATURES, mlp=2),
    }
    return authors.fill(make[kind](), recipe.weights)


def batch() -> dict[str, torch.Tensor]:
    given = recipe.inputs()
    columns = np.arange(recipe.WORDS + recipe.REGIONS)
    return {
        "input_ids": torch.tensor(given["ids"]),
        "position_ids": torch.arange(recipe.WORDS)[None],
        "img_feat": torch.tensor(given["features"]),
        "img_pos_feat": torch.tensor(recipe.boxes7(given["boxes"])),
        "attn_masks": torch.tensor(np.concatenate([given["text"], given["image"]], 1)),
        "gather_index": torch.tensor(np.broadcast_to(columns, (recipe.ROWS, len(columns))).copy()),
    }


def run(model: torch.nn.Module, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Every head's logits by our names, the states after each layer and pooled."""
    given = batch()
    layers = model.uniter(*given.values())
    x = layers[-1]
    pooled = model.uniter.pooler(x)
    text, image = x[:, : recipe.WORDS], x[:, recipe.WORDS :]
    if kind == "pretraining":
        logits = {"mlm": model.cls(text), "objects": model.region_classifier(image), "itm": model.itm_output(pooled)}
    elif kind == "vqa":
        logits = {"vqa": model(given, compute_loss=False)}
    elif kind == "retrieval":
        logits = {"retrieval": model(given, compute_loss=False), "itm": model.itm_output(pooled)}
    else:
        logits = {"grounding": model.re_output(image)}
    return logits, {**{str(i): x for i, x in enumerate(layers)}, "pooled": pooled}


def loss_of(model: torch.nn.Module, kind: str) -> torch.Tensor:
    """The authors' losses, meant as `pretrain.py`, `train_vqa.py` and `train_itm.py` do."""
    given = batch()
    want = {name: torch.tensor(value) for name, value in recipe.targets().items()}
    if kind == "vqa":
        return model({**given, "targets": want["vqa"]}).mean() * recipe.ANSWERS
    if kind == "retrieval":  # two texts a picture, the first its own
        return model({**given, "sample_size": 2}).mean()
    regions = torch.cat([torch.zeros(recipe.ROWS, recipe.WORDS, dtype=torch.bool), want["regions"]], 1)
    loss = model({**given, "txt_labels": want["words"]}, "mlm").mean()
    loss = loss + model({**given, "targets": want["match"]}, "itm")[0].mean()
    masked = {"img_mask_tgt": regions, "label_targets": want["objects"][want["regions"]]}
    return loss + model({**given, **masked}, "mrc-kl").sum(-1).mean()


def golden(code: dict[str, Any], size: str, kind: str) -> dict[str, np.ndarray]:
    model, case = make_model(code, size, kind), f"{size}/{kind}"
    with torch.no_grad():
        logits, states = run(model, kind)
    found = {f"{case}/shapes": authors.shapes(model)}
    found |= authors.arrays(f"{case}/states", states) | authors.arrays(f"{case}/logits", logits)
    if (size, kind) in recipe.TRAINED:
        found |= authors.trained(case, model, lambda: loss_of(model, kind))
    return found


def main(folder: Path) -> None:
    code = authors_code(folder)
    found: dict[str, np.ndarray] = {}
    for size, kind in recipe.CASES:
        found |= golden(code, size, kind)
    authors.save("uniter", found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
