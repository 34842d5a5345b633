"""Rules that several families share: embeddings of a text, layers as BERT and as ViT name them, poolers and heads."""

from __future__ import annotations

import dataclasses

import numpy as np

from singlestream.interop.rules import (
    FUSED_BIAS,
    FUSED_KERNEL,
    LINEAR,
    QKV_BIAS,
    QKV_KERNEL,
    SAME,
    Layout,
    Rule,
)

WORDS = "embed/text/token/embedding"


def one(ours: str, theirs: str, layout: Layout = SAME) -> Rule:
    return Rule(ours=(ours,), theirs=(theirs,), layout=layout)


def linear(ours: str, theirs: str) -> list[Rule]:
    """A projection with its bias."""
    return [one(f"{ours}/kernel", f"{theirs}.weight", LINEAR), one(f"{ours}/bias", f"{theirs}.bias")]


def norm(ours: str, theirs: str) -> list[Rule]:
    """A LayerNorm."""
    return [one(f"{ours}/scale", f"{theirs}.weight"), one(f"{ours}/bias", f"{theirs}.bias")]


def qkv(ours: str, theirs: str, names: tuple[str, str, str] = ("query", "key", "value")) -> list[Rule]:
    """Three projections that are one array here."""
    return [
        Rule(ours=(f"{ours}/kernel",), theirs=tuple(f"{theirs}.{n}.weight" for n in names), layout=QKV_KERNEL),
        Rule(ours=(f"{ours}/bias",), theirs=tuple(f"{theirs}.{n}.bias" for n in names), layout=QKV_BIAS),
    ]


def fused_qkv(ours: str, theirs: str) -> list[Rule]:
    """One projection for all three, as timm has it."""
    return [one(f"{ours}/kernel", f"{theirs}.weight", FUSED_KERNEL), one(f"{ours}/bias", f"{theirs}.bias", FUSED_BIAS)]


def text_embeddings(theirs: str) -> list[Rule]:
    """BERT's three tables."""
    return [
        one(WORDS, f"{theirs}word_embeddings.weight"),
        one("embed/text/position/embedding", f"{theirs}position_embeddings.weight"),
        one("embed/text/type/embedding", f"{theirs}token_type_embeddings.weight"),
    ]


def bert_layers(ours: str, theirs: str) -> list[Rule]:
    """BERT's layers, `theirs` up to the number: `encoder.layer.{i}`."""
    return [
        *qkv(f"{ours}/attention", f"{theirs}.attention.self"),
        *linear(f"{ours}/attention/out", f"{theirs}.attention.output.dense"),
        *norm(f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm"),
        *linear(f"{ours}/mlp/up", f"{theirs}.intermediate.dense"),
        *linear(f"{ours}/mlp/down", f"{theirs}.output.dense"),
        *norm(f"{ours}/mlp_norm", f"{theirs}.output.LayerNorm"),
    ]


def stack_of_one(rule: Rule) -> Rule:
    """The rule of one layer that is a stack of layers here."""
    inner = rule.layout
    layout = Layout(
        read=lambda *theirs: tuple(array[None] for array in inner.read(*theirs)),
        write=lambda *ours: inner.write(*(array[0] for array in ours)),
    )
    return dataclasses.replace(rule, layout=layout)


def vit_layers(ours: str, theirs: str) -> list[Rule]:
    """ViT's layers as transformers names them."""
    return [
        *qkv(f"{ours}/attention", f"{theirs}.attention.attention"),
        *linear(f"{ours}/attention/out", f"{theirs}.attention.output.dense"),
        *norm(f"{ours}/attention_norm", f"{theirs}.layernorm_before"),
        *linear(f"{ours}/mlp/up", f"{theirs}.intermediate.dense"),
        *linear(f"{ours}/mlp/down", f"{theirs}.output.dense"),
        *norm(f"{ours}/mlp_norm", f"{theirs}.layernorm_after"),
    ]


def timm_layers(ours: str, theirs: str) -> list[Rule]:
    """ViT's layers as timm names them: `blocks.{i}`."""
    return [
        *fused_qkv(f"{ours}/attention", f"{theirs}.attn.qkv"),
        *linear(f"{ours}/attention/out", f"{theirs}.attn.proj"),
        *norm(f"{ours}/attention_norm", f"{theirs}.norm1"),
        *linear(f"{ours}/mlp/up", f"{theirs}.mlp.fc1"),
        *linear(f"{ours}/mlp/down", f"{theirs}.mlp.fc2"),
        *norm(f"{ours}/mlp_norm", f"{theirs}.norm2"),
    ]


def transform(ours: str, theirs: str) -> list[Rule]:
    """Dense layer and LayerNorm before a decoder (BertPredictionHeadTransform)."""
    return [*linear(f"{ours}/hidden", f"{theirs}.dense"), *norm(f"{ours}/norm", f"{theirs}.LayerNorm")]


def patches(size: int) -> Layout:
    """The projection of patches: torch's convolution [D, 3, P, P] is one matrix [P * P * 3, D] here."""
    return Layout(
        read=lambda x: (x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),),
        write=lambda x: (x.reshape(size, size, 3, -1).transpose(3, 2, 0, 1),),
    )


SQUEEZE = Layout(read=lambda x: (x[0, 0],), write=lambda x: (x[None, None],))  # [1, 1, D]


def class_and_grid(rows: int, columns: int) -> Layout:
    """ViT's positions [1, 1 + R * C, D]: the class token's, and the grid's."""
    return Layout(
        read=lambda x: (x[0, 0], x[0, 1:].reshape(rows, columns, -1)),
        write=lambda cls, grid: (np.concatenate([cls[None], grid.reshape(rows * columns, -1)])[None],),
    )
