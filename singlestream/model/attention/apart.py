"""How far apart the two tokens of a pair are: in their text, or in their picture."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Int32

from singlestream.batch import IMAGE, TEXT, Array
from singlestream.model.visibility import Visibility


class Apart(NamedTuple):
    """Key minus query, for pairs of one segment. A word and a patch have no axis in common, nor have two pictures."""

    in_text: Bool[Array, "B Q K"]  # both are words of one text: `place` counts
    in_picture: Bool[Array, "B Q K"]  # both are patches of one picture: `row` and `column` count
    place: Int32[Array, "B Q K"]
    row: Int32[Array, "B Q K"]
    column: Int32[Array, "B Q K"]


def apart(visibility: Visibility) -> Apart:
    """Of the queries and keys that `visibility` describes. Regions have no row and column: no pair is `in_picture`."""
    own, read = visibility, visibility.read
    same_part = own.part[:, :, None] == read.part[:, None]  # texts and pictures of another part begin anew

    def both(modality: int) -> Bool[Array, "B Q K"]:
        return same_part & (own.modality == modality)[:, :, None] & (read.modality == modality)[:, None]

    place = read.place[:, None] - own.place[:, :, None]
    if own.where is None or read.where is None:
        return Apart(both(TEXT), jnp.zeros_like(same_part), place, jnp.zeros_like(place), jnp.zeros_like(place))
    other_picture, row, column = jnp.moveaxis(read.where[:, None] - own.where[:, :, None], -1, 0)
    in_picture = both(IMAGE) & (other_picture == 0) & (own.where[..., :1] >= 0)
    return Apart(both(TEXT), in_picture, place, row, column)
