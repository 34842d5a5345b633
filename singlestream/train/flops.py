"""How much of the device's arithmetic a step uses (model FLOPs utilisation)."""

from __future__ import annotations

import math

from singlestream.batch import Batch, Patches
from singlestream.model.attention.share import at_most
from singlestream.model.attention.slotted import is_slotted
from singlestream.model.config import ModelConfig
from singlestream.model.embed import conv_sides
from singlestream.model.pruning.choose import room
from singlestream.model.two_stream_config import ModelSettings, TwoStreamConfig

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


def train_flops(config: ModelSettings, batch: Batch) -> float:
    """FLOPs of the layers for one step on such a batch, forward and backward (2 x forward), without recomputation.

    Counted as they are computed, two a multiplication with addition, padding included: projections, scores and
    weighted sums of attention (between different texts only where they are computed), the feed-forward layer, the
    stem of the image tokens, encoders of one modality, channel gates. Left out are heads, joins and norms, and scores
    that rank image tokens a second time, without noise (`pruning.run`). With a decoder: the picture in the encoder and
    the text in the decoder.
    """
    (rows, num_text), num_image = batch.text.ids.shape, batch.image.segments.shape[1]
    if isinstance(config, TwoStreamConfig):
        return 3.0 * 2.0 * rows * _two_streams(config, num_text, num_image)
    before = num_image * _stem(config, batch)
    before += config.image_layers * _front_layer(config, config.image_encoder, num_image, _pairs(config, num_image))
    if config.decoder_layers:
        layers = config.num_layers * _layer(config, num_image, num_image**2)
        layers = (_pruned(config, batch, 0) if config.pruning.active else layers) + _gate(config, num_image)
        layers += config.decoder_layers * _decoder_layer(config, num_text, _alone(config, "causal", batch), num_image)
        return 3.0 * 2.0 * rows * (before + layers)
    num_audio = 0 if batch.audio is None else batch.audio.segments.shape[1]
    before += num_audio * config.audio_dim * config.width
    num_image += num_audio  # the layers on all read both alike
    length = num_text + num_image + batch.examples.shape[1] * (config.bottlenecks + config.image_cls)
    scores, alone = _pairs(config, length), _alone(config, config.direction, batch)
    if _is_slotted(config, config.direction, batch.text.slots):
        scores = alone + num_text * num_image + num_image**2
    both = _layer(config, length, scores)
    first = _layer(config, num_text, alone) if config.late_layers else both
    layers = config.num_layers * first + config.late_layers * both
    if config.pruning.active:
        layers = _pruned(config, batch, num_text)
    before += config.text_layers * _front_layer(config, config.text_encoder, num_text, _alone(config, "prefix", batch))
    return 3.0 * 2.0 * rows * (before + layers + _gate(config, length))


def _pruned(config: ModelConfig, batch: Batch, num_text: int) -> int:
    """Multiplications for one row of layers that lose image tokens; so many text tokens are read beside them."""
    pruning, there = config.pruning, batch.image.segments.shape[1]
    pictures = batch.pictures or batch.examples.shape[1]
    extra = batch.examples.shape[1] * (config.bottlenecks + config.image_cls)
    extra += 0 if batch.audio is None else batch.audio.segments.shape[1]
    slotted = num_text > 0 and _is_slotted(config, config.direction, batch.text.slots)
    now, total, drops = there, 0, 0
    for number in range(1, config.num_layers + 1):
        prunes = number in pruning.layers
        scores = _pairs(config, num_text + now + extra)
        # A layer that is asked for its weights computes the whole matrix.
        if slotted and not (prunes and pruning.method != "merge"):
            scores = _alone(config, config.direction, batch) + num_text * (now + extra) + (now + extra) ** 2
        total += _attend(config, num_text + now + extra, scores)
        if prunes and pruning.method != "mask":
            if pruning.method == "merge":  # how alike the keys are, and the means
                total += now**2 * (config.width // config.num_heads + config.width)
            drops += 1
            now = min(now, room(at_most(pruning.share(drops), there), pictures))
        total += _feed(config, num_text + now + extra)
    return total


def _alone(config: ModelConfig, direction: str, batch: Batch) -> int:
    """Pairs of text tokens whose scores are computed where texts are read without a picture."""
    num_text, slots = batch.text.ids.shape[1], batch.text.slots
    return num_text * (num_text // slots) if _is_slotted(config, direction, slots) else _pairs(config, num_text)


def _is_slotted(config: ModelConfig, direction: str, slots: int) -> bool:
    """Whether the scores between different texts are left out."""
    return config.attention.plain and is_slotted(config.attention.implementation, direction, slots)


def _pairs(config: ModelConfig, length: int) -> int:
    """Pairs of so many tokens whose scores are computed."""
    attention = config.attention
    if attention.selection != "routed":
        return length**2
    blocks = -(-length // attention.block)
    read = 1 + at_most(attention.keep, blocks - 1)  # its own, and what it chooses
    return length * read * attention.block + blocks**2


def _layer(config: ModelConfig, length: int, scores: int) -> int:
    """Multiplications of one layer on so many tokens and pairs of them."""
    return _attend(config, length, scores) + _feed(config, length)


def _attend(config: ModelConfig, length: int, scores: int) -> int:
    """The same of its attention."""
    return 4 * length * config.width**2 + 2 * scores * config.width


def _feed(config: ModelConfig, length: int) -> int:
    """The same of its feed-forward layer."""
    return 2 * length * config.width * config.mlp_dim


def _front_layer(config: ModelConfig, kind: str, length: int, scores: int) -> int:
    """The same of a layer that reads one modality alone."""
    products = {"lstm": 6 * length * config.width**2, "cnn": 9 * length * config.width**2, "none": 0}
    return products[kind] if kind in products else _layer(config, length, scores)


def _gate(config: ModelConfig, length: int) -> int:
    """Multiplications of the channel gates: two means over what each token sees, then three projections."""
    if not config.channel_gate:
        return 0
    narrow = config.width // config.channel_gate
    return 2 * length**2 * config.width + 4 * length * config.width * narrow


def _decoder_layer(config: ModelConfig, num_text: int, scores: int, num_image: int) -> int:
    """The same of the decoder, which projects what it reads of the picture in every layer."""
    cross = 2 * (num_text + num_image) * config.width**2 + 2 * num_text * num_image * config.width
    return _layer(config, num_text, scores) + cross


def _two_streams(config: TwoStreamConfig, num_text: int, num_image: int) -> int:
    """Multiplications for one row: both stacks, the layers that cross, and the projection of the regions."""
    text, image, width = config.text_side, config.image_side, config.cross_width
    own = [_layer(side, n, _pairs(side, n)) for side, n in ((text, num_text), (image, num_image))]
    # Each token asks and gives its result back in one direction, and is read (key and value) in the other.
    cross = sum(n * width * (side.width * 4) for side, n in ((text, num_text), (image, num_image)))
    cross += 2 * 2 * num_text * num_image * width
    after = sum(own) if config.cross == "shared" else 0  # layers of BERT, or feed-forward layers alone
    if config.cross == "paired":
        after = sum(2 * n * side.width * side.mlp_dim for side, n in ((text, num_text), (image, num_image)))
    stem = num_image * (config.region_dim + config.box_numbers) * image.width
    return config.num_layers * own[0] + config.image_layers * own[1] + config.num_cross * (cross + after) + stem


def _stem(config: ModelConfig, batch: Batch) -> int:
    """Multiplications of the stem for one image token."""
    if config.image_stem == "conv":
        (first, second), width = conv_sides(config.window), config.stem_width
        convolutions = first**2 * 4 * 4 * 3 * width + second**2 * 3 * 3 * width * 2 * width
        return convolutions + second**2 * 2 * width * config.width
    image = batch.image
    content = image.pixels if isinstance(image, Patches) else image.features
    return math.prod(content.shape[2:]) * config.width
