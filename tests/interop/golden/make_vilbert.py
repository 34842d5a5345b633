"""Writes `vilbert_beta.npz` and `vilbert_multi_task.npz`: what the authors' code gives for the recipe's numbers.

    python -m tests.interop.golden.make_vilbert FOLDER

needs torch, and in FOLDER checkouts `vilbert_beta` (github.com/jiasenlu/vilbert_beta) and `vilbert_multi_task`
(github.com/facebookresearch/vilbert-multi-task). Modules that their files import and the models do not use are stubs
where they are not installed. Everything is computed in float64.
"""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tests.interop import vilbert_recipe as recipe
from tests.interop.golden.authors import arrays, fill, save, shapes, stub, trained

UNUSED = ("boto3", "requests", "tensorboardX", "botocore", "botocore.exceptions", "tqdm")


def stub_imports() -> None:
    for name in UNUSED:
        stub(name, ClientError=Exception, SummaryWriter=object, tqdm=None)
    stub("torch._six", inf=math.inf)


def authors_code(folder: Path) -> Any:
    for name in [name for name in sys.modules if name.partition(".")[0] == "vilbert"]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("vilbert.vilbert")
    finally:
        sys.path.remove(str(folder))


def make_model(code: Any, layout: str, size: str, kind: str) -> torch.nn.Module:
    """The authors' model with the recipe's weights."""
    settings = {**recipe.COMMON, **recipe.SIZES[size], "visualization": True}
    settings["task_specific_tokens"] = recipe.has_tasks(layout, size, kind)
    config = code.BertConfig.from_dict(settings)
    if kind == "pretraining":
        model = code.BertForMultiModalPreTraining(config)
    else:
        model = code.VILBertForVLTasks(config, recipe.ANSWERS)
        if layout == "multi_task":  # which has the numbers of answers written into the code
            for name, answers in (("vil_prediction", recipe.ANSWERS), ("vil_prediction_gqa", recipe.GQA_ANSWERS)):
                width = config.bi_hidden_size
                setattr(model, name, code.SimpleClassifier(width, 2 * width, answers, 0.5))
    return fill(model, recipe.weights)


def run(model: torch.nn.Module, tasks: bool) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Every head's logits by our names, and the states after each layer of each stream."""
    given = {name: torch.tensor(value) for name, value in recipe.inputs().items()}
    boxes = torch.tensor(recipe.boxes5(recipe.inputs()["boxes"]))
    arguments = [given["ids"], given["features"], boxes, given["types"], given["text"], given["image"]]
    states: dict[str, list[torch.Tensor]] = {"text": [], "image": [], "pooled": []}
    encoder = model.bert.encoder
    hooks = [layer.register_forward_hook(lambda m, i, out: states["text"].append(out[0])) for layer in encoder.layer]
    hooks += [
        layer.register_forward_hook(lambda m, i, out: states["image"].append(out[0])) for layer in encoder.v_layer
    ]

    def cross(module: Any, arguments: Any, out: Any) -> None:
        states["image"].append(out[0])
        states["text"].append(out[1])

    hooks += [layer.register_forward_hook(cross) for layer in encoder.c_layer]
    for pooler in (model.bert.t_pooler, model.bert.v_pooler):
        hooks.append(pooler.register_forward_hook(lambda m, i, out: states["pooled"].append(out)))
    if hasattr(model, "vil_logit"):
        if tasks:
            arguments += [None, torch.full((recipe.ROWS, 1), recipe.TASK)]
        out = model(*arguments)
        names = recipe.OUTPUTS["multi_task" if hasattr(model, "vil_tri_prediction") else "beta"]
        logits = dict(zip(names, out, strict=False))
    else:
        logits = dict(zip(("mlm", "objects", "itm"), model(*arguments), strict=False))
    for hook in hooks:
        hook.remove()
    flat = {f"{name}/{i}": value for name, values in states.items() for i, value in enumerate(values)}
    return logits, flat


def loss_of(model: torch.nn.Module, tasks: bool) -> torch.Tensor:
    """The authors' losses, added up: of pre-training as their model has them, of the tasks as `task_utils.py` does."""
    want = {name: torch.tensor(value) for name, value in recipe.targets().items()}
    if not hasattr(model, "vil_logit"):
        given = {name: torch.tensor(value) for name, value in recipe.inputs().items()}
        boxes = torch.tensor(recipe.boxes5(recipe.inputs()["boxes"]))
        losses = model(
            *(given["ids"], given["features"], boxes, given["types"], given["text"], given["image"]),
            masked_lm_labels=want["words"],
            image_label=want["regions"],
            image_target=want["objects"],
            next_sentence_label=want["match"],
        )
        return sum(loss.sum() for loss in losses)
    logits, _ = run(model, tasks)
    grounding = logits["grounding"][..., 0]
    loss = functional.binary_cross_entropy_with_logits(logits["vqa"], want["vqa"]) * recipe.ANSWERS
    loss = loss + functional.cross_entropy(logits["retrieval"].view(1, -1), want["retrieval"])
    loss = loss + functional.binary_cross_entropy_with_logits(grounding, want["grounding"]) * recipe.REGIONS
    if "gqa" in logits:
        loss = loss + functional.binary_cross_entropy_with_logits(logits["gqa"], want["gqa"]) * recipe.GQA_ANSWERS
        loss = loss + functional.cross_entropy(logits["entailment"], want["entailment"])
        loss = loss + functional.cross_entropy(logits["nlvr2"], want["nlvr2"])
    return loss


def golden(code: Any, layout: str) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for size, kind in (case[1:] for case in recipe.CASES if case[0] == layout):
        model, tasks, case = (
            make_model(code, layout, size, kind),
            recipe.has_tasks(layout, size, kind),
            f"{size}/{kind}",
        )
        found[f"{case}/shapes"] = shapes(model)
        with torch.no_grad():
            logits, states = run(model, tasks)
        found |= arrays(f"{case}/logits", {name: value for name, value in logits.items() if torch.is_tensor(value)})
        found |= arrays(f"{case}/states", states)
        if (layout, size, kind) in recipe.TRAINED:
            found |= trained(case, model, lambda model=model, tasks=tasks: loss_of(model, tasks))
    return found


def main(folder: Path) -> None:
    stub_imports()
    for layout in recipe.OUTPUTS:
        found = golden(authors_code(folder / f"vilbert_{layout}"), layout)
        save(f"vilbert_{layout}", found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
