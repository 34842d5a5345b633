"""What a family says of a file: which model it is, and where each of its numbers goes.

Each family is one file here with a function

    def plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> Plan | None

which knows its files by the names of what they hold, reads sizes from shapes and from `config.json` (`settings`), and
returns None for any other family's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from singlestream.batch import Spec
from singlestream.interop.rules import Constant, Rules, Tensor, WeightsError
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig
from singlestream.model.two_stream_config import TwoStreamConfig

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
HEAD_WIDTH = 64  # of one attention head in every published model, where no config.json says otherwise


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A published model in our terms.

    Attributes:
        family: name of the file in `interop/`.
        dialect: `transformers`, or `authors` for the layout of the paper's own code.
        config, spec, heads: what the model is built from.
        rules: where the numbers go, in both directions.
        settings: `config.json` as transformers wants it back; {} in dialects without one.
        fresh: for a start from a model of one modality, what it cannot have: beginnings of our paths. Such a plan is
            read and not written.
    """

    family: str
    dialect: str
    config: ModelConfig | TwoStreamConfig
    spec: Spec
    heads: Mapping[str, HeadConfig]
    rules: Rules
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fresh: tuple[str, ...] = ()


def legacy(key: str) -> str:
    """LayerNorm's parameters by their TensorFlow names, as files before 2019 have them, by torch's."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if key.endswith(old):
            return key.removesuffix(old) + new
    return key


def prefix_of(keys: Collection[str], known: str) -> str | None:
    """What stands before a key's known end (`embeddings.word_embeddings.weight`); None where no key ends so."""
    found = sorted((key.removesuffix(known) for key in keys if key.endswith(known)), key=len)
    return found[0] if found else None


def count_layers(keys: Collection[str], pattern: str) -> int:
    """How many layers there are: the first i for which `pattern` with {i} is no key."""
    i = 0
    while pattern.replace("{i}", str(i)) in keys:
        i += 1
    return i


def shape_of(tensors: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    """Raises WeightsError where the key is missing that tells a model's size."""
    if key not in tensors:
        raise WeightsError(f"{key} is missing, which tells the model's size")
    return tuple(tensors[key].shape)


def num_heads(settings: Mapping[str, Any] | None, width: int) -> int:
    """From `config.json`, else as many of 64 as the width holds."""
    return int((settings or {}).get("num_attention_heads", max(1, width // HEAD_WIDTH)))


def activation(name: str) -> str:
    """Our name of an activation that `config.json` names.

    Raises:
        WeightsError: there is none.
    """
    if name not in ACTIVATIONS:
        raise WeightsError(f"hidden_act={name!r} is not built here, only {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def kept(tensors: Mapping[str, Tensor], *keys: str) -> list[Constant]:
    """Buffers that a file may hold (`position_ids`), with what it holds: nothing here reads it, and it goes back."""
    return [Constant(key=key, value=tensors[key].read()) for key in keys if key in tensors]


def bert_sizes(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What `ModelConfig` has to know of a model with BERT's text embeddings and layers: sizes from the tensors' shapes.

    Raises:
        WeightsError: a tensor is missing that tells a size, or an activation that is not built here.
    """
    length, width = shape_of(tensors, f"{prefix}embeddings.position_embeddings.weight")
    return dict(
        width=width,
        num_layers=count_layers(tensors, f"{prefix}encoder.layer.{{i}}.output.dense.weight"),
        num_heads=num_heads(settings, width),
        mlp_dim=shape_of(tensors, f"{prefix}encoder.layer.0.intermediate.dense.weight")[0],
        norm="post",
        norm_eps=float(settings.get("layer_norm_eps", 1e-12)),
        activation=activation(settings.get("hidden_act", "gelu")),
        dropout=float(settings.get("hidden_dropout_prob", 0.1)),
        max_text_length=length,
        num_token_types=shape_of(tensors, f"{prefix}embeddings.token_type_embeddings.weight")[0],
        pooler=f"{prefix}pooler.dense.weight" in tensors,
    )


def bert_settings(config: ModelConfig | TwoStreamConfig, spec: Spec, name: str, model_type: str) -> dict[str, Any]:
    """`config.json` for a file that came without one, as far as every family has it alike.

    Args:
        name: of the class in transformers (`ViltModel`).
    """
    return {
        "architectures": [name],
        "model_type": model_type,
        "vocab_size": spec.vocab_size,
        "type_vocab_size": config.num_token_types,
        "max_position_embeddings": config.max_text_length,
        "hidden_size": config.width,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_dim,
        "hidden_act": next(name for name, ours in ACTIVATIONS.items() if ours == config.activation),
        "hidden_dropout_prob": config.dropout,
    }


def numbered_labels(size: int) -> dict[str, Any]:
    """`id2label` and `label2id` for a head whose labels nobody named, so that transformers builds it as large."""
    names = {str(i): f"LABEL_{i}" for i in range(size)}
    return {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}}


def bert_spec(vocab_size: int, heads: Mapping[str, HeadConfig]) -> Spec:
    """The special tokens of BERT's vocabulary: [PAD] 0, [UNK] 100, [CLS] 101, [SEP] 102, [MASK] 103.

    One that is too small for these ids has those of `Spec`.
    """
    num_answers = heads["vqa"].size if "vqa" in heads else 0
    if vocab_size <= 103:
        return Spec(vocab_size=vocab_size, num_answers=num_answers)
    return Spec(
        vocab_size=vocab_size, num_answers=num_answers, pad_id=0, unk_id=100, cls_id=101, sep_id=102, mask_id=103
    )
