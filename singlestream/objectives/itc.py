"""Image-text contrast: a text finds its picture among others, a picture its text (Radford et al. 2021, CLIP).

With `queue`, against the vectors that a moving average of the model makes of this batch and made of the last ones (Li
et al. 2021, ALBEF, equations 1 and 2).
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from singlestream.batch import Array, Batch, Regions
from singlestream.model.heads import HeadConfig
from singlestream.model.pooling import tokens_of
from singlestream.objectives import base

MAX_SCALE = 100.0  # of the similarities, as in CLIP, section 2.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """`size` of the vectors compared, `temperature` at the start (it is learned), examples that the `queue` holds."""

    size: int = 256
    temperature: float = 0.07
    queue: int = 0

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("temperature", 1 / MAX_SCALE), ("queue", 0)):
            value = getattr(self, name)
            if not value >= least:
                raise ValueError(f"config.objective_options.itc.{name}={value}: must be at least {least}")


class Vectors(NamedTuple):
    """Examples to be compared: unit vectors, whose picture it is, which count as a text, which as a picture."""

    text: Float[Array, "M E"]
    image: Float[Array, "M E"]
    picture: Int32[Array, " M"]
    is_text: Bool[Array, " M"]
    is_image: Bool[Array, " M"]


class Comparison(NamedTuple):
    """Examples against candidates, of which the first ones are the examples themselves."""

    candidates: Vectors
    text_to_image: Float[Array, "M C"]
    image_to_text: Float[Array, "M C"]


class Objective(base.Objective):
    """The mean of two cross-entropies, over all examples of a batch (of its part, with `config.train.accumulate`).

    A text is the state of its first token, a picture the mean of its tokens' states, each read without the other and
    projected. Texts that share a picture have one picture; what shows the same picture is never a negative. The queue
    keeps what counted in training; an evaluation reads it as training left it. `text_accuracy` is the share of texts
    that find their picture, `image_accuracy` of pictures that find their text.
    """

    needs_others = True

    def __init__(self, options: Options):
        super().__init__(options)
        self.needs_average = options.queue > 0

    def heads(self, config, spec):
        if not config.inputs.words_meet:
            raise ValueError(
                "itc reads a text at its first token, which reads no other word with config.model.direction="
                f"{config.inputs.direction!r}: set it to 'prefix', or take a config.model.text_encoder"
            )
        size, start = self.options.size, -math.log(self.options.temperature)
        return {
            "itc_text": HeadConfig(size=size, source="text"),
            "itc_image": HeadConfig(size=size, source="image"),
            "itc_scale": HeadConfig(kind="constant", size=1, start=start),
        }

    def init_state(self, spec):
        size, width = self.options.queue, self.options.size
        if not size:
            return {}
        vectors, ids, flags = jnp.zeros((size, width)), jnp.zeros((size,), jnp.int32), jnp.zeros((size,), bool)
        queue = Vectors(text=vectors, image=vectors, picture=ids, is_text=flags, is_image=flags)
        return {**queue._asdict(), "next": jnp.zeros((), jnp.int32)}

    def loss(self, encode, heads, batch, spec, key, state):
        own, scale = unimodal(encode, batch), similarity_scale(encode, batch)
        candidates = own
        if state:
            teacher = jax.lax.stop_gradient(unimodal(encode.teacher, batch))
            queue = Vectors(**{name: state[name] for name in Vectors._fields})
            candidates = jax.tree.map(lambda now, before: jnp.concatenate([now, before]), teacher, queue)
            state = enqueue(state, teacher)
        found = encode.view("itc", lambda: compare(own, candidates, scale))
        labels = jnp.arange(len(own.picture), dtype=jnp.int32)
        text_loss, text_hits = base.cross_entropy(found.text_to_image, labels, own.is_text)
        image_loss, image_hits = base.cross_entropy(found.image_to_text, labels, own.is_text)
        metrics = {
            "loss": ((text_loss[0] + image_loss[0]) / 2, text_loss[1]),
            "text_accuracy": text_hits,
            "image_accuracy": image_hits,
            "temperature": (1 / scale, jnp.ones_like(scale)),
        }
        return metrics, state


def apart(batch: Batch) -> Batch:
    """The same batch with texts and pictures hidden from each other: pictures get segments that no text has."""
    image = batch.image
    beyond = 1 + jnp.maximum(batch.text.segments.max(1, keepdims=True), batch.examples[..., 0].max(1, keepdims=True))
    image = dataclasses.replace(image, segments=jnp.where(image.segments > 0, image.segments + beyond, 0))
    if isinstance(image, Regions):
        image = dataclasses.replace(image, words=None)  # they tell a region where in the text it is spoken of
    return batch.replace(image=image)


def unimodal(encode: base.Encode, batch: Batch) -> Vectors:
    """Every example's text and picture, read apart; M = B x K.

    An example without a picture counts nowhere, one without words as a picture.
    """
    encoded = encode(encode.view("apart", lambda: apart(batch)))
    first = tokens_of(batch.text, batch.examples) & (batch.text.positions[:, None] == 0)
    seen = base.image_tokens_of(batch)
    text, image = _sum(first, encode.heads["itc_text"](encoded)), _sum(seen, encode.heads["itc_image"](encoded))
    shown = batch.example_mask & seen.any(-1)
    same = batch.examples[:, :, None, 0] == batch.examples[:, None, :, 0]
    before = jnp.tril(jnp.ones(same.shape[1:], bool), -1) & shown[:, None]
    found = Vectors(
        text=base.unit(text),
        image=base.unit(image),  # the mean's direction is the sum's
        picture=batch.picture,
        is_text=base.paired(batch),
        is_image=shown & ~(same & before).any(-1),
    )
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)


def _sum(mask: Bool[Array, "B K S"], values: Float[Array, "B S E"]) -> Float[Array, "B K E"]:
    return jnp.einsum("bks,bse->bke", mask.astype(values.dtype), values, precision=jax.lax.Precision.HIGHEST)


def similarity_scale(encode: base.Encode, batch: Batch) -> Float[Array, ""]:
    """1 / temperature."""
    encoded = encode(encode.view("apart", lambda: apart(batch)))
    log = encode.heads["itc_scale"](encoded)[0, 0, 0]
    # A minimum that lets the gradient through, so that what went beyond it can come back.
    return jnp.exp(log - jax.lax.stop_gradient(jnp.maximum(log - math.log(MAX_SCALE), 0)))


def compare(own: Vectors, candidates: Vectors, scale: Float[Array, ""]) -> Comparison:
    """Scaled similarities, -inf where a candidate does not count: padding, or another example of the same picture."""
    itself = jnp.eye(len(own.picture), len(candidates.picture), dtype=bool)
    other = own.picture[:, None] != candidates.picture

    def logits(query: Array, key: Array, counts: Array) -> Array:
        found = scale * jnp.einsum("me,ce->mc", query, key, precision=jax.lax.Precision.HIGHEST)
        return jnp.where(itself | (other & counts), found, -jnp.inf)

    return Comparison(
        candidates,
        logits(own.text, candidates.image, candidates.is_image),
        logits(own.image, candidates.text, candidates.is_text),
    )


def enqueue(state: dict[str, Array], new: Vectors) -> dict[str, Array]:
    """The queue with the examples that count, in place of its oldest."""
    size, total = len(state["picture"]), new.is_text.sum(dtype=jnp.int32)
    rank = jnp.cumsum(new.is_text, dtype=jnp.int32) - 1
    kept = new.is_text & (rank >= total - size)
    slot = jnp.where(kept, (state["next"] + rank) % size, size)  # beyond the end: dropped
    queue = {
        name: state[name].at[slot].set(x.astype(state[name].dtype), mode="drop") for name, x in new._asdict().items()
    }
    return {**queue, "next": (state["next"] + total) % size}
