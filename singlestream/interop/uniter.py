"""UNITER (Chen et al. 2020) in its authors' layout (github.com/ChenRocks/UNITER); transformers has none.

BERT whose regions are LN(LN(W f) + LN(W box of 7) + token type 1). A match is 1 in `itm`. Two parts of a file have no
place here and go back as they came: the embedding of masked regions (`mask_embedding`; a masked region's features are 0
and its row 1, which the caller may put there), and the regression of their features, whose last projection is that of
the features turned round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from singlestream.interop.parts import answers, bert_layers, linear, masked_words, norm, text_embeddings
from singlestream.interop.plan import Plan, bert_sizes, bert_spec, kept, prefix_of, shape_of
from singlestream.interop.rules import Copy, Rule, Rules, Tensor, WeightsError
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig

# Our name -> theirs, and what the head reads. A projection, or with a hidden layer of the model's width.
PROJECTIONS = {
    "itm": ("itm_output", "pooled"),
    "retrieval": ("rank_output", "pooled"),
    "grounding": ("re_output", "image"),
}
HIDDEN = {"objects": ("region_classifier.net", "image"), "grounding": ("re_output", "image")}


def plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> Plan | None:
    """The plan for a UNITER file; `settings` is the authors' `uniter-base.json` under the name config.json."""
    prefix = prefix_of(tensors, "img_embeddings.img_linear.weight")
    if prefix is None or f"{prefix}embeddings.word_embeddings.weight" not in tensors:
        return None
    config = _config(tensors, settings or {}, prefix)
    text, image = f"{prefix}embeddings.", f"{prefix}img_embeddings."
    rules = [
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
    outer = prefix.removesuffix("uniter.")
    heads, copies = _heads(tensors, rules, outer, words=f"{text}word_embeddings.weight")
    regression = f"{outer}feat_regress"
    if f"{regression}.weight" in tensors:
        copies.append(Copy(key=f"{regression}.weight", of=f"{image}img_linear.weight"))
    spare = [key for key in tensors if key.startswith((f"{regression}.net.", f"{regression}.bias"))]
    return Plan(
        family="uniter",
        dialect="authors",
        config=config,
        spec=bert_spec(shape_of(tensors, f"{text}word_embeddings.weight")[0], heads),
        heads=heads,
        rules=Rules(rules=rules, copies=copies, constants=kept(tensors, f"{image}mask_embedding.weight", *spare)),
        settings={"num_attention_heads": config.num_heads, **(settings or {})},
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


def _heads(
    tensors: Mapping[str, Tensor], rules: list[Rule], outer: str, *, words: str
) -> tuple[dict[str, HeadConfig], list[Copy]]:
    """The heads that lie beside the model, their rules added to `rules`."""
    heads: dict[str, HeadConfig] = {}
    copies: list[Copy] = []
    predictions = f"{outer}cls.predictions"
    if f"{predictions}.bias" in tensors:
        heads["mlm"] = HeadConfig(kind="vocabulary", size=shape_of(tensors, f"{predictions}.bias")[0], source="text")
        added, decoder = masked_words("heads/mlm", predictions, words)
        rules += added
        copies += decoder
    for name, (theirs, source) in PROJECTIONS.items():
        if f"{outer}{theirs}.weight" in tensors:
            heads[name] = HeadConfig(size=shape_of(tensors, f"{outer}{theirs}.weight")[0], source=source)
            rules += linear(f"heads/{name}/out", f"{outer}{theirs}")
    for name, (theirs, source) in HIDDEN.items():
        if f"{outer}{theirs}.3.weight" in tensors:
            size = shape_of(tensors, f"{outer}{theirs}.3.weight")[0]
            heads[name] = HeadConfig(kind="transform", size=size, source=source)
            rules += answers(f"heads/{name}", f"{outer}{theirs}")
    if f"{outer}vqa_output.3.weight" in tensors:
        heads["vqa"] = HeadConfig(kind="answers", size=shape_of(tensors, f"{outer}vqa_output.3.weight")[0])
        rules += answers("heads/vqa", f"{outer}vqa_output")
    return heads, copies
