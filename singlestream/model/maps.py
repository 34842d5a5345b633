"""Attention weights between the modalities, whatever the model: what words give to image tokens, and the reverse."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float

from singlestream.batch import Array, Batch


def text_to_image(attention: Mapping[str, Array], *, batch: Batch) -> Float[Array, "layers B H T N"]:
    """What text queries give to image keys, in each layer of a single stream, or in each that crosses between two.

    Args:
        attention: `Encoded.attention`. In a single stream the text comes first, then the image.
    """
    if "self" not in attention:
        return attention["text_to_image"]
    num_text, num_image = batch.text.ids.shape[1], batch.image.segments.shape[1]
    return attention["self"][..., :num_text, num_text : num_text + num_image]


def image_to_text(attention: Mapping[str, Array], *, batch: Batch) -> Float[Array, "layers B H N T"]:
    """What image queries give to text keys, likewise."""
    if "self" not in attention:
        return attention["image_to_text"]
    num_text, num_image = batch.text.ids.shape[1], batch.image.segments.shape[1]
    return attention["self"][..., num_text : num_text + num_image, :num_text]
