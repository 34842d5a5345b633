"""Writes `vilt_authors.npz` and `vilt_authors.ckpt`: what the authors' code gives for the recipe's numbers, and a file
as Lightning writes it.

    python -m tests.interop.golden.make_vilt_authors FOLDER

needs torch, transformers, and in FOLDER a checkout of github.com/dandelin/ViLT. What their files import beside is a
stub where it is not installed. Everything is computed in float64.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers.optimization
from torch.nn import functional

from tests.interop import vilt_authors_recipe as recipe
from tests.interop.golden import authors


class LightningModule(torch.nn.Module):
    """What the model uses of Lightning's class."""

    def save_hyperparameters(self) -> None:
        caller = inspect.currentframe().f_back  # type: ignore[union-attr]
        self.hparams = type("Namespace", (), {"config": caller.f_locals["config"]})()  # type: ignore[union-attr]


class Metric:
    """Lightning's metrics, which nothing here reads."""

    def __init__(self, **_: Any):
        pass

    def add_state(self, *_: Any, **__: Any) -> None:
        pass


class ModelCheckpoint:
    """The class that Lightning's file names for the state of its callback."""

    __module__ = "pytorch_lightning.callbacks.model_checkpoint"


def authors_code(folder: Path) -> Any:
    """Their module of the model."""
    # Imported before the stubs, which it would take for the real ones.
    transformers.optimization.AdamW = torch.optim.AdamW  # which they had of their own
    nothing = dict.fromkeys(("IMAGENET_DEFAULT_MEAN", "IMAGENET_DEFAULT_STD", "load_pretrained", "StdConv2dSame"))
    nothing |= dict.fromkeys(("DropPath", "resnet26d", "resnet50d", "ResNetV2"))
    timm = dict(**nothing, to_2tuple=lambda x: (x, x), trunc_normal_=torch.nn.init.trunc_normal_)
    timm["register_model"] = lambda make: make
    for name in ("data", "models", "models.helpers", "models.layers", "models.resnet", "models.resnetv2"):
        authors.stub(f"timm.{name}", **timm)
    authors.stub("timm.models.registry", **timm)
    authors.stub("timm")
    authors.stub("torchvision", transforms=type("transforms", (), {"Compose": list}))
    authors.stub("einops", rearrange=None)
    authors.stub("pytorch_lightning", LightningModule=LightningModule)
    authors.stub("pytorch_lightning.metrics", Metric=Metric)
    authors.stub("pytorch_lightning.callbacks.model_checkpoint", ModelCheckpoint=ModelCheckpoint)
    sys.path.insert(0, str(folder))
    import vilt.modules.vilt_module as code

    def small(pretrained: bool, config: Any) -> torch.nn.Module:
        return code.vit.VisionTransformer(
            img_size=config["image_size"],
            patch_size=config["patch_size"],
            embed_dim=config["hidden_size"],
            depth=config["num_layers"],
            num_heads=config["num_heads"],
            mlp_ratio=config["mlp_ratio"],
            config=config,
        )

    code.vit.small = small
    return code


def settings(size: str, kind: str) -> dict[str, Any]:
    names = ("itm", "mlm", "mpp", "vqa", "nlvr2", "irtr")
    return dict(
        **recipe.SIZES[size],
        **dict(vit="small", image_size=recipe.SIDE * recipe.PATCH, patch_size=recipe.PATCH, max_image_len=-1),
        **dict(vocab_size=recipe.VOCABULARY, max_text_len=recipe.LENGTH, vqav2_label_size=recipe.ANSWERS),
        **dict(drop_rate=0.1, load_path="", test_only=False),
        loss_names={name: int(name in recipe.LOSSES[kind]) for name in names},
    )


def make_model(code: Any, size: str, kind: str) -> torch.nn.Module:
    model = code.ViLTransformerSS(settings(size, kind))
    if hasattr(model, "mpp_score"):  # 256 values of three colours, written into the code
        model.mpp_score.decoder = torch.nn.Linear(recipe.SIZES[size]["hidden_size"], recipe.COLOURS)
    if hasattr(model, "rank_output"):  # which begins as a view of another's weights
        model.rank_output = torch.nn.Linear(recipe.SIZES[size]["hidden_size"], 1)
    return authors.fill(model, recipe.weights)


def batch() -> dict[str, Any]:
    given = recipe.inputs()
    images = [torch.tensor(recipe.pixels(i) / 127.5 - 1).permute(0, 3, 1, 2) for i in (0, 1)]
    return {
        "text_ids": torch.tensor(given["ids"]),
        "text_masks": torch.tensor(given["text"]),
        "text_labels": None,
        "image_0": [images[0]],
        "image_1": [images[1]],
    }


def infer(model: torch.nn.Module, picture: int) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Their features, and the states after each layer, with the patches in raster order: they shuffle the largest
    picture's, and repeat padding.
    """
    states: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda module, inputs, out: states.append(out[0]))
        for block in model.transformer.blocks
    ]
    found = model.infer(batch(), image_token_type_idx=1 + picture)
    for hook in hooks:
        hook.remove()
    places, (rows, columns) = found["patch_index"]
    assert (rows, columns) == (recipe.HEIGHT, recipe.WIDTH)
    seen = found["image_masks"][:, 1:].bool()
    row, _ = torch.where(seen)
    place = places[seen]
    raster = torch.zeros(recipe.ROWS, rows * columns, dtype=torch.long)
    raster[row, place[:, 0] * columns + place[:, 1]] = torch.arange(seen.shape[1]).expand_as(seen)[seen]
    inside = torch.tensor(recipe.mask(picture)).flatten(1)
    assert (seen.sum(1) == inside.sum(1)).all()

    def in_order(image: torch.Tensor) -> torch.Tensor:
        """Patches [B, rows * columns, D], then the class token; zero where there is no picture."""
        patches = image[:, 1:].gather(1, raster[..., None].expand(-1, -1, image.shape[-1]))
        return torch.cat([patches * inside[..., None], image[:, :1]], 1)

    found["image_feats"] = in_order(found["image_feats"])
    words = recipe.WORDS
    return found, [torch.cat([x[:, :words], in_order(x[:, words:])], 1) for x in states]


def logits_of(model: torch.nn.Module, kind: str, found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    pooled = found["cls_feats"]
    if kind == "pretraining":
        patches = found["image_feats"][:, :-1]
        words = model.mlm_score(found["text_feats"])
        return {"mlm": words, "itm": model.itm_score(pooled), "mpp": model.mpp_score(patches)}
    if kind == "vqa":
        return {"vqa": model.vqa_classifier(pooled)}
    if kind == "irtr":
        return {"retrieval": model.rank_output(pooled), "itm": model.itm_score(pooled)}
    second, _ = infer(model, 1)
    return {"nlvr2": model.nlvr2_classifier(torch.cat([pooled, second["cls_feats"]], -1))}


def loss_of(model: torch.nn.Module, kind: str) -> torch.Tensor:
    """The losses of their `objectives.py`; of pre-training without the alignment of words and patches."""
    want = {name: torch.tensor(value) for name, value in recipe.targets().items()}
    logits = logits_of(model, kind, infer(model, 0)[0])
    if kind == "pretraining":
        loss = functional.cross_entropy(logits["mlm"].flatten(0, 1), want["words"].flatten())
        loss = loss + functional.cross_entropy(logits["mpp"].flatten(0, 1), want["colours"].flatten())
        return loss + functional.cross_entropy(logits["itm"], want["match"])
    if kind == "vqa":
        return functional.binary_cross_entropy_with_logits(logits["vqa"], want["vqa"]) * recipe.ANSWERS
    if kind == "irtr":
        return functional.cross_entropy(logits["retrieval"].T, want["rank"])
    return functional.cross_entropy(logits["nlvr2"], want["nlvr2"])


def golden(code: Any, size: str, kind: str) -> dict[str, np.ndarray]:
    model, case = make_model(code, size, kind), f"{size}/{kind}"
    with torch.no_grad():
        found, states = infer(model, 0)
        logits = logits_of(model, kind, found)
    result = {f"{case}/shapes": authors.shapes(model), f"{case}/pooled": found["cls_feats"].numpy()}
    result |= authors.arrays(f"{case}/states", {str(i): x for i, x in enumerate(states)})
    result |= authors.arrays(f"{case}/logits", logits)
    if (size, kind) in recipe.TRAINED:
        result |= authors.trained(case, model, lambda: loss_of(model, kind))
    return result


def write_checkpoint(code: Any) -> None:
    """What Lightning 1.1 puts into a file (`CheckpointConnector.dump_checkpoint`), of a model after one step."""
    size, kind = recipe.CHECKPOINT
    model = make_model(code, size, kind).float()
    model.text_embeddings.register_buffer("position_ids", torch.arange(recipe.LENGTH)[None])  # until transformers 4.31
    optimizer = torch.optim.AdamW(model.token_type_embeddings.parameters(), lr=0.0)
    model.token_type_embeddings.weight.sum().backward()
    optimizer.step()
    content = {
        "epoch": 4,
        "global_step": 1,
        "pytorch-lightning_version": "1.1.4",
        "callbacks": {ModelCheckpoint: {"monitor": "val/the_metric", "best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [{"base_lrs": [1e-4], "last_epoch": 1, "lr_lambdas": [None]}],
        "state_dict": model.state_dict(),
        "hparams_name": "config",
        "hyper_parameters": {"config": settings(size, kind)},
    }
    torch.save(content, authors.HERE / "vilt_authors.ckpt")


def main(folder: Path) -> None:
    torch.manual_seed(0)  # of their choice among patches, which is undone
    code = authors_code(folder)
    found: dict[str, np.ndarray] = {}
    for size, kind in recipe.CASES:
        found |= golden(code, size, kind)
    authors.save("vilt_authors", found)
    write_checkpoint(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
