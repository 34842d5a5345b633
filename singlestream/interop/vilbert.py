"""ViLBERT (Lu et al. 2019) in its authors' two layouts; transformers has none.

Both hold the same model (`bert.encoder.c_layer` and so on; 1 is the image's side of a co-attention, 2 the text's). The
first (github.com/jiasenlu/vilbert_beta) has one answer head, whose weights are normalised; the second
(github.com/facebookresearch/vilbert-multi-task, Lu et al. 2020) three of LXMERT's kind, a head for entailment, and
where it was trained with `task_specific_tokens` a table of task tokens. What both do to regions and texts before the
model is in `vilbert_inputs`. A match is 0 in `itm`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from singlestream.batch import Spec
from singlestream.interop.forms import ANY, HeadForm, answers_form, forms_in, heads_of, join, linear_form, words_form
from singlestream.interop.parts import bert_layers, linear, norm, one, text_embeddings, transform
from singlestream.interop.plan import (
    Plan,
    activation,
    activation_name,
    bert_spec,
    count_layers,
    kept,
    num_heads,
    prefix_of,
    shape_of,
)
from singlestream.interop.rules import LINEAR, Rule, Tensor, WeightsError
from singlestream.model.heads import HeadConfig
from singlestream.model.two_stream_config import TwoStreamConfig

IMAGE_HEAD_WIDTH = 128  # of one attention head of the image, and across the streams, as published
FUSIONS = {"mul": "product", "sum": "sum"}  # the authors' `fusion_method`
DIALECT, MAIN = "authors", "bert."
VQA = 1  # among the tasks of `vilbert_tasks.yml`


def plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> Plan | None:
    """The plan for a ViLBERT file of either layout; `settings` is the authors' `bert_base_6layer_6conect.json`.

    Without settings a file has heads of attention as published: 64 wide in the text, 128 in the image and across.
    """
    prefix = prefix_of(tensors, "encoder.c_layer.0.biattention.query1.weight")
    if prefix is None:
        return None
    config = _config(tensors, settings or {}, prefix)
    found = forms_in(tensors, forms(DIALECT, prefix))
    heads = heads_of(found)
    text = f"{prefix}embeddings."
    spec = bert_spec(shape_of(tensors, f"{text}word_embeddings.weight")[0], heads)
    return Plan(
        family="vilbert",
        dialect=DIALECT,
        config=config,
        spec=spec,
        heads=heads,
        rules=join(body(config, DIALECT, prefix), found, constants=kept(tensors, f"{text}position_ids")),
        settings={**config_json(DIALECT, config, spec, heads), **(settings or {})},
        rows=rows(config, heads),
    )


def _config(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], prefix: str) -> TwoStreamConfig:
    _refuse(settings)
    text, image = f"{prefix}embeddings.", f"{prefix}v_embeddings."
    length, width = shape_of(tensors, f"{text}position_embeddings.weight")
    image_width, region_dim = shape_of(tensors, f"{image}image_embeddings.weight")
    cross_width = shape_of(tensors, f"{prefix}encoder.c_layer.0.biattention.query1.weight")[0]
    layers, image_layers, cross = (
        count_layers(tensors, f"{prefix}encoder.{name}.{{i}}.{end}")
        for name, end in (
            ("layer", "output.dense.weight"),
            ("v_layer", "output.dense.weight"),
            ("c_layer", "biOutput.dense1.weight"),
        )
    )
    tasks = f"{text}task_embeddings.weight"
    return TwoStreamConfig(
        width=width,
        num_layers=layers,
        num_heads=num_heads(settings, width),
        mlp_dim=shape_of(tensors, f"{prefix}encoder.layer.0.intermediate.dense.weight")[0],
        image_width=image_width,
        image_layers=image_layers,
        image_heads=int(settings.get("v_num_attention_heads", max(1, image_width // IMAGE_HEAD_WIDTH))),
        image_mlp_dim=shape_of(tensors, f"{prefix}encoder.v_layer.0.intermediate.dense.weight")[0],
        cross="paired",
        cross_width=cross_width,
        cross_heads=int(settings.get("bi_num_attention_heads", max(1, cross_width // IMAGE_HEAD_WIDTH))),
        cross_after_text=_places(settings, "t_biattention_id", range(layers - cross, layers), cross),
        cross_after_image=_places(settings, "v_biattention_id", range(cross), cross),
        coattention=bool(settings.get("with_coattention", True)),
        spare=f"{prefix}encoder.c_layer.0.biOutput.q_dense1.weight" in tensors,
        fixed_layers=int(settings.get("fixed_t_layer", 0)),
        fixed_image_layers=int(settings.get("fixed_v_layer", 0)),
        region_dim=region_dim,
        box_numbers=shape_of(tensors, f"{image}image_location_embeddings.weight")[1],
        region_norm="sum",
        max_text_length=length,
        num_token_types=shape_of(tensors, f"{text}token_type_embeddings.weight")[0],
        num_tasks=shape_of(tensors, tasks)[0] if tasks in tensors else 0,
        fusion=FUSIONS[settings.get("fusion_method", "mul")],
        activation=activation(settings.get("hidden_act", "gelu")),
        dropout=float(settings.get("hidden_dropout_prob", 0.1)),
        attention_dropout=float(settings.get("attention_probs_dropout_prob", 0.1)),
    )


def _refuse(settings: Mapping[str, Any]) -> None:
    """What the authors' code can do beyond the published models."""
    if settings.get("model", "bert") != "bert":
        raise WeightsError(f"ViLBERT with model={settings['model']!r} is not built here, only with 'bert'")
    if settings.get("dynamic_attention"):
        raise WeightsError("ViLBERT with dynamic_attention is not built here")
    if settings.get("v_hidden_act", "gelu") != settings.get("hidden_act", "gelu"):
        raise WeightsError("ViLBERT whose hidden_act and v_hidden_act differ is not built here")
    if settings.get("fusion_method", "mul") not in FUSIONS:
        raise WeightsError(f"fusion_method={settings['fusion_method']!r}: expected one of {', '.join(FUSIONS)}")


def _places(settings: Mapping[str, Any], name: str, usual: range, cross: int) -> tuple[int, ...]:
    places = tuple(settings.get(name, usual))
    if len(places) != cross or min(places) < 0:
        raise WeightsError(f"{name}={list(places)}: the file has {cross} co-attention layers to place")
    return places


def rows(config: TwoStreamConfig, heads: Collection[str]) -> dict[str, Any]:
    """A region for the whole picture; where tasks have tokens, that of questions."""
    return {"mean_region": True, **({"task": VQA} if config.num_tasks > VQA and "vqa" in heads else {})}


def standard_prefix(dialect: str, heads: Collection[str]) -> str:
    """What stands before the model's keys."""
    return MAIN


def body(config: TwoStreamConfig, dialect: str, prefix: str) -> list[Rule]:
    """Where the numbers of the model are that has no heads."""
    text, image = f"{prefix}embeddings.", f"{prefix}v_embeddings."
    task = [one("embed/text/task/embedding", f"{text}task_embeddings.weight")]
    return [
        *text_embeddings(text),
        *norm("embed/text/norm", f"{text}LayerNorm"),
        *linear("embed/image/features", f"{image}image_embeddings"),
        *linear("embed/image/boxes", f"{image}image_location_embeddings"),
        *norm("embed/image/norm", f"{image}LayerNorm"),
        *bert_layers("text/blocks", f"{prefix}encoder.layer.{{i}}"),
        *bert_layers("image/blocks", f"{prefix}encoder.v_layer.{{i}}"),
        *_cross(f"{prefix}encoder.c_layer.{{i}}.", spare=config.spare),
        *linear("pooler/text", f"{prefix}t_pooler.dense"),
        *linear("pooler/image", f"{prefix}v_pooler.dense"),
        *(task if config.num_tasks else ()),
    ]


def _cross(theirs: str, *, spare: bool) -> list[Rule]:
    """A co-attention layer; each side's queries read the keys and values of the other."""
    rules: list[Rule] = []
    for side, own, other, name in (("text", 2, 1, "t"), ("image", 1, 2, "v")):
        ours = f"cross/{side}"
        rules += [
            *linear(f"{ours}/attention/query", f"{theirs}biattention.query{own}"),
            *linear(f"{ours}/attention/key", f"{theirs}biattention.key{other}"),
            *linear(f"{ours}/attention/value", f"{theirs}biattention.value{other}"),
            *linear(f"{ours}/attention/out", f"{theirs}biOutput.dense{own}"),
            *norm(f"{ours}/attention/norm", f"{theirs}biOutput.LayerNorm{own}"),
            *linear(f"{ours}/mlp/up", f"{theirs}{name}_intermediate.dense"),
            *linear(f"{ours}/mlp/down", f"{theirs}{name}_output.dense"),
            *norm(f"{ours}/mlp_norm", f"{theirs}{name}_output.LayerNorm"),
            *(linear(f"{ours}/spare", f"{theirs}biOutput.q_dense{own}") if spare else ()),
        ]
    return rules


def forms(dialect: str, prefix: str) -> list[HeadForm]:
    """The heads of both layouts; `vqa` is that of the second, or of the first."""
    outer = prefix.removesuffix(MAIN)
    return [
        words_form(f"{outer}cls.predictions", f"{prefix}embeddings.word_embeddings.weight"),
        _objects(f"{outer}cls.imagePredictions"),
        linear_form("itm", "pooled", f"{outer}cls.bi_seq_relationship"),
        linear_form("retrieval", "pooled", f"{outer}vil_logit"),
        linear_form("entailment", "pooled", f"{outer}vil_tri_prediction"),
        linear_form("grounding", "image", f"{outer}vision_logit"),
        linear_form("words", "text", f"{outer}linguisic_logit"),
        answers_form("vqa", "pooled", f"{outer}vil_prediction.logit_fc"),
        answers_form("gqa", "pooled", f"{outer}vil_prediction_gqa.logit_fc"),
        answers_form("nlvr2", "pairs", f"{outer}vil_binary_prediction.logit_fc"),
        _normed_answers(f"{outer}vil_prediction.main"),
    ]


def _objects(theirs: str) -> HeadForm:
    return HeadForm(
        name="objects",
        head=HeadConfig(kind="transform", size=ANY, source="image"),
        size_key=f"{theirs}.decoder.weight",
        rules=[*transform("heads/objects", f"{theirs}.transform"), *linear("heads/objects/out", f"{theirs}.decoder")],
    )


def _normed_answers(theirs: str) -> HeadForm:
    return HeadForm(
        name="vqa",
        head=HeadConfig(kind="weight_norm", size=ANY),
        size_key=f"{theirs}.3.weight_v",
        rules=[*_weight_norm("heads/vqa/hidden", f"{theirs}.0"), *_weight_norm("heads/vqa/out", f"{theirs}.3")],
    )


def _weight_norm(ours: str, theirs: str) -> list[Rule]:
    return [
        one(f"{ours}/kernel", f"{theirs}.weight_v", LINEAR),
        one(f"{ours}/scale", f"{theirs}.weight_g"),
        one(f"{ours}/bias", f"{theirs}.bias"),
    ]


def config_json(dialect: str, config: TwoStreamConfig, spec: Spec, heads: Mapping[str, HeadConfig]) -> dict[str, Any]:
    """The authors' names for what the file's shapes do not say."""
    return {
        "hidden_act": activation_name(config.activation),
        "v_hidden_act": activation_name(config.activation),
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "num_attention_heads": config.num_heads,
        "v_num_attention_heads": config.image_heads,
        "bi_num_attention_heads": config.cross_heads,
        "t_biattention_id": list(config.cross_after_text),
        "v_biattention_id": list(config.cross_after_image),
        "fusion_method": next(name for name, kind in FUSIONS.items() if kind == config.fusion),
        "with_coattention": config.coattention,
    }
