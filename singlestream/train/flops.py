"""How much of the device's arithmetic a step uses (model FLOPs utilisation)."""

from __future__ import annotations

import math

from singlestream.batch import Batch, Patches
from singlestream.model.config import ModelConfig

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

    Counted as the model needs them, two a multiplication with addition, padding included: projections, scores and
    weighted sums of attention, the feed-forward layer, the projection of patches. Heads and norms are left out.
    """
    image = batch.image
    num_image = image.segments.shape[1]
    rows, length = batch.text.ids.shape[0], batch.text.ids.shape[1] + num_image
    layer = length * (4 * config.width**2 + 2 * config.width * config.mlp_dim) + 2 * length**2 * config.width
    content = image.pixels if isinstance(image, Patches) else image.features
    stem = num_image * math.prod(content.shape[2:]) * config.width
    return 3.0 * 2.0 * rows * (config.num_layers * layer + stem)
