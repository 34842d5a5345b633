"""ViLT (Kim et al. 2021): transformers' files and those of its authors (github.com/dandelin/ViLT).

The authors' text embeddings have a LayerNorm of eps 1e-12, their layers of 1e-6, and their masked-language head a
decoder of its own; transformers has one eps for all and a tied decoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from singlestream.batch import Spec
from singlestream.interop.parts import (
    SQUEEZE,
    class_and_grid,
    linear,
    norm,
    one,
    patches,
    text_embeddings,
    timm_layers,
    transform,
    vit_layers,
)
from singlestream.interop.plan import (
    Plan,
    activation,
    bert_settings,
    bert_spec,
    count_layers,
    kept,
    num_heads,
    numbered_labels,
    prefix_of,
    shape_of,
)
from singlestream.interop.rules import LINEAR, Copy, Rule, Rules, Tensor, WeightsError
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig

HEAD_EPS = 1e-5  # torch's default, which the classifiers have


def plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> Plan | None:
    """The plan for a ViLT file of either dialect."""
    if "transformer.pos_embed" in tensors and "text_embeddings.word_embeddings.weight" in tensors:
        return _authors(tensors, settings or {})
    prefix = prefix_of(tensors, "embeddings.text_embeddings.word_embeddings.weight")
    return None if prefix is None else _transformers(tensors, settings or {}, prefix)


def _config(
    tensors: Mapping[str, Tensor], names: Mapping[str, str], heads: int, eps: float, **changes: Any
) -> ModelConfig:
    """Sizes from shapes; `names` are the keys that tell them."""
    width, _, patch, _ = shape_of(tensors, names["stem"])
    num_positions = shape_of(tensors, names["positions"])[1] - 1
    side = math.isqrt(num_positions)
    if side**2 != num_positions:
        raise WeightsError(f"{names['positions']} has {num_positions} places beside the class token: not a square grid")
    return ModelConfig(
        width=width,
        num_layers=count_layers(tensors, names["layers"]),
        num_heads=heads,
        mlp_dim=shape_of(tensors, names["mlp"])[0],
        norm="pre",
        norm_eps=eps,
        text_norm=True,
        max_text_length=shape_of(tensors, names["text_positions"])[0],
        num_token_types=shape_of(tensors, names["types"])[0],
        modality="pictures",
        num_images=shape_of(tensors, names["modality"])[0] - 1,
        image_grid=(side, side),
        position_resize="corners",
        image_cls=True,
        patch_size=patch,
        pooler=names["pooler"] in tensors,
        **changes,
    )


def _embeddings(config: ModelConfig, names: Mapping[str, str]) -> list[Rule]:
    stem = names["stem"].removesuffix(".weight")
    return [
        one("embed/cls/token", names["cls"], SQUEEZE),
        Rule(
            ours=("embed/cls/position", "embed/image/position/table"),
            theirs=(names["positions"],),
            layout=class_and_grid(*config.image_grid),
        ),
        one("embed/image/stem/project/kernel", f"{stem}.weight", patches(config.patch_size)),
        one("embed/image/stem/project/bias", f"{stem}.bias"),
        one("embed/modality/table/embedding", names["modality"]),
    ]


def _classifier(name: str, theirs: str) -> list[Rule]:
    ours = f"heads/{name}"
    return [
        *linear(f"{ours}/hidden", f"{theirs}.0"),
        *norm(f"{ours}/norm", f"{theirs}.1"),
        *linear(f"{ours}/out", f"{theirs}.3"),
    ]


def _transformers(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], prefix: str) -> Plan:
    text = f"{prefix}embeddings.text_embeddings."
    names = {
        "stem": f"{prefix}embeddings.patch_embeddings.projection.weight",
        "positions": f"{prefix}embeddings.position_embeddings",
        "cls": f"{prefix}embeddings.cls_token",
        "modality": f"{prefix}embeddings.token_type_embeddings.weight",
        "layers": f"{prefix}encoder.layer.{{i}}.output.dense.weight",
        "mlp": f"{prefix}encoder.layer.0.intermediate.dense.weight",
        "text_positions": f"{text}position_embeddings.weight",
        "types": f"{text}token_type_embeddings.weight",
        "pooler": f"{prefix}pooler.dense.weight",
    }
    width = shape_of(tensors, names["stem"])[0]
    eps = float(settings.get("layer_norm_eps", 1e-12))
    config = _config(
        tensors,
        names,
        num_heads(settings, width),
        eps,
        activation=activation(settings.get("hidden_act", "gelu")),
        dropout=float(settings.get("hidden_dropout_prob", 0.0)),
    )
    rules = [
        *text_embeddings(text),
        *norm("embed/text/norm", f"{text}LayerNorm"),
        *_embeddings(config, names),
        *vit_layers("encoder/blocks", f"{prefix}encoder.layer.{{i}}"),
        *norm("encoder/norm", f"{prefix}layernorm"),
        *(linear("pooler/dense", f"{prefix}pooler.dense") if config.pooler else ()),
    ]
    words = f"{text}word_embeddings.weight"
    heads, copies = _transformers_heads(tensors, rules, words)
    spec = bert_spec(shape_of(tensors, words)[0], heads)
    constants = kept(tensors, f"{text}position_ids", f"{text}token_type_ids")
    return Plan(
        family="vilt",
        dialect="transformers",
        config=config,
        spec=spec,
        heads=heads,
        rules=Rules(rules=rules, copies=copies, constants=constants),
        settings=settings or _settings(config, spec, heads),
    )


def _transformers_heads(
    tensors: Mapping[str, Tensor], rules: list[Rule], words: str
) -> tuple[dict[str, HeadConfig], list[Copy]]:
    """The task's head that lies beside the model, and its rules added to `rules`."""
    heads: dict[str, HeadConfig] = {}
    copies: list[Copy] = []
    if "mlm_score.transform.dense.weight" in tensors:
        bias = "mlm_score.bias" if "mlm_score.bias" in tensors else "mlm_score.decoder.bias"  # until 4.46; since
        heads["mlm"] = HeadConfig(kind="vocabulary", size=shape_of(tensors, bias)[0], source="text")
        rules += [*transform("heads/mlm", "mlm_score.transform"), one("heads/mlm/bias", bias)]
        copies.append(Copy(key="mlm_score.decoder.weight", of=words))
        if bias == "mlm_score.bias":
            copies.append(Copy(key="mlm_score.decoder.bias", of=bias))
    if "classifier.3.weight" in tensors:
        size, hidden = shape_of(tensors, "classifier.3.weight")
        into = shape_of(tensors, "classifier.0.weight")[1]
        name, source = ("nlvr2", "pairs") if into == hidden else ("vqa", "pooled")
        heads[name] = HeadConfig(kind="classifier", size=size, source=source, norm_eps=HEAD_EPS)
        rules += _classifier(name, "classifier")
    if "rank_output.weight" in tensors:
        heads["retrieval"] = HeadConfig(size=1)
        rules += linear("heads/retrieval/out", "rank_output")
    if "classifier.weight" in tensors:
        heads["tokens"] = HeadConfig(size=shape_of(tensors, "classifier.weight")[0], source="text")
        rules += linear("heads/tokens/out", "classifier")
    return heads, copies


ARCHITECTURES = {
    "mlm": "ViltForMaskedLM",
    "vqa": "ViltForQuestionAnswering",
    "nlvr2": "ViltForImagesAndTextClassification",
    "retrieval": "ViltForImageAndTextRetrieval",
    "tokens": "ViltForTokenClassification",
}


def _settings(config: ModelConfig, spec: Spec, heads: Mapping[str, HeadConfig]) -> dict[str, Any]:
    """config.json where the file had none."""
    head = next(iter(heads), None)
    return {
        **bert_settings(config, spec, ARCHITECTURES[head] if head else "ViltModel", "vilt"),
        "num_hidden_layers": config.num_layers,
        "layer_norm_eps": config.norm_eps,
        "modality_type_vocab_size": 1 + config.num_images,
        "image_size": config.image_grid[0] * config.patch_size,
        "patch_size": config.patch_size,
        "num_images": 2 if head == "nlvr2" else -1,
        **(numbered_labels(heads[head].size) if head in ("vqa", "nlvr2", "tokens") else {}),
    }


def _authors(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Plan:
    """`settings` are Lightning's hyper-parameters in the `.ckpt`, or a config.json beside it."""
    names = {
        "stem": "transformer.patch_embed.proj.weight",
        "positions": "transformer.pos_embed",
        "cls": "transformer.cls_token",
        "modality": "token_type_embeddings.weight",
        "layers": "transformer.blocks.{i}.mlp.fc1.weight",
        "mlp": "transformer.blocks.0.mlp.fc1.weight",
        "text_positions": "text_embeddings.position_embeddings.weight",
        "types": "text_embeddings.token_type_embeddings.weight",
        "pooler": "pooler.dense.weight",
    }
    width = shape_of(tensors, names["stem"])[0]
    number, dropout = _authors_settings(settings, width)
    config = _config(tensors, names, number, 1e-6, embed_norm_eps=1e-12, dropout=dropout)
    rules = [
        *text_embeddings("text_embeddings."),
        *norm("embed/text/norm", "text_embeddings.LayerNorm"),
        *_embeddings(config, names),
        *timm_layers("encoder/blocks", "transformer.blocks.{i}"),
        *norm("encoder/norm", "transformer.norm"),
        *(linear("pooler/dense", "pooler.dense") if config.pooler else ()),
    ]
    heads = _authors_heads(tensors, rules)
    spec = bert_spec(shape_of(tensors, "text_embeddings.word_embeddings.weight")[0], heads)
    buffers = kept(tensors, "text_embeddings.position_ids", "text_embeddings.token_type_ids")
    return Plan(
        family="vilt",
        dialect="authors",
        config=config,
        spec=spec,
        heads=heads,
        rules=Rules(rules=rules, constants=buffers),
        settings={"num_heads": config.num_heads, "drop_rate": config.dropout},
    )


def _authors_settings(settings: Mapping[str, Any], width: int) -> tuple[int, float]:
    """Heads of attention and dropout by the names in the authors' `config.py`; as published where nothing says them."""
    number, dropout = settings.get("num_heads", num_heads(settings, width)), settings.get("drop_rate", 0.1)
    if type(number) is not int or number < 1 or width % number:
        raise WeightsError(f"num_heads={number!r}: expected a divisor of the width {width}")
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise WeightsError(f"drop_rate={dropout!r}: expected a number in [0, 1)")
    return number, float(dropout)


def _authors_heads(tensors: Mapping[str, Tensor], rules: list[Rule]) -> dict[str, HeadConfig]:
    heads: dict[str, HeadConfig] = {}
    for name, source in (("mlm", "text"), ("mpp", "image")):
        if f"{name}_score.transform.dense.weight" not in tensors:
            continue
        size = shape_of(tensors, f"{name}_score.decoder.weight")[0]
        heads[name] = HeadConfig(kind="transform", size=size, source=source, norm_eps=1e-12)
        bias = "mlm_score.bias" if name == "mlm" else "mpp_score.decoder.bias"
        rules += transform(f"heads/{name}", f"{name}_score.transform")
        rules += [
            one(f"heads/{name}/out/kernel", f"{name}_score.decoder.weight", LINEAR),
            one(f"heads/{name}/out/bias", bias),
        ]
    for name, theirs in (("itm", "itm_score.fc"), ("retrieval", "rank_output")):
        if f"{theirs}.weight" in tensors:
            heads[name] = HeadConfig(size=shape_of(tensors, f"{theirs}.weight")[0])
            rules += linear(f"heads/{name}/out", theirs)
    for name, source in (("vqa", "pooled"), ("nlvr2", "pairs")):
        if f"{name}_classifier.3.weight" in tensors:
            size = shape_of(tensors, f"{name}_classifier.3.weight")[0]
            heads[name] = HeadConfig(kind="classifier", size=size, source=source, norm_eps=HEAD_EPS)
            rules += _classifier(name, f"{name}_classifier")
    return heads
