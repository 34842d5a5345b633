"""What a family says of a file: which model it is, and where each of its numbers goes.

Each family is one file here with a function

    def plan(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None) -> Plan | None

which knows its files by the names of what they hold, reads sizes from shapes and from `config.json` (`settings`), and
returns None for any other family's. Where the numbers of such a model are needs no file. It is said by

    def body(config, dialect: str, prefix: str) -> list[Rule]            # without heads
    def forms(dialect: str, prefix: str) -> list[HeadForm]               # every head that there can be
    def standard_prefix(dialect: str, heads: Collection[str]) -> str     # before the keys of a file that has those
    def config_json(dialect: str, config, spec, heads) -> dict[str, Any]
    ARCHITECTURES: tuple[Architecture, ...]                              # of transformers, where it has the family
    def rows(config, heads: Collection[str]) -> dict[str, Any]           # `Plan.rows`, where there are some

of which `plan` makes use for a file, and `tuned.tuned_plan` for a run. A family that is only a start has `plan` alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from singlestream.batch import Spec
from singlestream.interop.rules import Constant, Rules, Tensor, WeightsError
from singlestream.model.answering import answering
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig
from singlestream.model.two_stream_config import TwoStreamConfig

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
LABELS = ("id2label", "label2id")  # names of a head's answers in `config.json`
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
        rows: how the family's rows are made, other than by default: fields of `DataConfig`.
    """

    family: str
    dialect: str
    config: ModelConfig | TwoStreamConfig
    spec: Spec
    heads: Mapping[str, HeadConfig]
    rules: Rules
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    rows: Mapping[str, Any] = dataclasses.field(default_factory=dict)


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


def activation_name(ours: str) -> str:
    """The name for `config.json`, which `activation` reads as `ours`."""
    return next(name for name, known in ACTIVATIONS.items() if known == ours)


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
        attention_dropout=float(settings.get("attention_probs_dropout_prob", 0.1)),
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
        "hidden_act": activation_name(config.activation),
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
    }


def numbered_labels(size: int) -> dict[str, Any]:
    """Labels of a head that nobody named, so that transformers builds it as large."""
    return named_labels([f"LABEL_{i}" for i in range(size)])


def named_labels(names: Sequence[str]) -> dict[str, Any]:
    """`id2label` and `label2id` for the answers of a head, by id."""
    return {"id2label": {str(i): name for i, name in enumerate(names)}, "label2id": {n: i for i, n in enumerate(names)}}


def labels_in(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The names of answers that a `config.json` has."""
    return {name: settings[name] for name in LABELS if name in settings}


def bert_spec(vocab_size: int, heads: Mapping[str, HeadConfig]) -> Spec:
    """The special tokens of BERT's vocabulary: [PAD] 0, [UNK] 100, [CLS] 101, [SEP] 102, [MASK] 103.

    One that is too small for these ids has those of `Spec`.
    """
    answers = answering(heads)
    num_answers = heads[answers].size if answers else 0
    if vocab_size <= 103:
        return Spec(vocab_size=vocab_size, num_answers=num_answers)
    return Spec(
        vocab_size=vocab_size, num_answers=num_answers, pad_id=0, unk_id=100, cls_id=101, sep_id=102, mask_id=103
    )
