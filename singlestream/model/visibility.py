"""Who sees whom: the one place where it is decided."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
from jaxtyping import Bool, Float, Int32

from singlestream.batch import IMAGE, TEXT, Array, Size

FIELDS = ("segments", "part", "modality", "place", "where", "token")  # what is known of each token


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=(*FIELDS, "keys", "layer", "perturbation"),
    meta_fields=("direction", "num_text", "slots"),
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Visibility:
    """The rule over one stream of `num_text` text tokens followed by image tokens.

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

    `slots` is a promise of whoever made the batch (`Text.slots`): the text is divided into that many equal stretches
    and no token sees text of another stretch than its own. It changes what is computed, never the result.

    `keys` is the stream that is read where it is another one than the queries' (`towards`).
    """

    segments: Int32[Array, "B L"]
    part: Int32[Array, "B L"]
    modality: Int32[Array, "B L"]
    place: Int32[Array, "B L"] | None = None  # of a token in its text; read where the direction is `causal`
    where: Int32[Array, "B L 3"] | None = None  # (picture, row, column) of an image token in its example, else 0
    token: Int32[Array, "B L"] | None = None  # number of a token in its row: what tells a query's own key
    direction: str = "full"
    num_text: Size = 0
    slots: int = 1
    keys: Visibility | None = None
    layer: Int32[Array, ""] | None = None  # number of the layer that asks; None outside of a stack
    # Added to the attention weights of every layer: zeros, to differentiate with respect to the weights.
    perturbation: Float[Array, "layers B H Q K"] | None = None

    def towards(self, keys: Visibility) -> Visibility:
        """The same rule for queries of this stream over keys of another: cross attention."""
        return dataclasses.replace(self, keys=keys)

    @property
    def read(self) -> Visibility:
        """The stream that is read: this one, or another (`towards`)."""
        return self if self.keys is None else self.keys

    def of_text(self) -> Visibility:
        """The same rule over the text tokens alone."""
        return self.each(lambda x: x[:, : self.num_text])

    def in_layer(self, number: Int32[Array, ""]) -> Visibility:
        """The same rule, asked in a layer of this number."""
        return dataclasses.replace(self, layer=number)

    def at(self, index: Int32[Array, "B M"]) -> Visibility:
        """The same rule over the tokens of these numbers alone."""
        return self.each(lambda x: jax.vmap(lambda row, chosen: row[chosen])(x, index))

    def each(self, change: Callable[[Array], Array]) -> Visibility:
        """The same rule over other tokens: what is known of each, changed alike."""
        known = {name: x for name in FIELDS if (x := getattr(self, name)) is not None}
        return dataclasses.replace(self, **{name: change(x) for name, x in known.items()})

    def mask(self, queries: slice = slice(None), keys: slice = slice(None)) -> Bool[Array, "B Q K"]:
        """True where a query sees a key; for a stretch of queries and keys, or the whole stream."""
        read = self.read
        q_segments, k_segments = self.segments[:, queries, None], read.segments[:, None, keys]
        q_part, k_part = self.part[:, queries, None], read.part[:, None, keys]
        seen = (q_segments == k_segments) & (k_segments != 0) & ((k_part == 0) | (k_part == q_part))
        if self.direction == "full":
            return seen
        q_modality, k_modality = self.modality[:, queries, None], read.modality[:, None, keys]
        seen &= ~((q_modality == IMAGE) & (k_modality == TEXT))
        if self.direction == "causal":
            seen &= (k_modality == IMAGE) | (read.place[:, None, keys] <= self.place[:, queries, None])
        return seen
