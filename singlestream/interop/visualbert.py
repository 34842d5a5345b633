"""VisualBERT (Li et al. 2019): transformers' files and those of its authors (github.com/uclanlp/visualbert).

One LayerNorm after text and regions are side by side; regions have token types of their own, which transformers
numbers from 1 and the authors from 0 (`config.model.first_image_type`), and all of them the position 0, since
alignments with words are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from singlestream.batch import Spec
from singlestream.interop.parts import bert_layers, linear, masked_words, norm, one, text_embeddings
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
from singlestream.interop.rules import Copy, Rule, Rules, Tensor, WeightsError
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig

# Which head a single `classifier` (authors) or `cls` (transformers) is, by what it gives.
CHOICE, REASONING = 1, 2

# transformers' and the authors' names of the regions' three parts.
NAMES = {
    "transformers": ("visual_projection", "visual_token_type_embeddings", "visual_position_embeddings"),
    "authors": ("projection", "token_type_embeddings_visual", "position_embeddings_visual"),
}


def plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> Plan | None:
    """The plan for a VisualBERT file of either dialect."""
    for dialect, (projection, _, _) in NAMES.items():
        prefix = prefix_of(tensors, f"embeddings.{projection}.weight")
        if prefix is not None and f"{prefix}embeddings.word_embeddings.weight" in tensors:
            return _plan(tensors, settings or {}, dialect, prefix)
    return None


def _plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], dialect: str, prefix: str) -> Plan:
    if settings.get("bypass_transformer") or f"{prefix}additional_layer.output.dense.weight" in tensors:
        raise WeightsError("VisualBERT with bypass_transformer (late fusion by one more layer) is not built here")
    config = _config(tensors, settings, dialect, prefix)
    embeddings = f"{prefix}embeddings."
    projection, types, positions = NAMES[dialect]
    rules = [
        *text_embeddings(embeddings),
        *linear("embed/image/stem", f"{embeddings}{projection}"),
        one("embed/modality/table/embedding", f"{embeddings}{types}.weight"),
        one("embed/image/position/table", f"{embeddings}{positions}.weight"),
        *norm("embed/norm", f"{embeddings}LayerNorm"),
        *bert_layers("encoder/blocks", f"{prefix}encoder.layer.{{i}}"),
        *(linear("pooler/dense", f"{prefix}pooler.dense") if config.pooler else ()),
    ]
    outer = "" if dialect == "transformers" else prefix.removesuffix("bert.")
    heads, copies = _heads(tensors, rules, settings, dialect, outer, words=f"{embeddings}word_embeddings.weight")
    spec = bert_spec(shape_of(tensors, f"{embeddings}word_embeddings.weight")[0], heads)
    return Plan(
        family="visualbert",
        dialect=dialect,
        config=config,
        spec=spec,
        heads=heads,
        rules=Rules(rules=rules, copies=copies, constants=kept(tensors, f"{embeddings}position_ids")),
        settings=settings or (_settings(config, spec, heads) if dialect == "transformers" else {}),
    )


def _config(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], dialect: str, prefix: str) -> ModelConfig:
    return ModelConfig(
        **bert_sizes(tensors, settings, prefix),
        embed_norm=True,
        modality="image",
        first_image_type=1 if dialect == "transformers" else 0,
        num_images=1 if dialect == "transformers" else 2,
        image_stem="regions",
        region_dim=shape_of(tensors, f"{prefix}embeddings.{NAMES[dialect][0]}.weight")[1],
        image_positions="constant",
    )


def _heads(
    tensors: Mapping[str, Tensor],
    rules: list[Rule],
    settings: Mapping[str, Any],
    dialect: str,
    outer: str,
    *,
    words: str,
) -> tuple[dict[str, HeadConfig], list[Copy]]:
    heads: dict[str, HeadConfig] = {}
    copies: list[Copy] = []
    predictions = f"{outer}cls.predictions"
    if f"{predictions}.bias" in tensors:
        heads["mlm"] = HeadConfig(kind="vocabulary", size=shape_of(tensors, f"{predictions}.bias")[0], source="text")
        heads["itm"] = HeadConfig(size=shape_of(tensors, f"{outer}cls.seq_relationship.weight")[0])
        added, copies = masked_words("heads/mlm", predictions, words)
        rules += [*added, *linear("heads/itm/out", f"{outer}cls.seq_relationship")]
    attention = "attention" if dialect == "transformers" else f"{outer}flickr_attention"
    if f"{attention}.query.weight" in tensors:
        size = shape_of(tensors, f"{attention}.query.weight")[0]
        heads["phrase"] = HeadConfig(kind="regions", size=size, source="text")
        for part in ("query", "key", "value"):
            rules += linear(f"heads/phrase/{part}", f"{attention}.{part}")
    output = "cls" if dialect == "transformers" else f"{outer}classifier"
    if f"{output}.weight" in tensors:
        size = shape_of(tensors, f"{output}.weight")[0]
        name = _task(settings, size)
        heads[name] = HeadConfig(size=size, source="second_last" if name == "vqa" else "pooled")
        rules += linear(f"heads/{name}/out", output)
    return heads, copies


ARCHITECTURES = {
    "phrase": "VisualBertForRegionToPhraseAlignment",
    "mlm": "VisualBertForPreTraining",
    "vqa": "VisualBertForQuestionAnswering",
    "nlvr2": "VisualBertForVisualReasoning",
    "choice": "VisualBertForMultipleChoice",
}


def _settings(config: ModelConfig, spec: Spec, heads: Mapping[str, HeadConfig]) -> dict[str, Any]:
    """config.json where the file had none."""
    kind = next((kind for head, kind in ARCHITECTURES.items() if head in heads), "VisualBertModel")
    task = next((head for name, head in heads.items() if name in ("vqa", "nlvr2")), None)
    return {
        **bert_settings(config, spec, kind, "visual_bert"),
        "num_hidden_layers": config.num_layers,
        "layer_norm_eps": config.norm_eps,
        "visual_embedding_dim": config.region_dim,
        **(numbered_labels(task.size) if task else {}),
    }


def _task(settings: Mapping[str, Any], size: int) -> str:
    """Which task a plain linear output is for; the file does not say, its size and `architectures` do."""
    for architecture in settings.get("architectures") or ():
        if "VisualReasoning" in architecture:
            return "nlvr2"
    return {CHOICE: "choice", REASONING: "nlvr2"}.get(size, "vqa")
