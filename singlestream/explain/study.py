"""One question with every instrument and every measure at once, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Float

from singlestream.batch import Array, Batch
from singlestream.explain.ablation import falls
from singlestream.explain.instruments import explain, instrument_names
from singlestream.explain.layers import encoded_of
from singlestream.explain.measures import coverage, crossing, entropy, fertility, head_similarity, mutual, reading
from singlestream.explain.question import Question, Relevance
from singlestream.model.build import AnyModel
from singlestream.model.heads import DECODER
from singlestream.model.maps import image_to_text, text_to_image

# What is left to ask where text and image meet in no layer.
WITHOUT_ATTENTION = ("gradient_input", "integrated_gradients", "occlusion")
WITHOUT_ANSWER = ("attention", "mean_attention", "rollout")  # what is left where no answer is asked about


class Looks(NamedTuple):
    """What the attention weights look like; the measures of `explain.measures`.

    `entropy` and `similarity` go by the names of `Encoded.attention`; the others are of words that read the image
    (`crossing` and `mutual`: and of the image that reads the words), in the layers in which the two meet. Padding is 0
    in `coverage`, `fertility` and `mutual`, and not in the others; `reads` says which tokens give any attention.
    """

    to_image: Float[Array, "layers B H T N"]
    to_text: Float[Array, "layers B H N T"]
    entropy: dict[str, Float[Array, "layers B H Q"]]
    reads: dict[str, Bool[Array, "layers B Q"]]
    crossing: dict[str, Float[Array, "layers H"]]
    coverage: Float[Array, "layers B H T N"]
    fertility: Float[Array, "layers B H N"]
    mutual: Float[Array, "layers B H T N"]
    similarity: dict[str, Float[Array, "M M"]]


class Study(NamedTuple):
    """What each instrument says, by its name, and the looks of attention; None where text and image never meet.

    `falls`: of the answer's logit without each head (`ablation.falls`); None also without an answer.
    `kept`: which image tokens were still there, by themselves, after each drop; None of a model without pruning.
    """

    instruments: dict[str, Relevance]
    looks: Looks | None
    falls: dict[str, Float[Array, "layers H B"]] | None = None
    kept: Bool[Array, "drops B N"] | None = None


def study(model: AnyModel, question: Question) -> Study:
    """Everything that `explain` knows of a question; can be compiled.

    Where text and image meet in no layer the instruments are those of `WITHOUT_ATTENTION`, where no answer is asked
    about those of `WITHOUT_ANSWER`; of a decoder, whose layers are not all of the way, the weights alone.

    Raises:
        BatchError: rows of several answers, or a head that gives none.
    """
    encoded = encoded_of(model, question)
    weights = encoded.attention
    assert weights is not None
    meets = len(weights.get("self", weights.get("text_to_image", ()))) > 0
    names = set(instrument_names() if meets else WITHOUT_ATTENTION)
    if not question.head:
        names &= {"attention"} if question.direction == DECODER else set(WITHOUT_ANSWER)
    instruments = {name: explain(name, model, question) for name in sorted(names)}
    return Study(
        instruments,
        looks=looks(weights, question.batch) if meets else None,
        falls=falls(model, question) if meets and question.head else None,
        kept=encoded.extra.get("kept"),
    )


def looks(weights: Mapping[str, Array], batch: Batch) -> Looks:
    """The measures of weights, as `Encoded.attention` holds them."""
    text, image = jnp.asarray(batch.text.segments), jnp.asarray(batch.image.segments)
    own = ((text[:, :, None] == image[:, None]) & (image[:, None] > 0))[:, None]
    to_image = text_to_image(weights, batch=batch)
    seen = jnp.where(own, to_image, 0)
    queries = jnp.broadcast_to(text[:, None] > 0, to_image.shape[:-1])
    return Looks(
        to_image=to_image,
        to_text=image_to_text(weights, batch=batch),
        entropy={name: entropy(each) for name, each in weights.items()},
        reads=reading(weights),
        crossing=crossing(weights, batch=batch),
        coverage=jnp.where(own, coverage(seen, queries), 0),
        fertility=fertility(seen, queries),
        mutual=jnp.where(own, mutual(weights, batch=batch), 0),
        similarity={
            name: head_similarity(each, queries_of(name, batch, each.shape[-2])) for name, each in weights.items()
        },
    )


def queries_of(name: str, batch: Batch, size: int) -> Bool[Array, "B Q"]:
    """Which queries of `Encoded.attention[name]` are tokens of text or image, and no padding.

    Args:
        size: Q; in a single stream tokens may follow that belong to neither.
    """
    words, patches = jnp.asarray(batch.text.segments) > 0, jnp.asarray(batch.image.segments) > 0
    sides = {"self": (words, patches), "text": (words,), "text_to_image": (words,)}
    tokens = jnp.concatenate(sides.get(name, (patches,)), axis=-1)
    return jnp.pad(tokens, ((0, 0), (0, size - tokens.shape[-1])))
