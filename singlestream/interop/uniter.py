"""UNITER (Chen et al. 2020) in its authors' layout (github.com/ChenRocks/UNITER); transformers has none.

BERT whose regions are LN(LN(W f) + LN(W box of 7) + token type 1). A match is 1 in `itm`. Two parts of a file have no
place here and go back as they came: the embedding of masked regions (`mask_embedding`; a masked region's features are 0
and its row 1, which the caller may put there), and the regression of their features, whose last projection is that of
the features turned round.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from singlestream.batch import Spec
from singlestream.interop.forms import HeadForm, answers_form, forms_in, heads_of, join, linear_form, words_form
from singlestream.interop.parts import bert_layers, linear, norm, text_embeddings
from singlestream.interop.plan import Plan, bert_sizes, bert_spec, kept, prefix_of, shape_of
from singlestream.interop.rules import Copy, Rule, Tensor, WeightsError
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig

DIALECT, MAIN = "authors", "uniter."


def plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> Plan | None:
    """The plan for a UNITER file; `settings` is the authors' `uniter-base.json` under the name config.json."""
    prefix = prefix_of(tensors, "img_embeddings.img_linear.weight")
    if prefix is None or f"{prefix}embeddings.word_embeddings.weight" not in tensors:
        return None
    config = _config(tensors, settings or {}, prefix)
    found = forms_in(tensors, forms(DIALECT, prefix))
    heads = heads_of(found)
    spec = bert_spec(shape_of(tensors, f"{prefix}embeddings.word_embeddings.weight")[0], heads)
    regression = f"{prefix.removesuffix(MAIN)}feat_regress"
    turned = Copy(key=f"{regression}.weight", of=f"{prefix}img_embeddings.img_linear.weight")
    spare = [key for key in tensors if key.startswith((f"{regression}.net.", f"{regression}.bias"))]
    constants = kept(tensors, f"{prefix}img_embeddings.mask_embedding.weight", *spare)
    return Plan(
        family="uniter",
        dialect=DIALECT,
        config=config,
        spec=spec,
        heads=heads,
        rules=join(body(config, DIALECT, prefix), found, copies=[turned], constants=constants),
        settings={**config_json(DIALECT, config, spec, heads), **(settings or {})},
    )


def _config(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], prefix: str) -> ModelConfig:
    sizes = bert_sizes(tensors, settings, prefix)
    if sizes["num_token_types"] != 2:
        raise WeightsError(
            f"UNITER with {sizes['num_token_types']} token types, one for each picture of a pair (NLVR2), is not built "
            "here, only with 2"
        )
    return ModelConfig(
        **{**sizes, "norm_eps": 1e-12},  # written into their code
        text_norm=True,
        image_norm="each",
        modality="token_types",
        image_stem="regions",
        image_positions="boxes7",
        region_dim=shape_of(tensors, f"{prefix}img_embeddings.img_linear.weight")[1],
    )


def standard_prefix(dialect: str, heads: Collection[str]) -> str:
    """What stands before the model's keys."""
    return MAIN


def body(config: ModelConfig, dialect: str, prefix: str) -> list[Rule]:
    """Where the numbers of the model are that has no heads."""
    text, image = f"{prefix}embeddings.", f"{prefix}img_embeddings."
    return [
        *text_embeddings(text),
        *norm("embed/text/norm", f"{text}LayerNorm"),
        *linear("embed/image/stem", f"{image}img_linear"),
        *norm("embed/image/content_norm", f"{image}img_layer_norm"),
        *linear("embed/image/position/project", f"{image}pos_linear"),
        *norm("embed/image/position_norm", f"{image}pos_layer_norm"),
        *norm("embed/image/norm", f"{image}LayerNorm"),
        *bert_layers("encoder/blocks", f"{prefix}encoder.layer.{{i}}"),
        *(linear("pooler/dense", f"{prefix}pooler.dense") if config.pooler else ()),
    ]


def forms(dialect: str, prefix: str) -> list[HeadForm]:
    """The heads of the family; `grounding` is a projection, or has a hidden layer of the model's width."""
    outer = prefix.removesuffix(MAIN)
    return [
        words_form(f"{outer}cls.predictions", f"{prefix}embeddings.word_embeddings.weight"),
        linear_form("itm", "pooled", f"{outer}itm_output"),
        linear_form("retrieval", "pooled", f"{outer}rank_output"),
        linear_form("grounding", "image", f"{outer}re_output"),
        answers_form("grounding", "image", f"{outer}re_output", kind="transform"),
        answers_form("objects", "image", f"{outer}region_classifier.net", kind="transform"),
        answers_form("vqa", "pooled", f"{outer}vqa_output"),
    ]


def config_json(dialect: str, config: ModelConfig, spec: Spec, heads: Mapping[str, HeadConfig]) -> dict[str, Any]:
    """The settings that go with the weights, as far as shapes do not tell them."""
    return {"num_attention_heads": config.num_heads}
