"""How much of the device's arithmetic a step uses (model FLOPs utilisation)."""

from __future__ import annotations

import math

from singlestream.batch import Batch, Patches
from singlestream.model.attention.slotted import is_slotted
from singlestream.model.config import ModelConfig
from singlestream.model.embed import conv_sides

# Dense bfloat16 peaks of one jax device in FLOP/s, from the vendors' data sheets. The first name found in the device's
# kind counts. Others, CPUs among them, get no figure.
PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40": 181e12,
    "L4": 121e12,
    "V100": 125e12,
    "TPU v6": 918e12,
    "TPU v5p": 459e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v4": 275e12,
    "TPU v3": 61.5e12,
}


def peak_flops(device_kind: str) -> float | None:
    """FLOP/s that a device can reach at best; None where that is not known."""
    return next((peak for name, peak in PEAKS.items() if name in device_kind), None)


def train_flops(config: ModelConfig, batch: Batch) -> float:
    """FLOPs of the encoder for one step on such a batch, forward and backward (2 x forward), without recomputation.

    Counted as they are computed, two a multiplication with addition, padding included: projections, scores and
    weighted sums of attention (between different texts only where they are computed), the feed-forward layer, the
    stem of the image tokens. Heads and norms are left out.
    """
    (rows, num_text), num_image = batch.text.ids.shape, batch.image.segments.shape[1]
    length = num_text + num_image
    scores = length**2
    if is_slotted(config.attention, config.direction, batch.text.slots):
        scores = num_text * (num_text // batch.text.slots + num_image) + num_image**2
    layer = length * (4 * config.width**2 + 2 * config.width * config.mlp_dim) + 2 * scores * config.width
    return 3.0 * 2.0 * rows * (config.num_layers * layer + num_image * _stem(config, batch))


def _stem(config: ModelConfig, batch: Batch) -> int:
    """Multiplications of the stem for one image token."""
    if config.image_stem == "conv":
        (first, second), width = conv_sides(config.window), config.stem_width
        convolutions = first**2 * 4 * 4 * 3 * width + second**2 * 3 * 3 * width * 2 * width
        return convolutions + second**2 * 2 * width * config.width
    image = batch.image
    content = image.pixels if isinstance(image, Patches) else image.features
    return math.prod(content.shape[2:]) * config.width
