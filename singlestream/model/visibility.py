"""Who sees whom: the one place where it is decided."""

from __future__ import annotations

import dataclasses
import functools

import jax
from jaxtyping import Bool, Int32

from singlestream.batch import IMAGE, TEXT, Array, Size


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("segments", "part", "modality", "place", "keys"),
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
    direction: str = "full"
    num_text: Size = 0
    slots: int = 1
    keys: Visibility | None = None

    def towards(self, keys: Visibility) -> Visibility:
        """The same rule for queries of this stream over keys of another: cross attention."""
        return dataclasses.replace(self, keys=keys)

    def of_text(self) -> Visibility:
        """The same rule over the text tokens alone."""
        text = {name: getattr(self, name)[:, : self.num_text] for name in ("segments", "part", "modality")}
        place = None if self.place is None else self.place[:, : self.num_text]
        return dataclasses.replace(self, place=place, **text)

    def mask(self, queries: slice = slice(None), keys: slice = slice(None)) -> Bool[Array, "B Q K"]:
        """True where a query sees a key; for a stretch of queries and keys, or the whole stream."""
        read = self if self.keys is None else self.keys
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
