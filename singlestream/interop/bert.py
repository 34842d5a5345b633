"""A start from BERT (Devlin et al. 2019): its text embeddings and layers in a model like VisualBERT, which is BERT with
regions beside the words. What reads the regions stays fresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from singlestream.interop.parts import WORDS, bert_layers, linear, norm, one, text_embeddings, transform
from singlestream.interop.plan import Plan, activation, bert_spec, count_layers, legacy, num_heads, prefix_of, shape_of
from singlestream.interop.rules import Constant, Copy, Rules, Tensor
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig

# Beginnings of all that a BERT has; whatever else a file has makes it another family's.
PARTS = ("embeddings.", "encoder.layer.", "pooler.")
EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm", "position_ids")
TASKS = ("cls.predictions.", "cls.seq_relationship.", "classifier.", "qa_outputs.")


def plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> Plan | None:
    """The plan for a file of BERT and nothing more."""
    prefix = prefix_of(tensors, "embeddings.word_embeddings.weight")
    if prefix is None or not all(_is_bert(key, prefix) for key in tensors):
        return None
    return _plan(tensors, settings or {}, prefix)


def _is_bert(key: str, prefix: str) -> bool:
    if key.startswith(TASKS):
        return True
    inner = key.removeprefix(prefix)
    known = key.startswith(prefix) and inner.startswith(PARTS)
    return known and (not inner.startswith(PARTS[0]) or inner.split(".")[1] in EMBEDDINGS)


def _plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], prefix: str) -> Plan:
    embeddings = f"{prefix}embeddings."
    length, width = shape_of(tensors, f"{embeddings}position_embeddings.weight")
    config = ModelConfig(
        width=width,
        num_layers=count_layers(tensors, f"{prefix}encoder.layer.{{i}}.output.dense.weight"),
        num_heads=num_heads(settings, width),
        mlp_dim=shape_of(tensors, f"{prefix}encoder.layer.0.intermediate.dense.weight")[0],
        norm="post",
        norm_eps=float(settings.get("layer_norm_eps", 1e-12)),
        activation=activation(settings.get("hidden_act", "gelu")),
        embed_norm=True,
        dropout=float(settings.get("hidden_dropout_prob", 0.1)),
        max_text_length=length,
        num_token_types=shape_of(tensors, f"{embeddings}token_type_embeddings.weight")[0],
        modality="image",
        image_stem="regions",
        image_positions="constant",
        pooler=f"{prefix}pooler.dense.weight" in tensors,
    )
    rules = [
        *text_embeddings(embeddings),
        *norm("embed/norm", f"{embeddings}LayerNorm"),
        *bert_layers("encoder/blocks", f"{prefix}encoder.layer.{{i}}"),
        *(linear("pooler/dense", f"{prefix}pooler.dense") if config.pooler else ()),
    ]
    heads: dict[str, HeadConfig] = {}
    copies: list[Copy] = []
    if (bias := "cls.predictions.bias") in tensors:
        heads["mlm"] = HeadConfig(kind="vocabulary", size=shape_of(tensors, bias)[0], source="text")
        rules += [*transform("heads/mlm", "cls.predictions.transform"), one("heads/mlm/bias", bias)]
        words = next(rule.theirs[0] for rule in rules if rule.ours == (WORDS,))
        copies = [
            Copy(key="cls.predictions.decoder.weight", of=words),
            Copy(key="cls.predictions.decoder.bias", of=bias),
        ]
    # Next sentence, and other tasks of text: nothing here is for them.
    unread = [key for key in tensors if key.startswith(TASKS[1:]) or key.endswith("embeddings.position_ids")]
    return Plan(
        family="bert",
        dialect="transformers",
        config=config,
        spec=bert_spec(shape_of(tensors, f"{embeddings}word_embeddings.weight")[0]),
        heads=heads,
        rules=Rules(rules=rules, copies=copies, constants=[Constant(key=legacy(key)) for key in unread]),
        fresh=("embed/image/", "embed/modality/"),
    )
