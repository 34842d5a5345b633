"""Settings of attention: keys `config.model.attention.*`."""

from __future__ import annotations

import dataclasses

from singlestream.model.attention.names import file_names

CHOICES: dict[str, tuple[str, ...]] = {
    "score": file_names("scores"),
    "selection": file_names("selections"),
    "implementation": ("auto", "plain"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """How a query scores keys, and which of them it reads. Both are names of files under `model/attention/`."""

    score: str = "scaled_dot"
    selection: str = "soft"
    head_scale: bool = False  # a learned factor for the scores of each head
    qk_norm: bool = False  # a LayerNorm over each head's queries and keys
    implementation: str = "auto"  # `auto` skips what slots of text rule out, `plain` takes the whole matrix

    def __post_init__(self) -> None:
        for name, valid in CHOICES.items():
            if getattr(self, name) not in valid:
                raise ValueError(
                    f"config.model.attention.{name}={getattr(self, name)!r}: choose one of {', '.join(valid)}"
                )
