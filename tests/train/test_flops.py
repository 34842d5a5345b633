"""What a step's arithmetic is counted as, against the products that the compiler is given."""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import Jaxpr, jaxprs_in_params

from singlestream.batch import Audio, make_batch
from singlestream.model.config import ModelConfig
from singlestream.model.pruning.config import PruningConfig
from singlestream.model.single_stream import SingleStream
from singlestream.model.two_stream import TwoStream
from singlestream.model.two_stream_config import TwoStreamConfig
from singlestream.train.flops import train_flops
from tests.model import test_two_stream as two
from tests.model.toy import CONFIG, SPEC, random_batch, replace


def multiplications(jaxpr: Jaxpr) -> int:
    """Of all matrix products of a program without loops of unknown length."""
    total = 0
    for equation in jaxpr.eqns:
        for inner in jaxprs_in_params(equation.params):
            total += equation.params.get("length", 1) * multiplications(inner)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    return total


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"direction": "prefix"},
        {"image_stem": "conv", "patch_size": 8},
        {"direction": "prefix", "late_layers": 1},
        {"direction": "prefix", "decoder_layers": 1},
        {"direction": "text_to_image", "pooling": "mean", "channel_gate": 4},
        {"direction": "bottleneck", "bottlenecks": 2, "text_encoder": "transformer", "text_layers": 1},
        {"direction": "prefix", "num_layers": 3, "pruning": PruningConfig(keep=0.4)},
        {"direction": "prefix", "num_layers": 3, "pruning": PruningConfig(keep=0.4), "audio_dim": 6},
        {"image_cls": True},
        {"text_encoder": "lstm", "text_layers": 2, "image_encoder": "cnn", "image_layers": 1},
    ],
    ids=["plain", "slots", "conv", "late", "decoder", "gate", "bottleneck", "pruned", "hears", "cls", "front"],
)
def test_the_count_is_that_of_the_products(changes: dict[str, object]):
    config: ModelConfig = replace(CONFIG, image_positions="none", num_images=1, **changes)
    batch = random_batch(0, text=6)
    part = (batch.text.ids * 0) + [1, 1, 1, 2, 2, 2]
    batch = make_batch(
        text=dataclasses.replace(batch.text, part=part.astype("int32"), slots=2),
        image=dataclasses.replace(batch.image, pixels=batch.image.pixels.repeat(config.window**2 // 16, axis=2)),
        audio=Audio(features=np.zeros((2, 4, config.audio_dim), np.float32)) if config.audio_dim else None,
    )
    graphdef, params = nnx.split(nnx.eval_shape(lambda: SingleStream(config, SPEC, rngs=nnx.Rngs(0))))
    direction = "decoder" if config.decoder_layers else None
    forward = jax.make_jaxpr(lambda params, batch: nnx.merge(graphdef, params)(batch, direction=direction))(
        params, batch
    )
    # The pooler's product, a quarter of a percent here, is not counted.
    assert train_flops(config, batch) == pytest.approx(3 * 2 * multiplications(forward.jaxpr), rel=0.005)


@pytest.mark.parametrize("config", [two.SHARED, two.PAIRED], ids=["shared", "paired"])
def test_two_streams_are_counted_too(config: TwoStreamConfig):
    batch = two.pack([two.example(0, two.WORDS, two.REGIONS)] * 8, 4, 2, [(i // 2, i % 2) for i in range(8)])
    graphdef, params = nnx.split(nnx.eval_shape(lambda: TwoStream(config, two.SPEC, rngs=nnx.Rngs(0))))
    forward = jax.make_jaxpr(lambda params, batch: nnx.merge(graphdef, params)(batch).text)(params, batch)
    # The poolers' products, one a text, are not counted.
    assert train_flops(config, batch) == pytest.approx(3 * 2 * multiplications(forward.jaxpr), rel=0.02)
