"""LXMERT (Tan & Bansal 2019): transformers' files and those of its authors (github.com/airsplay/lxmert).

The two name the same things alike but for what stands before: `lxmert.` and `bert.`, and in the authors' fine-tuned
models `lxrt_encoder.model.bert.`, beside a `logit_fc` that is one of VQA and GQA, or reads a pair of pictures (NLVR2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from singlestream.batch import Spec
from singlestream.interop.parts import answers, bert_layers, linear, masked_words, norm, qkv, text_embeddings, transform
from singlestream.interop.plan import (
    Plan,
    activation,
    bert_settings,
    bert_spec,
    count_layers,
    kept,
    num_heads,
    prefix_of,
    shape_of,
)
from singlestream.interop.rules import Copy, Rule, Rules, Tensor, WeightsError
from singlestream.model.heads import HeadConfig
from singlestream.model.two_stream_config import TwoStreamConfig

BOX = 4
OBJECTS = ("attr", "feat", "obj")  # what a masked region is asked: attribute, feature, class; one transform for all
MAIN = {"transformers": "lxmert.", "authors": "bert."}


def plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> Plan | None:
    """The plan for an LXMERT file of either dialect."""
    prefix = prefix_of(tensors, "encoder.x_layers.0.visual_attention.att.query.weight")
    if prefix is None:
        return None
    dialect = "authors" if prefix.endswith(MAIN["authors"]) else "transformers"
    config = _config(tensors, settings or {}, prefix)
    embeddings, encoder = f"{prefix}embeddings.", f"{prefix}encoder."
    rules = [
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
    heads, copies = _heads(tensors, rules, prefix, prefix.removesuffix(MAIN[dialect]))
    spec = bert_spec(shape_of(tensors, f"{embeddings}word_embeddings.weight")[0], heads)
    written = settings or _settings(config, spec, heads)
    return Plan(
        family="lxmert",
        dialect=dialect,
        config=config,
        spec=spec,
        heads=heads,
        rules=Rules(rules=rules, copies=copies, constants=kept(tensors, f"{embeddings}position_ids")),
        settings=written if dialect == "transformers" else {"num_attention_heads": config.num_heads},
    )


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


def _heads(
    tensors: Mapping[str, Tensor], rules: list[Rule], prefix: str, outer: str
) -> tuple[dict[str, HeadConfig], list[Copy]]:
    """The heads that lie beside the model, their rules added to `rules`."""
    heads: dict[str, HeadConfig] = {}
    copies: list[Copy] = []
    predictions = f"{outer}cls.predictions"
    if f"{predictions}.bias" in tensors:
        heads["mlm"] = HeadConfig(kind="vocabulary", size=shape_of(tensors, f"{predictions}.bias")[0], source="text")
        heads["itm"] = HeadConfig(size=shape_of(tensors, f"{outer}cls.seq_relationship.weight")[0])
        added, decoder = masked_words("heads/mlm", predictions, f"{prefix}embeddings.word_embeddings.weight")
        rules += [*added, *linear("heads/itm/out", f"{outer}cls.seq_relationship")]
        copies += decoder
    objects = f"{outer}obj_predict_head"
    found = [name for name in OBJECTS if f"{objects}.decoder_dict.{name}.weight" in tensors]
    for name in found:
        size = shape_of(tensors, f"{objects}.decoder_dict.{name}.weight")[0]
        shares = "" if name == found[0] else found[0]
        heads[name] = HeadConfig(kind="transform", size=size, source="image", shares=shares)
        rules += linear(f"heads/{name}/out", f"{objects}.decoder_dict.{name}")
    if found:
        rules += transform(f"heads/{found[0]}", f"{objects}.transform")
    before = prefix_of(tensors, "logit_fc.0.weight")
    if before is not None:
        hidden, into = shape_of(tensors, f"{before}logit_fc.0.weight")
        name, source = ("nlvr2", "pairs") if into == hidden else ("vqa", "pooled")
        size = shape_of(tensors, f"{before}logit_fc.3.weight")[0]
        heads[name] = HeadConfig(kind="answers", size=size, source=source)
        rules += answers(f"heads/{name}", f"{before}logit_fc")
    return heads, copies


def _settings(config: TwoStreamConfig, spec: Spec, heads: Mapping[str, HeadConfig]) -> dict[str, Any]:
    """config.json where the file had none."""
    kind = "ForPreTraining" if "mlm" in heads else "ForQuestionAnswering" if "vqa" in heads else "Model"
    sizes = {name: heads[name].size for name in ("vqa", "obj", "attr") if name in heads}
    return {
        **bert_settings(config, spec, f"Lxmert{kind}", "lxmert"),
        "attention_probs_dropout_prob": config.dropout,
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
