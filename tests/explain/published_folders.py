"""Folders of tiny published models that answer: weights under the keys of each family, `config.json`, `vocab.txt`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from singlestream.batch import Spec
from singlestream.config import TwoStreamConfig
from singlestream.interop.build import make_module, save
from singlestream.interop.tuned import tuned_plan
from singlestream.model.heads import HeadConfig
from tests.interop import uniter_recipe, vilbert_recipe, vilt_authors_recipe, visualbert_authors_recipe
from tests.interop.golden_files import shapes_of

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TEXT = "is it red?"
FEATURES = 6  # numbers of a region, as in the recipes

# Family: its golden file and case, the recipe that draws its weights, its settings.
RECIPES: Mapping[str, tuple[str, str, Any, Mapping[str, Any]]] = {
    "vilt": ("vilt_authors", "one_layer/vqa", vilt_authors_recipe, {"num_heads": 2}),
    "vilt_nlvr2": ("vilt_authors", "one_layer/nlvr2", vilt_authors_recipe, {"num_heads": 2}),
    "visualbert": ("visualbert_authors", "one_layer/vqa", visualbert_authors_recipe, {"num_attention_heads": 2}),
    "visualbert_nlvr": ("visualbert_authors", "one_layer/nlvr", visualbert_authors_recipe, {"num_attention_heads": 2}),
    "uniter": ("uniter", "one_layer/vqa", uniter_recipe, uniter_recipe.SIZES["one_layer"]),
    "vilbert": ("vilbert_beta", "one_layer/tasks", vilbert_recipe, vilbert_recipe.SIZES["one_layer"]),
}
LXMERT = TwoStreamConfig(
    **dict(width=6, num_layers=1, num_heads=2, mlp_dim=8, image_width=6, image_layers=1, image_heads=2),
    **dict(image_mlp_dim=8, cross_width=6, cross_heads=2, cross_after_text=(1,), cross_after_image=(1,)),
    **dict(region_dim=FEATURES, max_text_length=9, fixed_first_rows=True),
)


def write_folder(folder: Path, family: str) -> Path:
    """The folder of a model of that family; its answers are their numbers."""
    if family == "lxmert":
        plan = tuned_plan(
            {"family": "lxmert", "dialect": "transformers", "settings": {}},
            LXMERT,
            Spec(vocab_size=20, num_answers=3),
            {"vqa": HeadConfig(kind="answers", size=3)},
            ["red", "blue", "green"],
        )
        save(plan, make_module(plan), folder)
        return _write_words(folder, 20)
    file, case, recipe, settings = RECIPES[family]
    tensors = {key: np.asarray(value, np.float32) for key, value in recipe.weights(shapes_of(file, case)).items()}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(settings))
    return _write_words(folder, recipe.VOCABULARY)


def _write_words(folder: Path, size: int) -> Path:
    words = [*SPECIAL, "is", "it", "red", "?"]
    words += [f"word{i}" for i in range(size - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder


def write_regions(path: Path, *, boxes: bool = True, seed: int = 0) -> Path:
    """A file of three regions, with or without their places."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((3, 2, 2)), axis=1).reshape(3, 4).astype(np.float32)
    features = rng.normal(size=(3, FEATURES)).astype(np.float32)
    np.savez(path, x=features, **({"norm_bb": corners} if boxes else {}))
    return path
