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


def bert_spec(vocab_size: int, num_answers: int = 0) -> Spec:
    """Ids of the special tokens in BERT's vocabulary: [PAD] 0, [UNK] 100, [CLS] 101, [SEP] 102, [MASK] 103."""
    if vocab_size <= 103:  # no real vocabulary; tests make such
        return Spec(vocab_size=vocab_size, num_answers=num_answers)
    return Spec(
        vocab_size=vocab_size, num_answers=num_answers, pad_id=0, unk_id=100, cls_id=101, sep_id=102, mask_id=103
    )
