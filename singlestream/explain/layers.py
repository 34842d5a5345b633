"""Attention weights layer by layer, in one matrix over all tokens, and the gradient of an answer by them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from singlestream.batch import Array, Encoded
from singlestream.explain.question import Question, Relevance, answer_logit, answer_reads, masked, parts_of
from singlestream.model.build import AnyModel
from singlestream.model.config import ModelConfig
from singlestream.model.heads import DECODER
from singlestream.model.layer_order import CROSS, layer_order

Weights = dict[str, Array]  # by the names of `Encoded.attention`


def encoded_of(model: AnyModel, question: Question) -> Encoded:
    """The batch encoded, with its attention weights.

    Where a decoder reads it they are the decoder's over the picture, which reads no text: `image_to_text` is 0.
    """
    asked: dict[str, Any] = {"direction": question.direction} if question.direction else {}
    encoded = model(question.batch, attention=True, **asked)
    if question.direction != DECODER:
        return encoded
    assert encoded.attention is not None
    across = encoded.attention["text_to_image"]
    return dataclasses.replace(encoded, attention={"text_to_image": across, "image_to_text": jnp.zeros_like(across.mT)})


def attention_of(model: AnyModel, question: Question) -> Weights:
    """The attention weights of every layer.

    Raises:
        ValueError: the model has no layer in which text and image meet.
    """
    attention = encoded_of(model, question).attention
    assert attention is not None
    if "self" in attention and not len(attention["self"]):
        raise ValueError(
            "config.model.num_layers=0: text and image meet in no layer, so attention explains nothing; choose "
            "gradient_input, integrated_gradients or occlusion"
        )
    return attention


def attention_and_gradient(model: AnyModel, question: Question) -> tuple[Weights, Weights]:
    """The attention weights of every layer, and the gradient of each row's answer with respect to them."""
    shapes = jax.eval_shape(lambda: attention_of(model, question))

    def answers(perturbation: Weights) -> tuple[Array, Weights]:
        encoded = model(question.batch, attention=True, perturbation=perturbation)
        assert encoded.attention is not None
        # Rows do not read each other: the gradient of the sum is that of each row's answer.
        return answer_logit(model, question, encoded).sum(), encoded.attention

    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    gradient, attention = jax.grad(answers, has_aux=True)(zeros)
    return attention, gradient


def positive(attention: Mapping[str, Array], gradient: Mapping[str, Array]) -> Weights:
    """The mean over heads of what raises the answer, (gradient x weight)+, [layers, B, Q, K] by name."""
    return {name: jax.nn.relu(gradient[name] * attention[name]).mean(2) for name in attention}


def over_heads(attention: Mapping[str, Array]) -> Weights:
    """The mean over heads, [layers, B, Q, K] by name."""
    return {name: weights.mean(2) for name, weights in attention.items()}


def joined(model: AnyModel, matrices: Mapping[str, Float[Array, ...]]) -> Float[Array, "layers B L L"]:
    """One matrix a layer over all tokens, text first, in the order in which the layers ran.

    Of two streams each layer fills its own block; in a cross layer both read each other.
    """
    config = model.config
    if isinstance(config, ModelConfig):
        return matrices["self"]
    to_image, to_text = matrices["text_to_image"], matrices["image_to_text"]
    none = {"text": jnp.zeros_like(matrices["text"][0]), "image": jnp.zeros_like(matrices["image"][0])}
    layers = []
    for name, number in layer_order(config):
        crosses = name == CROSS
        text, image = (matrices[side][number] if name == side else none[side] for side in ("text", "image"))
        upper = jnp.concatenate([text, to_image[number] if crosses else 0 * to_image[0]], axis=-1)
        lower = jnp.concatenate([to_text[number] if crosses else 0 * to_text[0], image], axis=-1)
        layers.append(jnp.concatenate([upper, lower], axis=-2))
    return jnp.stack(layers)


def relevance_of(model: AnyModel, question: Question, matrix: Float[Array, "B L L"]) -> Relevance:
    """What a matrix of who counts for whom says: of the answer, by the tokens that it is read from, and of words."""
    text, image, audio = parts_of(question.batch)
    from_text, from_image = answer_reads(model, question)
    row = jnp.einsum("bt,btl->bl", from_text, matrix[:, text]) + jnp.einsum("bn,bnl->bl", from_image, matrix[:, image])
    said = Relevance(row[:, text], row[:, image], matrix[:, text, image])
    if audio is not None:
        said = said._replace(audio=row[:, audio], words_audio=matrix[:, text, audio])
    return masked(said, question.batch)
