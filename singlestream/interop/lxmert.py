"""LXMERT (Tan & Bansal 2019): transformers' files and those of its authors (github.com/airsplay/lxmert).

The two name the same things alike but for what stands before: `lxmert.` and `bert.`, and in the authors' fine-tuned
models `lxrt_encoder.model.bert.`, beside a `logit_fc` that is one of VQA and GQA, or reads a pair of pictures (NLVR2).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from singlestream.batch import Spec
from singlestream.interop.forms import (
    ANY,
    Architecture,
    HeadForm,
    answers_form,
    architecture,
    forms_in,
    heads_of,
    join,
    linear_form,
    words_form,
)
from singlestream.interop.parts import bert_layers, linear, norm, qkv, text_embeddings, transform
from singlestream.interop.plan import (
    Plan,
    activation,
    bert_settings,
    bert_spec,
    count_layers,
    kept,
    labels_in,
    num_heads,
    prefix_of,
    shape_of,
)
from singlestream.interop.rules import Rule, Tensor, WeightsError
from singlestream.model.heads import HeadConfig
from singlestream.model.two_stream_config import TwoStreamConfig

BOX = 4
OBJECTS = ("attr", "feat", "obj")  # what a masked region is asked: attribute, feature, class; one transform for all
MAIN = {"transformers": "lxmert.", "authors": "bert."}
FINE_TUNED = "lxrt_encoder.model."  # before the authors' MAIN in their fine-tuned models


ARCHITECTURES = (
    Architecture(name="LxmertForPreTraining", heads=("mlm", "itm"), optional=("vqa", *OBJECTS)),
    Architecture(name="LxmertForQuestionAnswering", heads=("vqa",)),
    Architecture(name="LxmertModel"),
)


def plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> Plan | None:
    """The plan for an LXMERT file of either dialect."""
    prefix = prefix_of(tensors, "encoder.x_layers.0.visual_attention.att.query.weight")
    if prefix is None:
        return None
    dialect = "authors" if prefix.endswith(MAIN["authors"]) else "transformers"
    config = _config(tensors, settings or {}, prefix)
    found = forms_in(tensors, _forms_beside(tensors, dialect, prefix))
    heads = heads_of(found)
    embeddings = f"{prefix}embeddings."
    spec = bert_spec(shape_of(tensors, f"{embeddings}word_embeddings.weight")[0], heads)
    known = config_json(dialect, config, spec, heads)
    return Plan(
        family="lxmert",
        dialect=dialect,
        config=config,
        spec=spec,
        heads=heads,
        rules=join(body(config, dialect, prefix), found, constants=kept(tensors, f"{embeddings}position_ids")),
        settings=(settings or known) if dialect == "transformers" else {**known, **labels_in(settings or {})},
    )


def _forms_beside(tensors: Mapping[str, Tensor], dialect: str, prefix: str) -> list[HeadForm]:
    """Those that the file can have: its answers lie anywhere, and are a pair's where they read as much as they hide."""
    objects = f"{_outer(dialect, prefix)}obj_predict_head.decoder_dict"
    found = [name for name in OBJECTS if f"{objects}.{name}.weight" in tensors]
    before = prefix_of(tensors, "logit_fc.0.weight")
    known = forms(dialect, prefix, before=before, objects=found)
    if before is None:
        return known
    hidden, into = shape_of(tensors, f"{before}logit_fc.0.weight")
    return [form for form in known if form.name != ("vqa" if into == hidden else "nlvr2")]


def _config(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], prefix: str) -> TwoStreamConfig:
    embeddings, encoder = f"{prefix}embeddings.", f"{prefix}encoder."
    length, width = shape_of(tensors, f"{embeddings}position_embeddings.weight")
    box = shape_of(tensors, f"{encoder}visn_fc.box_fc.weight")[1]
    if box != BOX:
        raise WeightsError(f"{encoder}visn_fc.box_fc.weight reads {box} numbers of a box; here LXMERT reads {BOX}")
    names = {"text": "layer", "image": "r_layers", "cross": "x_layers"}
    ends = {"text": "output.dense.weight", "image": "output.dense.weight", "cross": "visual_attention.att.key.weight"}
    counts = {k: count_layers(tensors, f"{encoder}{name}.{{i}}.{ends[k]}") for k, name in names.items()}
    heads = num_heads(settings, width)
    mlp_dim = shape_of(tensors, f"{encoder}x_layers.0.lang_inter.dense.weight")[0]
    return TwoStreamConfig(
        width=width,
        num_layers=counts["text"],
        num_heads=heads,
        mlp_dim=mlp_dim,
        image_width=width,
        image_layers=counts["image"],
        image_heads=heads,
        image_mlp_dim=mlp_dim,
        cross="shared",
        cross_width=width,
        cross_heads=heads,
        cross_after_text=(counts["text"],) * counts["cross"],
        cross_after_image=(counts["image"],) * counts["cross"],
        fixed_first_rows=True,
        region_dim=shape_of(tensors, f"{encoder}visn_fc.visn_fc.weight")[1],
        box_numbers=BOX,
        region_norm="apart",
        max_text_length=length,
        num_token_types=shape_of(tensors, f"{embeddings}token_type_embeddings.weight")[0],
        fusion="none",
        activation=activation(settings.get("hidden_act", "gelu")),
        dropout=float(settings.get("hidden_dropout_prob", 0.1)),
        attention_dropout=float(settings.get("attention_probs_dropout_prob", 0.1)),
    )


def _cross(theirs: str) -> list[Rule]:
    """A cross layer: the attention that serves both directions, and a layer of BERT for each stream."""
    attention = f"{theirs}visual_attention"
    rules = [
        rule
        for part in ("query", "key", "value")
        for rule in linear(f"cross/attention/{part}", f"{attention}.att.{part}")
    ]
    rules += linear("cross/attention/out", f"{attention}.output.dense")
    rules += norm("cross/attention/norm", f"{attention}.output.LayerNorm")
    for ours, side in (("cross/text", "lang"), ("cross/image", "visn")):
        rules += [
            *qkv(f"{ours}/attention", f"{theirs}{side}_self_att.self"),
            *linear(f"{ours}/attention/out", f"{theirs}{side}_self_att.output.dense"),
            *norm(f"{ours}/attention_norm", f"{theirs}{side}_self_att.output.LayerNorm"),
            *linear(f"{ours}/mlp/up", f"{theirs}{side}_inter.dense"),
            *linear(f"{ours}/mlp/down", f"{theirs}{side}_output.dense"),
            *norm(f"{ours}/mlp_norm", f"{theirs}{side}_output.LayerNorm"),
        ]
    return rules


def standard_prefix(dialect: str, heads: Collection[str]) -> str:
    """What stands before a model's keys where it has these heads.

    The authors' code opens what answers and no more as a fine-tuned model, everything else as a pre-trained one.
    """
    if dialect == "authors":
        return f"{FINE_TUNED}{MAIN[dialect]}" if heads and set(heads) <= {"vqa", "nlvr2"} else MAIN[dialect]
    return MAIN[dialect] if heads else ""


def body(config: TwoStreamConfig, dialect: str, prefix: str) -> list[Rule]:
    """Where the numbers of the model are that has no heads; alike in both dialects."""
    embeddings, encoder = f"{prefix}embeddings.", f"{prefix}encoder."
    return [
        *text_embeddings(embeddings),
        *norm("embed/text/norm", f"{embeddings}LayerNorm"),
        *linear("embed/image/features", f"{encoder}visn_fc.visn_fc"),
        *norm("embed/image/norm", f"{encoder}visn_fc.visn_layer_norm"),
        *linear("embed/image/boxes", f"{encoder}visn_fc.box_fc"),
        *norm("embed/image/box_norm", f"{encoder}visn_fc.box_layer_norm"),
        *bert_layers("text/blocks", f"{encoder}layer.{{i}}"),
        *bert_layers("image/blocks", f"{encoder}r_layers.{{i}}"),
        *_cross(f"{encoder}x_layers.{{i}}."),
        *linear("pooler/text", f"{prefix}pooler.dense"),
    ]


def forms(dialect: str, prefix: str, *, before: str | None = None, objects: Sequence[str] = OBJECTS) -> list[HeadForm]:
    """The heads of the family.

    Args:
        before: what stands before `logit_fc`; None: what does in a file of this prefix.
        objects: those of `OBJECTS` that are there; the first has the transform.
    """
    outer = _outer(dialect, prefix)
    if before is None:
        fine_tuned = outer.endswith(FINE_TUNED)
        before = outer.removesuffix(FINE_TUNED) if fine_tuned else f"{outer}answer_head."
    return [
        words_form(f"{outer}cls.predictions", f"{prefix}embeddings.word_embeddings.weight"),
        linear_form("itm", "pooled", f"{outer}cls.seq_relationship"),
        *(_object(name, objects[0], f"{outer}obj_predict_head") for name in objects),
        answers_form("vqa", "pooled", f"{before}logit_fc"),
        answers_form("nlvr2", "pairs", f"{before}logit_fc"),
    ]


def _outer(dialect: str, prefix: str) -> str:
    return prefix.removesuffix(MAIN[dialect])


def _object(name: str, first: str, theirs: str) -> HeadForm:
    decoder = f"{theirs}.decoder_dict.{name}"
    rules = linear(f"heads/{name}/out", decoder)
    shares = "" if name == first else first
    return HeadForm(
        name=name,
        head=HeadConfig(kind="transform", size=ANY, source="image", shares=shares),
        size_key=f"{decoder}.weight",
        rules=rules if shares else [*rules, *transform(f"heads/{name}", f"{theirs}.transform")],
    )


def config_json(dialect: str, config: TwoStreamConfig, spec: Spec, heads: Mapping[str, HeadConfig]) -> dict[str, Any]:
    """The settings that go with the weights, as far as the model tells them."""
    if dialect == "authors":
        return {"num_attention_heads": config.num_heads}
    sizes = {name: heads[name].size for name in ("vqa", "obj", "attr") if name in heads}
    return {
        **bert_settings(config, spec, architecture(ARCHITECTURES, heads).name, "lxmert"),
        "l_layers": config.num_layers,
        "r_layers": config.image_layers,
        "x_layers": config.num_cross,
        "visual_feat_dim": config.region_dim,
        "visual_pos_dim": config.box_numbers,
        "num_qa_labels": sizes.get("vqa", 2),
        "num_object_labels": sizes.get("obj", 1600),
        "num_attr_labels": sizes.get("attr", 400),
        "task_qa": "vqa" in heads,
        "task_obj_predict": any(name in heads for name in OBJECTS),
        **{f"visual_{name}_loss": name in heads for name in OBJECTS},
    }
