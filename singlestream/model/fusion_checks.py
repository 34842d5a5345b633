"""Which encoders of one modality, gates and layers on both go together. Imports no jax.

`config` is a `ModelConfig`, whose file imports this one.
"""

from __future__ import annotations

from typing import Any


def check_fusion(config: Any) -> None:
    """Raises ValueError, with the keys and why, for settings of fusion that make no sense."""
    for side in ("text", "image"):
        name, layers = getattr(config, f"{side}_encoder"), getattr(config, f"{side}_layers")
        if (name != "none") != (layers > 0):
            raise ValueError(
                f"config.model.{side}_encoder={name!r} with config.model.{side}_layers={layers}: an encoder needs at "
                "least 1 layer, and 'none' has 0"
            )
        if name != "none" and config.late_layers:
            raise ValueError(
                f"config.model.{side}_encoder={name!r} does not go with config.model.late_layers={config.late_layers}: "
                "both put layers before those on text and image, choose one"
            )
    if not config.num_layers and "none" in (config.text_encoder, config.image_encoder):
        raise ValueError(
            f"config.model.num_layers=0 is late fusion, which needs config.model.text_encoder (here "
            f"{config.text_encoder!r}) and config.model.image_encoder (here {config.image_encoder!r}): nothing else "
            "would read a text or a picture"
        )
    attends = config.num_layers or config.decoder_layers or "transformer" in (config.text_encoder, config.image_encoder)
    if not attends and config.attention != type(config.attention)():
        raise ValueError(
            "config.model.attention is set and nothing reads it: config.model.num_layers=0, and neither config.model."
            f"text_encoder={config.text_encoder!r} nor config.model.image_encoder={config.image_encoder!r} attends; "
            "leave it out"
        )
    if config.text_encoder == "lstm" and config.width % 2:
        raise ValueError(
            f"config.model.width={config.width} is odd: config.model.text_encoder='lstm' has half of it from each side"
        )
    if config.image_encoder == "cnn" and config.image_stem == "regions":
        raise ValueError(
            "config.model.image_encoder='cnn' does not go with config.model.image_stem='regions': they lie in no grid"
        )
    _check_gate(config)
    _check_audio(config)


def _check_gate(config: Any) -> None:
    gate = f"config.model.channel_gate={config.channel_gate}"
    if config.channel_gate > config.width:
        raise ValueError(f"{gate} is more than config.model.width={config.width}, which it divides")
    if config.channel_gate and config.direction in ("multi_hop", "bottleneck"):
        raise ValueError(
            f"{gate} does not go with config.model.direction={config.direction!r}: the gates read both modalities "
            "before the layers that keep them apart"
        )
    if config.channel_gate and config.late_layers:
        raise ValueError(
            f"{gate} does not go with config.model.late_layers={config.late_layers}: the gates read both modalities "
            "before the layers of the text alone"
        )


def _check_audio(config: Any) -> None:
    """Audio tokens are read by the layers on all modalities alone, and learned of through the text."""
    if not config.audio_dim:
        return
    audio = f"config.model.audio_dim={config.audio_dim}"
    if config.decoder_layers:
        raise ValueError(
            f"{audio} does not go with config.model.decoder_layers={config.decoder_layers}: the decoder reads the "
            "picture's tokens alone"
        )
    if not config.num_layers:
        raise ValueError(f"{audio} does not go with config.model.num_layers=0: no encoder reads audio by itself")
    if config.direction == "image_to_text":
        raise ValueError(
            f"{audio} does not go with config.model.direction='image_to_text': nobody would read the audio"
        )
    if config.channel_gate:
        raise ValueError(
            f"{audio} does not go with config.model.channel_gate={config.channel_gate}: the gates squeeze text and "
            "picture alone"
        )
    if config.join != "none":
        raise ValueError(
            f"{audio} does not go with config.model.join={config.join!r}: it joins the text with the picture alone"
        )
