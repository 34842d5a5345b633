"""Writes `visualbert_authors.npz` and `visualbert_authors.th`: what the authors' code gives for the recipe's numbers,
and a file in torch's format of 2019.

    python -m tests.interop.golden.make_visualbert_authors FOLDER

needs torch, and in FOLDER a checkout of github.com/uclanlp/visualbert. Everything is computed in float64.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.interop import visualbert_authors_recipe as recipe
from tests.interop.golden import authors

PACKAGE = "pytorch_pretrained_bert"


class Wrapper(torch.nn.Module):
    """As the model lies in their `models/model.py`, whose state dict they save."""

    def __init__(self, bert: torch.nn.Module):
        super().__init__()
        self.bert = bert


def authors_code(folder: Path) -> Any:
    """Their module of the model, with another number of answers than the one written into it, and without a GPU."""
    file = folder / "visualbert" / PACKAGE / "modeling.py"
    authors.stub(PACKAGE)
    authors.stub(f"{PACKAGE}.file_utils", cached_path=None)
    code = types.ModuleType(f"{PACKAGE}.modeling")
    text = file.read_text(encoding="utf-8").replace("3129", str(recipe.ANSWERS)).replace(".cuda()", "")
    exec(compile(text, str(file), "exec"), vars(code))
    return code


def make_model(code: Any, size: str, kind: str) -> torch.nn.Module:
    config = code.BertConfig(
        recipe.VOCABULARY, max_position_embeddings=recipe.LENGTH, type_vocab_size=2, **recipe.SIZES[size]
    )
    late = kind == "late"
    model = code.TrainVisualBERTObjective(
        config,
        "pretraining" if late else kind,
        visual_embedding_dim=recipe.FEATURES,
        bypass_transformer=late,
    )
    return authors.fill(Wrapper(model), recipe.weights)


def run(model: torch.nn.Module, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], torch.Tensor]:
    """Every head's logits by our names, the states after each layer and pooled, and the authors' loss."""
    given = {name: torch.tensor(value) for name, value in recipe.inputs().items()}
    want = {name: torch.tensor(value) for name, value in recipe.targets().items()}
    arguments = dict(
        input_ids=given["ids"],
        token_type_ids=given["types"],
        input_mask=given["text"],
        visual_embeddings=given["features"],
        image_mask=given["image"],
    )
    if kind == "multichoice":  # rows are the choices of one question
        arguments = {name: value[None] for name, value in arguments.items()}
    arguments |= dict(position_embeddings_visual=None, visual_embeddings_type=None)
    if kind == "late":
        arguments |= dict(image_text_alignment=given["words"])
    if kind in ("pretraining", "late"):
        arguments |= dict(masked_lm_labels=want["words"], is_random_next=want["match"])
    else:
        arguments |= dict(label=want[kind])
    if kind == "nlvr":
        arguments["visual_embeddings_type"] = given["picture"]
    if kind == "flickr":
        arguments["flickr_position"] = want["places"]
    states: list[torch.Tensor] = []
    bert = model.bert.bert
    seen = [*bert.encoder.layer, *([bert.additional_layer] if kind == "late" else []), bert.pooler]
    seen += [model.bert.flickr_attention] if kind == "flickr" else []
    hooks = [module.register_forward_hook(lambda module, inputs, out: states.append(out)) for module in seen]
    out = model.bert(**arguments)
    for hook in hooks:
        hook.remove()
    if kind == "flickr":
        logits = {"phrase": states.pop()}
    elif kind in ("pretraining", "late"):
        logits = {"mlm": out["logits"][:, : recipe.WORDS], "itm": out["seq_relationship_score"]}
    else:
        logits = {{"nlvr": "nlvr2", "multichoice": "choice"}.get(kind, kind): out["logits"]}
    named = {str(i): value for i, value in enumerate(states[:-1])}
    return logits, {**named, "pooled": states[-1]}, out["loss"]


def golden(code: Any, size: str, kind: str) -> dict[str, np.ndarray]:
    model, case = make_model(code, size, kind), f"{size}/{kind}"
    with torch.no_grad():
        logits, states, _ = run(model, kind)
    found = {f"{case}/shapes": authors.shapes(model)}
    found |= authors.arrays(f"{case}/states", states) | authors.arrays(f"{case}/logits", logits)
    if (size, kind) in recipe.TRAINED:
        found |= authors.trained(case, model, lambda: run(model, kind)[2])
    return found


def main(folder: Path) -> None:
    code = authors_code(folder)
    found: dict[str, np.ndarray] = {}
    for size, kind in recipe.CASES:
        found |= golden(code, size, kind)
    authors.save("visualbert_authors", found)
    state = make_model(code, *recipe.FILE).float().state_dict()
    torch.save(state, authors.HERE / "visualbert_authors.th", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
