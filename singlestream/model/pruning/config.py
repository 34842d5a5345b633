"""Settings of pruning: keys `config.model.pruning.*`. Imports no jax."""

from __future__ import annotations

import dataclasses
from typing import Any

from singlestream.model.attention.config import LEAST_SHARE

CHOICES: dict[str, tuple[str, ...]] = {"method": ("drop", "merge", "mask"), "by": ("text", "all")}
READ_BY_TEXT = ("full", "prefix", "text_to_image", "both")  # directions in which every layer's text reads the image


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruningConfig:
    """Which image tokens the later layers do without. It has no parameters, so any trained model can be given it."""

    keep: float = 1.0  # `drop`, `merge`: share of an example's image tokens that is there after the last of `layers`
    # In which layers, counted from 1, between attention and feed-forward; the share falls by the same ratio in each.
    layers: tuple[int, ...] = (1,)
    method: str = "drop"
    by: str = "text"  # `drop`, `mask`: whose attention ranks the tokens, the `text`'s or that of `all` tokens
    threshold: float = 0.0  # `mask`: hidden is what receives less than this share of an image token's mean attention

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        for name, valid in CHOICES.items():
            if getattr(self, name) not in valid:
                raise ValueError(
                    f"config.model.pruning.{name}={getattr(self, name)!r}: choose one of {', '.join(valid)}"
                )
        if not LEAST_SHARE <= self.keep <= 1:
            raise ValueError(f"config.model.pruning.keep={self.keep}: must be in [{LEAST_SHARE}, 1], 1 keeps all")
        if not 0 <= self.threshold <= 1:
            raise ValueError(
                f"config.model.pruning.threshold={self.threshold}: must be in [0, 1], so that the token with the most "
                "attention always stays"
            )
        if not self.layers or self.layers[0] < 1 or list(self.layers) != sorted(set(self.layers)):
            raise ValueError(
                f"config.model.pruning.layers={self.layers}: must hold numbers of layers from 1 on, each above the last"
            )
        self._check_method()

    @property
    def active(self) -> bool:
        """Whether any token can go."""
        return self.keep < 1 or self.threshold > 0

    def share(self, number: int) -> float:
        """What is left of an example's image tokens after the drop of this number, from 1."""
        return self.keep ** (number / len(self.layers))

    def _check_method(self) -> None:
        at = f"config.model.pruning.method={self.method!r}"
        if self.method == "mask" and self.keep < 1:
            raise ValueError(f"config.model.pruning.keep={self.keep} does not go with {at}: it hides by a threshold")
        if self.method != "mask" and self.threshold:
            raise ValueError(
                f"config.model.pruning.threshold={self.threshold} does not go with {at}, which goes by keep"
            )
        if self.method == "merge" and self.by != "text":
            raise ValueError(
                f"config.model.pruning.by={self.by!r} does not go with {at}: tokens merge by how alike they are"
            )
        if self.method == "merge" and self.share(1) < 0.5:
            raise ValueError(
                f"config.model.pruning.keep={self.keep} does not go with {at} and config.model.pruning.layers="
                f"{self.layers}: one merging at most halves the tokens; name more layers"
            )


def check_pruning(config: Any) -> None:
    """Raises ValueError, one sentence that names both keys, where pruning does not go with a `ModelConfig`."""
    pruning = config.pruning
    if not pruning.active:
        return
    name = "keep" if pruning.keep < 1 else "threshold"
    at = f"config.model.pruning.{name}={getattr(pruning, name)}"
    if config.layers != "unrolled":
        raise ValueError(
            f"{at} does not go with config.model.layers={config.layers!r}: layers of different lengths cannot be "
            "scanned, choose 'unrolled'"
        )
    if pruning.layers[-1] >= config.num_layers:
        raise ValueError(
            f"config.model.pruning.layers={pruning.layers} does not go with config.model.num_layers="
            f"{config.num_layers}: some layer must come after the last of them"
        )
    if config.late_layers:
        raise ValueError(
            f"{at} does not go with config.model.late_layers={config.late_layers}: no image is in the others"
        )
    check_direction(pruning, config.direction)


def check_direction(pruning: PruningConfig, direction: str | None) -> None:
    """Raises ValueError where what stays would hang on attention that this direction rules out."""
    if not pruning.active or direction is None:
        return
    if direction == "causal":
        raise ValueError(
            "config.model.pruning does not go with direction='causal' (of config.model.direction, or of an objective): "
            "what stays for a word would hang on later words, and searches for captions keep every token"
        )
    if pruning.method == "merge" or direction in READ_BY_TEXT:
        return
    if pruning.by == "text" or direction == "image_to_text":
        raise ValueError(
            f"config.model.pruning.by={pruning.by!r} does not go with direction={direction!r}, in which not every "
            "layer's text reads the image: choose by='all' ('bottleneck', 'multi_hop') or method='merge'"
        )
