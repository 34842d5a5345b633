"""Settings of attention: keys `config.model.attention.*`."""

from __future__ import annotations

import dataclasses

from singlestream.model.attention.names import file_names

CHOICES: dict[str, tuple[str, ...]] = {
    "score": file_names("scores"),
    "selection": file_names("selections"),
    "relative": (*file_names("relative"), "none"),
    "graph": ("distance", "edges", "grid", "learned"),
    "implementation": ("auto", "plain"),
}

# Settings that selections have of their own.
READS: dict[str, tuple[str, ...]] = {
    "temperature": ("gumbel",),
    "keep": ("routed", "topk"),
    "block": ("routed",),
    "window": ("graph", "local"),
    "graph": ("graph",),
    "windows": ("multi_scale",),
}

# Scaled dot products of all that is visible.
PLAIN = {"score": "scaled_dot", "selection": "soft", "relative": "none", "head_scale": False}

LEAST_SHARE = 0.001  # a smaller one of what is there is taken for a mistake

TURNED = ("cosine", "dot", "scaled_dot")  # scores that are the same where query and key are turned by one angle


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """How a query scores keys, and which of them it reads. Both are names of files under `model/attention/`."""

    score: str = "scaled_dot"
    selection: str = "soft"
    relative: str = "none"  # what the distance between query and key does; a file under `relative/`
    head_scale: bool = False  # a learned factor for the scores of each head
    qk_norm: bool = False  # a LayerNorm over each head's queries and keys
    temperature: float = 1.0  # `gumbel`: of the softmax whose gradient it takes
    # `topk`: keys a query reads, `routed`: blocks besides its own; below 1 a share of those that can be seen.
    keep: float = 8.0
    block: int = 32  # `routed`: tokens of a block
    window: int = 2  # `local`: how far a token reads; `graph="distance"`: how far distances are told apart
    # `graph`: neighbours (`grid`), the data's (`edges`), learned by `distance` or content (`learned`).
    graph: str = "grid"
    windows: tuple[int, ...] = (1, 3, 0)  # `multi_scale`: of each scale; 0: everything
    implementation: str = "auto"  # `auto` skips what slots of text rule out, `plain` takes the whole matrix

    def __post_init__(self) -> None:
        for name, valid in CHOICES.items():
            if getattr(self, name) not in valid:
                raise ValueError(
                    f"config.model.attention.{name}={getattr(self, name)!r}: choose one of {', '.join(valid)}"
                )
        if self.relative == "rope" and self.score not in TURNED:
            raise ValueError(
                f"config.model.attention.relative='rope' does not go with config.model.attention.score={self.score!r}: "
                "turned queries and keys tell their distance, and not both places, only in a score that stays the "
                f"same where both turn alike, which is one of {', '.join(TURNED)}"
            )
        object.__setattr__(self, "windows", tuple(self.windows))
        self._check_read()
        self._check_selection()

    @property
    def reads_edges(self) -> bool:
        """Whether it goes along edges that come with the batch."""
        return self.selection == "graph" and self.graph == "edges"

    @property
    def plain(self) -> bool:
        """Whether it is scaled dot-product attention to every visible key, as published models have it."""
        return all(getattr(self, name) == value for name, value in PLAIN.items())

    def _check_selection(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"config.model.attention.temperature={self.temperature}: must be above 0")
        if not (LEAST_SHARE <= self.keep < 1 or self.keep == self.keep // 1 >= 1):
            raise ValueError(
                f"config.model.attention.keep={self.keep}: must be a whole number from 1 on, or a share of at least "
                f"{LEAST_SHARE} and below 1"
            )
        for name, least in (("block", 1), ("window", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"config.model.attention.{name}={getattr(self, name)}: must be at least {least}")
        if not self.windows or min(self.windows) < 0:
            raise ValueError(
                f"config.model.attention.windows={self.windows}: must hold at least one window, each 0 or more"
            )

    def _check_read(self) -> None:
        """What nothing reads is refused: whoever set it expects something of it."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, selections in READS.items():
            if getattr(self, name) != defaults[name] and self.selection not in selections:
                raise ValueError(
                    f"config.model.attention.{name}={getattr(self, name)!r} does not go with config.model.attention."
                    f"selection={self.selection!r}, which does not read it: {' and '.join(selections)} "
                    f"{'does' if len(selections) == 1 else 'do'}"
                )
        if self.selection == "graph" and self.graph != "distance" and self.window != defaults["window"]:
            raise ValueError(
                f"config.model.attention.window={self.window} does not go with config.model.attention.graph="
                f"{self.graph!r}, which does not read it: 'distance' does"
            )
        for name, value in PLAIN.items():
            if self.implementation == "plain" and getattr(self, name) != value:
                raise ValueError(
                    f"config.model.attention.implementation='plain' does not go with config.model.attention.{name}="
                    f"{getattr(self, name)!r}: there is a choice only for scaled dot products of all that is visible, "
                    "leave it 'auto'"
                )


def check_kind(
    attention: AttentionConfig, *, image_stem: str, direction: str, within: bool, decoder_layers: int
) -> None:
    """Raises ValueError, one sentence that names both keys, where the kind does not go with the model.

    `within`: whether in some layer a token reads others of its own modality.
    """
    name = f"config.model.attention.selection={attention.selection!r}"
    graph = f"config.model.attention.graph={attention.graph!r}"
    of_places = attention.selection in ("local", "multi_scale")
    if attention.selection == "graph":
        of_places, name = attention.graph in ("distance", "grid"), graph
    if of_places and image_stem == "regions":
        raise ValueError(
            f"{name} does not go with config.model.image_stem='regions' (or with two streams, which read regions): "
            "it goes by rows and columns of patches, which regions have not"
        )
    if name == graph and attention.graph == "edges" and decoder_layers:
        raise ValueError(
            f"{graph} does not go with config.model.decoder_layers={decoder_layers}: the edges number the "
            "tokens of text and image together, which the decoder does not read as one sequence"
        )
    if attention.selection == "routed" and (direction == "causal" or decoder_layers):
        raise ValueError(
            f"{name} does not go with config.model.direction='causal', nor with config.model.decoder_layers: a block "
            "of queries chooses what it reads together, so that a word's choice would hang on later words"
        )
    if not within:
        _check_across(attention, name, direction)


def _check_across(attention: AttentionConfig, name: str, direction: str) -> None:
    """Distances and edges are those of tokens of one modality; a learned graph still tells these from the others."""
    if attention.relative == "rope":
        name = "config.model.attention.relative='rope'"
    elif attention.selection not in ("local", "multi_scale", "graph") or attention.graph in ("distance", "learned"):
        return
    raise ValueError(
        f"{name} does not go with config.model.direction={direction!r}: no token reads another one of its own "
        "modality, and between modalities it changes nothing"
    )
