"""A start from BERT (Devlin et al. 2019): its text embeddings and layers in a model like VisualBERT, which is BERT with
regions beside the words. What reads the regions stays fresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from singlestream.interop.forms import forms_in, heads_of, join, words_form
from singlestream.interop.parts import bert_layers, linear, norm, text_embeddings
from singlestream.interop.plan import Plan, bert_sizes, bert_spec, legacy, prefix_of, shape_of
from singlestream.interop.rules import Constant, Tensor
from singlestream.model.config import ModelConfig

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
    config = ModelConfig(
        **bert_sizes(tensors, settings, prefix),
        embed_norm=True,
        modality="image",
        image_stem="regions",
        image_positions="constant",
    )
    body = [
        *text_embeddings(embeddings),
        *norm("embed/norm", f"{embeddings}LayerNorm"),
        *bert_layers("encoder/blocks", f"{prefix}encoder.layer.{{i}}"),
        *(linear("pooler/dense", f"{prefix}pooler.dense") if config.pooler else ()),
    ]
    found = forms_in(tensors, [words_form("cls.predictions", f"{embeddings}word_embeddings.weight")])
    heads = heads_of(found)
    # Next sentence, and other tasks of text: nothing here is for them.
    unread = [key for key in tensors if key.startswith(TASKS[1:]) or key.endswith("embeddings.position_ids")]
    return Plan(
        family="bert",
        dialect="transformers",
        config=config,
        spec=bert_spec(shape_of(tensors, f"{embeddings}word_embeddings.weight")[0], heads),
        heads=heads,
        rules=join(body, found, constants=[Constant(key=legacy(key)) for key in unread]),
        fresh=("embed/image/", "embed/modality/"),
    )
