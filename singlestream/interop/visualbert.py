"""VisualBERT (Li et al. 2019): transformers' files and those of its authors (github.com/uclanlp/visualbert).

One LayerNorm after text and regions are side by side; regions have token types of their own, which transformers
numbers from 1 and the authors from 0 (`config.model.first_image_type`), and all of them the position 0, to which
alignments add those of their words (`Regions.words`, `image_text_alignment` there). With `bypass_transformer` regions
enter after the layers of the text, in one more (`config.model.late_layers`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from singlestream.batch import Spec
from singlestream.interop.forms import (
    ANY,
    Architecture,
    HeadForm,
    architecture,
    forms_in,
    heads_of,
    join,
    linear_form,
    words_form,
)
from singlestream.interop.parts import bert_layers, linear, norm, one, stack_of_one, text_embeddings
from singlestream.interop.plan import (
    Plan,
    bert_settings,
    bert_sizes,
    bert_spec,
    kept,
    numbered_labels,
    prefix_of,
    shape_of,
)
from singlestream.interop.rules import Rule, Tensor
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig

# Three tasks have one key, `classifier` (authors) or `cls` (transformers). Which it is is told by the authors'
# `training_head_type` or by transformers' `architectures`, else by what it gives.
TASKS = {"vqa", "nlvr2", "choice"}
HEAD_TYPES = {"vqa": "vqa", "nlvr2": "nlvr", "choice": "multichoice", "phrase": "flickr", "mlm": "pretraining"}
CHOICE, REASONING = 1, 2

# transformers' and the authors' names of the regions' three parts.
NAMES = {
    "transformers": ("visual_projection", "visual_token_type_embeddings", "visual_position_embeddings"),
    "authors": ("projection", "token_type_embeddings_visual", "position_embeddings_visual"),
}

ARCHITECTURES = (
    Architecture(name="VisualBertForRegionToPhraseAlignment", heads=("phrase", "mlm", "itm")),
    Architecture(name="VisualBertForQuestionAnswering", heads=("vqa",)),
    Architecture(name="VisualBertForVisualReasoning", heads=("nlvr2",)),
    Architecture(name="VisualBertForMultipleChoice", heads=("choice",)),
    Architecture(name="VisualBertForPreTraining", heads=("mlm", "itm")),
    Architecture(name="VisualBertModel"),
)


def plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> Plan | None:
    """The plan for a VisualBERT file of either dialect."""
    for dialect, (projection, _, _) in NAMES.items():
        prefix = prefix_of(tensors, f"embeddings.{projection}.weight")
        if prefix is not None and f"{prefix}embeddings.word_embeddings.weight" in tensors:
            return _plan(tensors, settings or {}, dialect, prefix)
    return None


def _plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], dialect: str, prefix: str) -> Plan:
    config = _config(tensors, settings, dialect, prefix)
    found = forms_in(tensors, forms(dialect, prefix))
    sizes = heads_of(found)
    if TASKS <= sizes.keys():  # of one key: the file has one of them
        task = _task(settings, sizes["vqa"].size)
        found = [form for form in found if form.name not in TASKS - {task}]
    heads = heads_of(found)
    embeddings = f"{prefix}embeddings."
    spec = bert_spec(shape_of(tensors, f"{embeddings}word_embeddings.weight")[0], heads)
    return Plan(
        family="visualbert",
        dialect=dialect,
        config=config,
        spec=spec,
        heads=heads,
        rules=join(body(config, dialect, prefix), found, constants=kept(tensors, f"{embeddings}position_ids")),
        settings=settings or config_json(dialect, config, spec, heads),
        rows=rows(config, heads),
    )


def _config(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], dialect: str, prefix: str) -> ModelConfig:
    bypass = settings.get("bypass_transformer") or f"{prefix}additional_layer.output.dense.weight" in tensors
    return ModelConfig(
        late_layers=int(bool(bypass)),
        **bert_sizes(tensors, settings, prefix),
        embed_norm=True,
        modality="image",
        first_image_type=1 if dialect == "transformers" else 0,
        num_images=1 if dialect == "transformers" else 2,
        image_stem="regions",
        region_dim=shape_of(tensors, f"{prefix}embeddings.{NAMES[dialect][0]}.weight")[1],
        image_positions="constant",
    )


def _task(settings: Mapping[str, Any], size: int) -> str:
    """Which of `TASKS` a plain linear output is for."""
    told = (settings.get("training_head_type"), *(settings.get("architectures") or ()))
    kinds = {each.name: each.heads[0] for each in ARCHITECTURES if each.heads}
    names = {**kinds, **{theirs: ours for ours, theirs in HEAD_TYPES.items()}}
    by_size = {CHOICE: "choice", REASONING: "nlvr2"}.get(size, "vqa")
    return next((names[name] for name in told if names.get(name) in TASKS), by_size)


def rows(config: ModelConfig, heads: Collection[str]) -> dict[str, Any]:
    """A question ends with a [MASK], where its answer is read."""
    return {"mask_last": True} if "vqa" in heads else {}


def standard_prefix(dialect: str, heads: Collection[str]) -> str:
    """What stands before a model's keys where it has these heads."""
    return {"transformers": "visual_bert." if heads else "", "authors": "bert.bert."}[dialect]


def body(config: ModelConfig, dialect: str, prefix: str) -> list[Rule]:
    """Where the numbers of the model are that has no heads."""
    embeddings, late = f"{prefix}embeddings.", f"{prefix}additional_layer"
    projection, types, positions = NAMES[dialect]
    return [
        *text_embeddings(embeddings),
        *linear("embed/image/stem", f"{embeddings}{projection}"),
        one("embed/modality/table/embedding", f"{embeddings}{types}.weight"),
        one("embed/image/position/table", f"{embeddings}{positions}.weight"),
        *norm("embed/norm", f"{embeddings}LayerNorm"),
        *bert_layers("encoder/blocks", f"{prefix}encoder.layer.{{i}}"),
        *(map(stack_of_one, bert_layers("encoder/late/blocks", late)) if config.late_layers else ()),
        *(linear("pooler/dense", f"{prefix}pooler.dense") if config.pooler else ()),
    ]


def forms(dialect: str, prefix: str) -> list[HeadForm]:
    """The heads of the family; three tasks have one key."""
    outer = "" if dialect == "transformers" else prefix.removesuffix("bert.")
    attention, output = (
        ("attention", "cls") if dialect == "transformers" else (f"{outer}flickr_attention", f"{outer}classifier")
    )
    return [
        words_form(f"{outer}cls.predictions", f"{prefix}embeddings.word_embeddings.weight"),
        linear_form("itm", "pooled", f"{outer}cls.seq_relationship"),
        HeadForm(
            name="phrase",
            head=HeadConfig(kind="regions", size=ANY, source="text"),
            size_key=f"{attention}.query.weight",
            rules=[rule for n in ("query", "key", "value") for rule in linear(f"heads/phrase/{n}", f"{attention}.{n}")],
        ),
        linear_form("vqa", "second_last", output),
        linear_form("nlvr2", "pooled", output),
        linear_form("choice", "pooled", output),
    ]


def config_json(dialect: str, config: ModelConfig, spec: Spec, heads: Mapping[str, HeadConfig]) -> dict[str, Any]:
    """The settings that go with the weights, as far as the model tells them."""
    if dialect == "authors":
        kinds = [theirs for ours, theirs in HEAD_TYPES.items() if ours in heads]
        return {"num_attention_heads": config.num_heads, **({"training_head_type": kinds[0]} if kinds else {})}
    kind = architecture(ARCHITECTURES, heads)
    labelled = next((heads[name] for name in kind.heads if name in ("vqa", "nlvr2")), None)
    return {
        **bert_settings(config, spec, kind.name, "visual_bert"),
        "num_hidden_layers": config.num_layers,
        "layer_norm_eps": config.norm_eps,
        "visual_embedding_dim": config.region_dim,
        "bypass_transformer": bool(config.late_layers),
        **(numbered_labels(labelled.size) if labelled else {}),
    }
