"""ViLT (Kim et al. 2021): transformers' files and those of its authors (github.com/dandelin/ViLT).

The authors' text embeddings have a LayerNorm of eps 1e-12, their layers of 1e-6, and their masked-language head a
decoder of its own; transformers has one eps for all and a tied decoder.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from singlestream.batch import Spec
from singlestream.interop.forms import ANY, Architecture, HeadForm, architecture, forms_in, heads_of, join, linear_form
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
    labels_in,
    num_heads,
    numbered_labels,
    prefix_of,
    shape_of,
)
from singlestream.interop.rules import LINEAR, Copy, Rule, Tensor, WeightsError
from singlestream.model.answering import answering
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig

HEAD_EPS = 1e-5  # torch's default, which the classifiers have
# Keys by dialect, after the prefix.
NAMES = {
    "transformers": {
        "text": "embeddings.text_embeddings.",
        "stem": "embeddings.patch_embeddings.projection",
        "positions": "embeddings.position_embeddings",
        "cls": "embeddings.cls_token",
        "modality": "embeddings.token_type_embeddings.weight",
        "layer": "encoder.layer.{i}",
        "up": "encoder.layer.{i}.intermediate.dense.weight",
        "norm": "layernorm",
        "pooler": "pooler.dense",
    },
    "authors": {
        "text": "text_embeddings.",
        "stem": "transformer.patch_embed.proj",
        "positions": "transformer.pos_embed",
        "cls": "transformer.cls_token",
        "modality": "token_type_embeddings.weight",
        "layer": "transformer.blocks.{i}",
        "up": "transformer.blocks.{i}.mlp.fc1.weight",
        "norm": "transformer.norm",
        "pooler": "pooler.dense",
    },
}
ARCHITECTURES = (
    Architecture(name="ViltForQuestionAnswering", heads=("vqa",)),
    Architecture(name="ViltForImagesAndTextClassification", heads=("nlvr2",)),
    Architecture(name="ViltForImageAndTextRetrieval", heads=("retrieval",)),
    Architecture(name="ViltForTokenClassification", heads=("tokens",)),
    Architecture(name="ViltForMaskedLM", heads=("mlm",)),
    Architecture(name="ViltModel"),
)


def plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> Plan | None:
    """The plan for a ViLT file of either dialect.

    `settings` of the authors' are Lightning's hyper-parameters in the `.ckpt`, or a config.json beside it.
    """
    if "transformer.pos_embed" in tensors and "text_embeddings.word_embeddings.weight" in tensors:
        return _plan(tensors, settings or {}, "authors", "")
    prefix = prefix_of(tensors, "embeddings.text_embeddings.word_embeddings.weight")
    return None if prefix is None else _plan(tensors, settings or {}, "transformers", prefix)


def _plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], dialect: str, prefix: str) -> Plan:
    names = _names(dialect, prefix)
    config = _config(tensors, settings, dialect, names)
    found = forms_in(tensors, [form for form in forms(dialect, prefix) if form.name != _absent(tensors)])
    heads = heads_of(found)
    spec = bert_spec(shape_of(tensors, f"{names['text']}word_embeddings.weight")[0], heads)
    constants = kept(tensors, f"{names['text']}position_ids", f"{names['text']}token_type_ids")
    known = config_json(dialect, config, spec, heads)
    return Plan(
        family="vilt",
        dialect=dialect,
        config=config,
        spec=spec,
        heads=heads,
        rules=join(body(config, dialect, prefix), found, constants=constants),
        settings=(settings or known) if dialect == "transformers" else {**known, **labels_in(settings)},
        # NLVR2's two pictures each have a copy of the text beside them.
        rows={"apart": 2} if answering(heads) == "nlvr2" else {},
    )


def _absent(tensors: Mapping[str, Tensor]) -> str:
    """Which of its two tasks transformers' `classifier` is not for: that of a pair reads as much as its hidden layer
    holds, twice the width.
    """
    if "classifier.0.weight" not in tensors:
        return ""
    hidden, into = shape_of(tensors, "classifier.0.weight")
    return "vqa" if into == hidden else "nlvr2"


def _names(dialect: str, prefix: str) -> dict[str, str]:
    return {name: f"{prefix}{key}" for name, key in NAMES[dialect].items()}


def _config(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any], dialect: str, names: Mapping[str, str]
) -> ModelConfig:
    """Sizes from shapes, the rest from the settings."""
    width, _, patch, _ = shape_of(tensors, f"{names['stem']}.weight")
    num_positions = shape_of(tensors, names["positions"])[1] - 1
    side = math.isqrt(num_positions)
    if side**2 != num_positions:
        raise WeightsError(f"{names['positions']} has {num_positions} places beside the class token: not a square grid")
    return ModelConfig(
        width=width,
        num_layers=count_layers(tensors, names["up"]),
        mlp_dim=shape_of(tensors, names["up"].replace("{i}", "0"))[0],
        norm="pre",
        text_norm=True,
        max_text_length=shape_of(tensors, f"{names['text']}position_embeddings.weight")[0],
        num_token_types=shape_of(tensors, f"{names['text']}token_type_embeddings.weight")[0],
        modality="pictures",
        num_images=shape_of(tensors, names["modality"])[0] - 1,
        image_grid=(side, side),
        position_resize="corners",
        image_cls=True,
        patch_size=patch,
        pooler=f"{names['pooler']}.weight" in tensors,
        **(_told(settings, width) if dialect == "transformers" else _told_authors(settings, width)),
    )


def _told(settings: Mapping[str, Any], width: int) -> dict[str, Any]:
    """What shapes do not say, by transformers' names."""
    return {
        "num_heads": num_heads(settings, width),
        "norm_eps": float(settings.get("layer_norm_eps", 1e-12)),
        "activation": activation(settings.get("hidden_act", "gelu")),
        "dropout": float(settings.get("hidden_dropout_prob", 0.0)),
        "attention_dropout": float(settings.get("attention_probs_dropout_prob", 0.0)),
    }


def _told_authors(settings: Mapping[str, Any], width: int) -> dict[str, Any]:
    """The same by the names in the authors' `config.py`; as published where nothing says them."""
    number, dropout = settings.get("num_heads", num_heads(settings, width)), settings.get("drop_rate", 0.1)
    if type(number) is not int or number < 1 or width % number:
        raise WeightsError(f"num_heads={number!r}: expected a divisor of the width {width}")
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise WeightsError(f"drop_rate={dropout!r}: expected a number in [0, 1)")
    return {"num_heads": number, "norm_eps": 1e-6, "embed_norm_eps": 1e-12, "dropout": float(dropout)}


def standard_prefix(dialect: str, heads: Collection[str]) -> str:
    """What stands before a model's keys where it has these heads."""
    return "vilt." if dialect == "transformers" and heads else ""


def body(config: ModelConfig, dialect: str, prefix: str) -> list[Rule]:
    """Where the numbers of the model are that has no heads."""
    names = _names(dialect, prefix)
    layers = vit_layers if dialect == "transformers" else timm_layers
    return [
        *text_embeddings(names["text"]),
        *norm("embed/text/norm", f"{names['text']}LayerNorm"),
        one("embed/cls/token", names["cls"], SQUEEZE),
        Rule(
            ours=("embed/cls/position", "embed/image/position/table"),
            theirs=(names["positions"],),
            layout=class_and_grid(*config.image_grid),
        ),
        one("embed/image/stem/project/kernel", f"{names['stem']}.weight", patches(config.patch_size)),
        one("embed/image/stem/project/bias", f"{names['stem']}.bias"),
        one("embed/modality/table/embedding", names["modality"]),
        *layers("encoder/blocks", names["layer"]),
        *norm("encoder/norm", names["norm"]),
        *(linear("pooler/dense", names["pooler"]) if config.pooler else ()),
    ]


def forms(dialect: str, prefix: str) -> list[HeadForm]:
    """The heads of the family."""
    if dialect == "authors":
        return [
            _decoder("mlm", "text", "mlm_score", bias="mlm_score.bias"),
            _decoder("mpp", "image", "mpp_score", bias="mpp_score.decoder.bias"),
            linear_form("itm", "pooled", "itm_score.fc"),
            linear_form("retrieval", "pooled", "rank_output"),
            _classifier("vqa", "pooled", "vqa_classifier"),
            _classifier("nlvr2", "pairs", "nlvr2_classifier"),
        ]
    words = f"{prefix}{NAMES[dialect]['text']}word_embeddings.weight"
    return [
        _masked_words("mlm_score.decoder.bias", words),
        _masked_words("mlm_score.bias", words),  # until transformers 4.46, beside the other
        _classifier("vqa", "pooled", "classifier"),
        _classifier("nlvr2", "pairs", "classifier"),
        linear_form("retrieval", "pooled", "rank_output"),
        linear_form("tokens", "text", "classifier"),
    ]


def _masked_words(bias: str, words: str) -> HeadForm:
    copies = [Copy(key="mlm_score.decoder.weight", of=words)]
    if bias != "mlm_score.decoder.bias":
        copies.append(Copy(key="mlm_score.decoder.bias", of=bias))
    return HeadForm(
        name="mlm",
        head=HeadConfig(kind="vocabulary", size=ANY, source="text"),
        size_key=bias,
        rules=[*transform("heads/mlm", "mlm_score.transform"), one("heads/mlm/bias", bias)],
        copies=copies,
    )


def _decoder(name: str, source: str, theirs: str, *, bias: str) -> HeadForm:
    """With a decoder of its own."""
    return HeadForm(
        name=name,
        head=HeadConfig(kind="transform", size=ANY, source=source, norm_eps=1e-12),
        size_key=f"{theirs}.decoder.weight",
        rules=[
            *transform(f"heads/{name}", f"{theirs}.transform"),
            one(f"heads/{name}/out/kernel", f"{theirs}.decoder.weight", LINEAR),
            one(f"heads/{name}/out/bias", bias),
        ],
    )


def _classifier(name: str, source: str, theirs: str) -> HeadForm:
    ours = f"heads/{name}"
    return HeadForm(
        name=name,
        head=HeadConfig(kind="classifier", size=ANY, source=source, norm_eps=HEAD_EPS),
        size_key=f"{theirs}.3.weight",
        rules=[
            *linear(f"{ours}/hidden", f"{theirs}.0"),
            *norm(f"{ours}/norm", f"{theirs}.1"),
            *linear(f"{ours}/out", f"{theirs}.3"),
        ],
    )


def config_json(dialect: str, config: ModelConfig, spec: Spec, heads: Mapping[str, HeadConfig]) -> dict[str, Any]:
    """The settings that go with the weights, as far as the model tells them."""
    if dialect == "authors":
        return {"num_heads": config.num_heads, "drop_rate": config.dropout}
    kind = architecture(ARCHITECTURES, heads)
    labelled = next((heads[name] for name in kind.heads if name in ("vqa", "nlvr2", "tokens")), None)
    return {
        **bert_settings(config, spec, kind.name, "vilt"),
        "num_hidden_layers": config.num_layers,
        "layer_norm_eps": config.norm_eps,
        "modality_type_vocab_size": 1 + config.num_images,
        "image_size": config.image_grid[0] * config.patch_size,
        "patch_size": config.patch_size,
        "num_images": 2 if "nlvr2" in kind.heads else -1,
        **(numbered_labels(labelled.size) if labelled else {}),
    }
