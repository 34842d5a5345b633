"""Directions: who may ask whom across the two modalities, `config.model.direction`. Imports no jax.

What each lets a token read is `visibility.Visibility.mask`; here is what follows from it for the rest of a model.
`config` is a `ModelConfig`, whose file imports this one.
"""

from __future__ import annotations

from typing import Any

from singlestream.model.pruning.config import check_direction as check_pruned_direction

DIRECTIONS = ("full", "prefix", "causal", "text_to_image", "image_to_text", "both", "multi_hop", "bottleneck")
HIDE_TEXT = ("prefix", "causal", "text_to_image")  # no picture reads a text: its texts can be computed slot by slot
ONLY_ACROSS = ("text_to_image", "image_to_text", "both")  # no token reads another one of its own modality


def picture_reads_text(config: Any) -> bool:
    """Whether some layer's image tokens read the text; if none does, several texts can share a picture."""
    return config.direction not in HIDE_TEXT and (config.direction != "multi_hop" or config.hops > 1)


def words_meet(config: Any) -> bool:
    """Whether the first token of a text reads the words after it, also where there is no picture."""
    if config.text_encoder != "none":
        return True
    if config.direction == "multi_hop":
        return config.hops < config.num_layers
    return config.direction in ("full", "prefix", "bottleneck")


def reads_within(config: Any) -> bool:
    """Whether in some layer a token reads others of its own modality."""
    if "transformer" in (config.text_encoder, config.image_encoder):
        return True
    if config.direction == "multi_hop":
        return config.hops < config.num_layers
    return config.direction not in ONLY_ACROSS


def text_reads_picture(config: Any) -> bool:
    """Whether anything of a picture reaches its text by the layers on both."""
    if config.direction == "bottleneck":  # first into the bottlenecks, then out of them
        return config.num_layers > 1
    return config.num_layers > 0 and config.direction != "image_to_text"


def reading_layers(config: Any) -> list[int]:
    """The layers on both, counted from 1, in which text tokens themselves read image tokens."""
    if config.direction in ("image_to_text", "bottleneck"):
        return []
    if config.direction == "multi_hop":  # in the last layer, the last but two, ... of those that go across
        return [*range(config.num_layers, config.num_layers - config.hops, -2)][::-1]
    first = config.num_layers if config.late_layers else 0
    return [*range(first + 1, config.depth + 1)]


def check_direction(config: Any) -> None:
    """Raises ValueError, with the keys and why, for settings of a direction that make no sense."""
    at = f"config.model.direction={config.direction!r}"
    for name, wants in (("hops", "multi_hop"), ("bottlenecks", "bottleneck")):
        if (config.direction == wants) != (getattr(config, name) > 0):
            raise ValueError(
                f"{at} with config.model.{name}={getattr(config, name)}: {wants!r} needs at least 1 of them, and no "
                "other direction has any"
            )
    if config.hops > config.num_layers:
        raise ValueError(
            f"config.model.hops={config.hops} is more than config.model.num_layers={config.num_layers}: each hop is a "
            "layer"
        )
    if config.late_layers and config.direction not in ("full", "prefix", "causal"):
        raise ValueError(
            f"config.model.late_layers={config.late_layers} does not go with {at}: for layers of the text alone before "
            "it set config.model.text_encoder='transformer'"
        )
    if not config.num_layers and config.direction not in ("full", "prefix"):
        raise ValueError(f"{at} with config.model.num_layers=0: no layer on both is there for it to rule")
    if config.decoder_layers and config.direction in (*ONLY_ACROSS, "multi_hop"):
        raise ValueError(
            f"config.model.decoder_layers={config.decoder_layers} does not go with {at}: the encoder then reads the "
            "picture alone, and its tokens would not read each other"
        )
    if config.image_cls and not picture_reads_text(config):
        raise ValueError(
            f"config.model.image_cls=True does not go with {at}: texts that share a picture have no class token of "
            "their own"
        )
    check_call(config, config.direction)


def check_call(config: Any, direction: str | None) -> None:
    """Raises ValueError for a direction, other than the settings' own, that such a model cannot be read in."""
    for wants, name in (("bottleneck", "bottlenecks"), ("multi_hop", "hops")):
        if direction == wants and not getattr(config, name):
            raise ValueError(f"direction={direction!r}, but the model has none (config.model.{name}=0)")
    if direction == "causal" and config.text_encoder != "none":
        raise ValueError(
            f"config.model.text_encoder={config.text_encoder!r} does not go with direction='causal' (of config.model."
            "direction, or of an objective): it reads a text from both sides"
        )
    check_pruned_direction(config.pruning, direction)


def check_pooling(config: Any) -> None:
    """Raises ValueError where the vector of an example would lack the picture or the words."""
    if config.join == "none" and not text_reads_picture(config):
        raise ValueError(
            f"config.model.join='none' does not go with config.model.direction={config.direction!r} and config.model."
            f"num_layers={config.num_layers}: the text, from which alone it pools, learns nothing of the picture; "
            "choose how both are joined"
        )
    by_the_picture = config.num_layers > 1 and (config.direction == "both" or config.hops > 1)
    if config.pooling == "cls" and not words_meet(config) and not by_the_picture and config.direction != "causal":
        raise ValueError(
            f"config.model.pooling='cls' does not go with config.model.direction={config.direction!r}: the first token "
            "reads no other word; choose 'mean', or a config.model.text_encoder"
        )
