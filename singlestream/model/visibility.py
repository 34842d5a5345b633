"""Who sees whom: the one place where it is decided."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from singlestream.batch import AUDIO, EXTRA, IMAGE, TEXT, Array, Size

FIELDS = ("segments", "part", "modality", "place", "where", "token", "log_size")  # what is known of each token


def side_of(modality: Int32[Array, "*S"]) -> Int32[Array, "*S"]:
    """The modalities with audio tokens on the picture's side."""
    return jnp.where(modality == AUDIO, IMAGE, modality)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=(*FIELDS, "edges", "keys", "layer", "perturbation"),
    meta_fields=("direction", "hops", "depth", "num_text", "num_image", "slots", "examples", "pictures"),
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Visibility:
    """The rule over one stream of `num_text` text tokens followed by image tokens, then by audio tokens if any.

    A query sees a key iff their segments are equal and not 0, and the key's part is 0 or the query's own. With
    `direction="prefix"` an image token moreover sees no text, whatever the segments say, so that a picture's tokens
    come out the same with one text beside it, with several, or with none:

        one row, segments 1 1 1 1 | 1 1, parts 1 1 2 2 | 0 0, the last two image tokens, prefix:

            1 1 0 0 1 1
            1 1 0 0 1 1
            0 0 1 1 1 1
            0 0 1 1 1 1
            0 0 0 0 1 1
            0 0 0 0 1 1

    `direction="causal"` is the same, and a text token sees no later token of its text: the two texts above each get

        1 0
        1 1

    (`place` says what is later), so that each can be predicted from what stands before it.

    The others rule moreover what may pass between the modalities. `text_to_image`: a text token reads itself and the
    image tokens, an image token itself alone; `image_to_text` is its mirror; `both`: each reads itself and the other
    modality, co-attention (Lu et al. 2016, parallel) in one stream. `multi_hop`: the last `hops` of `depth` layers go
    across, in turns, so that in the very last the text reads the image (`text_to_image`) and in the one before it the
    image has read the text (`image_to_text`); in the layers before them each modality reads itself. With
    `bottleneck` text reads text, image reads image, and both read the bottlenecks, which read all of their example
    (after Nagrani et al. 2021, section 3.2, where each modality updates a copy of them by its own softmax and the
    copies are averaged; here one softmax goes over both, so the louder modality may take more of it).

    Audio tokens stand on the picture's side: whatever a direction says of image tokens it says of them, and a picture
    and its sound are one modality to it. With `bottleneck` alone they are a third one, as in its source.

    `slots` is a promise of whoever made the batch (`Text.slots`): the text is divided into that many equal stretches
    and no token sees text of another stretch than its own. It changes what is computed, never the result.

    `keys` is the stream that is read where it is another one than the queries' (`towards`).
    """

    segments: Int32[Array, "B L"]
    part: Int32[Array, "B L"]
    modality: Int32[Array, "B L"]
    place: Int32[Array, "B L"] | None = None  # of a token in its text; read where the direction is `causal`
    # (picture, row, column) of a patch in its example, -1 of any other token; None where image tokens are regions.
    where: Int32[Array, "B L 3"] | None = None
    token: Int32[Array, "B L"] | None = None  # number of a token in its row: what tells a query's own key
    log_size: Float[Array, "B L"] | None = None  # log of how many tokens were merged into this one; None: no merging
    direction: str = "full"
    hops: int = 0  # with `multi_hop`: layers that go across, the last ones of `depth`
    depth: int = 0
    num_text: Size = 0
    num_image: Size = 0  # image tokens, which come after the text
    slots: int = 1
    examples: Size = 1  # the most (segment, part) pairs that a row has
    pictures: Size = 1  # the most segments that a row has
    # Pairs of `token` that an edge joins, for `attention.graph="edges"`; what is no token's number joins nothing.
    edges: Int32[Array, "B E 2"] | None = None
    keys: Visibility | None = None
    layer: Int32[Array, ""] | None = None  # number of the layer that asks; None outside of a stack
    # Added to the attention weights: zeros, to differentiate with respect to them. Of all layers until `in_layer`.
    perturbation: Float[Array, "*layers B H Q K"] | None = None

    def towards(self, keys: Visibility) -> Visibility:
        """The same rule for queries of this stream over keys of another: cross attention."""
        return dataclasses.replace(self, keys=keys)

    def perturbed(self, perturbation: Float[Array, "*layers B H Q K"] | None) -> Visibility:
        """The same rule, with something added to the attention weights of one layer, or of each."""
        return dataclasses.replace(self, perturbation=perturbation)

    @property
    def read(self) -> Visibility:
        """The stream that is read: this one, or another (`towards`)."""
        return self if self.keys is None else self.keys

    def of_text(self) -> Visibility:
        """The same rule over the text tokens alone."""
        return self.each(lambda x: x[:, : self.num_text])

    def in_layer(self, number: Int32[Array, ""]) -> Visibility:
        """The same rule, asked in a layer of this number."""
        own = None if self.perturbation is None else self.perturbation[number]
        return dataclasses.replace(self, layer=number, perturbation=own)

    def at(self, index: Int32[Array, "B M"]) -> Visibility:
        """The same rule over the tokens of these numbers alone."""
        return self.each(lambda x: jax.vmap(lambda row, chosen: row[chosen])(x, index))

    def each(self, change: Callable[[Array], Array]) -> Visibility:
        """The same rule over other tokens: what is known of each, changed alike; `perturbation` is not taken along."""
        known = {name: x for name in FIELDS if (x := getattr(self, name)) is not None}
        return dataclasses.replace(self, perturbation=None, **{name: change(x) for name, x in known.items()})

    def mask(self, queries: slice = slice(None), keys: slice = slice(None)) -> Bool[Array, "B Q K"]:
        """True where a query sees a key; for a stretch of queries and keys, or the whole stream."""
        read = self.read
        q_segments, k_segments = self.segments[:, queries, None], read.segments[:, None, keys]
        q_part, k_part = self.part[:, queries, None], read.part[:, None, keys]
        seen = (q_segments == k_segments) & (k_segments != 0) & ((k_part == 0) | (k_part == q_part))
        if self.direction == "full":
            return seen
        q_modality, k_modality = self.modality[:, queries, None], read.modality[:, None, keys]
        if self.direction == "bottleneck":
            return seen & ((q_modality == k_modality) | (q_modality == EXTRA) | (k_modality == EXTRA))
        q_modality, k_modality = side_of(q_modality), side_of(k_modality)
        to_image = (q_modality == TEXT) & (k_modality == IMAGE)
        to_text = (q_modality == IMAGE) & (k_modality == TEXT)
        if self.direction in ("prefix", "causal"):
            seen &= ~to_text
            if self.direction == "causal":
                seen &= (k_modality == IMAGE) | (read.place[:, None, keys] <= self.place[:, queries, None])
            return seen
        own = self._tokens()[:, queries, None] == read._tokens()[:, None, keys]
        if self.direction == "multi_hop":
            return seen & self._hop(own, q_modality == k_modality, to_image, to_text)
        across = {"text_to_image": to_image, "image_to_text": to_text, "both": to_image | to_text}
        return seen & (own | across[self.direction])

    def weigh_sizes(self, scores: Float[Array, "B H Q K"], keys: slice = slice(None)) -> Float[Array, "B H Q K"]:
        """Scores of which each key counts for as many tokens as were merged into it (Bolya et al. 2023, equation 1)."""
        log_size = self.read.log_size
        return scores if log_size is None else scores + log_size[:, None, None, keys].astype(scores.dtype)

    def _hop(self, own: Array, within: Array, to_image: Array, to_text: Array) -> Bool[Array, "B Q K"]:
        """What a layer of `multi_hop` reads."""
        if self.layer is None:
            raise ValueError("direction='multi_hop' says who sees whom in a layer, and here none asks: see `in_layer`")
        left = self.depth - 1 - self.layer  # layers after this one
        across = own | jnp.where(left % 2 == 0, to_image, to_text)
        return jnp.where(left < self.hops, across, within)

    def _tokens(self) -> Int32[Array, "B L"]:
        if self.token is None:
            raise ValueError(f"direction={self.direction!r} needs to know each token's own key: give `token`")
        return self.token
