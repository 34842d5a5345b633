"""Relevance propagated through attention (Chefer et al. 2021, "Generic attention-model explainability")."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.explain.layers import Weights, attention_and_gradient, positive, relevance_of
from singlestream.explain.question import Question, Relevance
from singlestream.model.build import AnyModel
from singlestream.model.config import ModelConfig
from singlestream.model.layer_order import CROSS, layer_order
from singlestream.model.two_stream_config import TwoStreamConfig


def explain(model: AnyModel, question: Question) -> Relevance:
    """The rows of the relevance matrix of words, and of the tokens from which the answer is read."""
    weights = positive(*attention_and_gradient(model, question))  # equation 5
    if isinstance(model.config, ModelConfig):
        return relevance_of(model, question, one_stream(weights["self"]))
    return relevance_of(model, question, two_streams(model.config, weights))


def one_stream(layers: Float[Array, "layers B L L"]) -> Float[Array, "B L L"]:
    """R = 1, then R + A R for each layer (equations 1 and 6)."""
    relevance = _one(layers[0])
    for layer in layers:
        relevance = relevance + layer @ relevance
    return relevance


def two_streams(config: TwoStreamConfig, weights: Weights) -> Float[Array, "B L L"]:
    """The four blocks, text to text, text to image, and so on (equations 1 to 11), put together."""
    text, image = _one(weights["text"][0]), _one(weights["image"][0])
    to_image, to_text = jnp.zeros_like(weights["text_to_image"][0]), jnp.zeros_like(weights["image_to_text"][0])
    for name, number in layer_order(config):
        if name == CROSS:
            across, back = weights["text_to_image"][number], weights["image_to_text"][number]
            of_text, of_image = _normalised(text), _normalised(image)
            more_to_image = of_text.mT @ across @ of_image  # equation 10
            more_to_text = of_image.mT @ back @ of_text
            text, image = text + across @ to_text, image + back @ to_image  # equation 11
            to_image, to_text = to_image + more_to_image, to_text + more_to_text
        elif name == "text":
            own = weights["text"][number]
            text, to_image = text + own @ text, to_image + own @ to_image  # equations 6 and 7
        else:
            own = weights["image"][number]
            image, to_text = image + own @ image, to_text + own @ to_text
    upper, lower = jnp.concatenate([text, to_image], axis=-1), jnp.concatenate([to_text, image], axis=-1)
    return jnp.concatenate([upper, lower], axis=-2)


def _normalised(relevance: Float[Array, "B M M"]) -> Float[Array, "B M M"]:
    """What was added to the identity, its rows divided by their sums, and the identity (equations 8 and 9)."""
    one = _one(relevance)
    added = relevance - one
    total = added.sum(-1, keepdims=True)
    return added / jnp.where(total > 0, total, 1) + one


def _one(like: Any) -> Float[Array, "B M M"]:
    return jnp.broadcast_to(jnp.eye(like.shape[-1], dtype=like.dtype), like.shape)
