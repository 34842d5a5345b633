"""What attention weights look like: how spread, how much each token receives, how much crosses, how alike heads are.

Pure functions of weights [..., Q, K] or of `Encoded.attention`; tokens that are padding have to be told, since a query
that is padding has weights, too.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from singlestream.batch import Array, Batch
from singlestream.model.maps import image_to_text, text_to_image


def entropy(weights: Float[Array, "*S K"]) -> Float[Array, "*S"]:
    """Entropy in nats of each query's weights, divided by their sum first; 0 where they are all 0.

    Its exponential is the number of keys that are read evenly (Clark et al. 2019, section 3.3).
    """
    share = _shares(weights)
    return -jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1)), 0).sum(-1)


def coverage(weights: Float[Array, "*S Q K"], queries: Bool[Array, "*Q"]) -> Float[Array, "*S Q K"]:
    """What each key has received up to and with each query (Tu et al. 2016, section 3.1); queries are those that count.

    Its last row is `fertility`.
    """
    return jnp.cumsum(weights * queries[..., None], axis=-2)


def fertility(weights: Float[Array, "*S Q K"], queries: Bool[Array, "*Q"]) -> Float[Array, "*S K"]:
    """What each key receives of all queries that count: of how many words a patch is the answer, softly.

    Tu et al. 2016, section 3.1: what a fertility model would bound. `[CLS]` and `[SEP]` count where `queries` has them.
    """
    return (weights * queries[..., None]).sum(-2)


def crossing(attention: Mapping[str, Array], *, batch: Batch) -> dict[str, Float[Array, "layers H"]]:
    """`text_to_image`: the share of a word's attention that goes to the image, of each layer and head; and the reverse.

    The mean over the batch's tokens that are no padding and, of a pruned model, neither dropped nor hidden. In two
    streams a layer that crosses reads nothing else: 1.
    """
    words, patches = jnp.asarray(batch.text.segments) > 0, jnp.asarray(batch.image.segments) > 0
    num_text, there = words.shape[1], reading(attention)
    both = (
        ("text_to_image", text_to_image, words, slice(num_text)),
        ("image_to_text", image_to_text, patches, slice(num_text, num_text + patches.shape[1])),
    )
    found = {}
    for name, block, tokens, part in both:
        share = block(attention, batch=batch).sum(-1)  # [layers, B, H, Q]
        tokens = tokens & (there["self"][..., part] if "self" in there else there[name])
        found[name] = jnp.where(tokens[:, :, None], share, 0).sum((1, 3)) / jnp.maximum(tokens.sum((1, 2)), 1)[:, None]
    return found


def reading(attention: Mapping[str, Array]) -> dict[str, Bool[Array, "layers B Q"]]:
    """Which queries give any weight; an image token that was dropped or hidden gives none."""
    return {name: (weights > 0).any((2, -1)) for name, weights in attention.items()}


def mutual(attention: Mapping[str, Array], *, batch: Batch) -> Float[Array, "layers B H T N"]:
    """How far a word and an image token read each other: the geometric mean of both weights, 0 where one reads none."""
    there, back = text_to_image(attention, batch=batch), image_to_text(attention, batch=batch)
    return jnp.sqrt(there * back.mT)


def head_similarity(weights: Float[Array, "layers B H Q K"], queries: Bool[Array, "B Q"]) -> Float[Array, "M M"]:
    """How alike heads attend, 1 for the same weights and 0 for disjoint ones; head h of layer l is number l * H + h.

    1 less the Jensen-Shannon divergence in bits, the mean over the queries that count and that read anything in both
    layers (Clark et al. 2019, section 6, whose distance is the sum).
    """
    layers, rows, heads, _, keys = weights.shape
    share = _shares(weights).swapaxes(1, 2).reshape(layers * heads, rows, -1, keys)
    own, reads = entropy(share), (share > 0).any(-1)

    def against(head: Array) -> Array:
        apart = entropy((share + share[head]) / 2) - (own + own[head]) / 2
        both = queries & reads & reads[head]
        return jnp.where(both, apart, 0).sum((-1, -2)) / jnp.maximum(both.sum((-1, -2)), 1)

    return 1 - jax.lax.map(against, jnp.arange(layers * heads)) / jnp.log(2.0)


def _shares(weights: Array) -> Array:
    total = weights.sum(-1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1)
