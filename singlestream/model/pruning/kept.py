"""Who is where in the shorter sequence, and back."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from singlestream.batch import Array, Size
from singlestream.model.pruning.choose import same
from singlestream.model.visibility import Visibility


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
    """A sequence of T text tokens, room for M of the N image tokens, and others: S tokens, where there were L.

    Attributes:
        visibility: who sees whom among them; the spare room is padding.
        index: which image token each place of the room holds.
        place: the place that speaks for each image token.
        own: the image tokens that still have a place of their own.
        spoken: those whose state is that of their place; the others keep the state in `last`.
        number: of each place, its token's own number in its example, whatever lies beside it in row and batch. Of a
            patch its picture, row and column added up, whichever others are there, so that even and odd ones are the
            fields of a chequerboard; of a region how many of the example come before it.
        count: of each place, the image tokens that its example had at first.
        size: of each place, the image tokens that were merged into it.
        last: of each image token, the state that it had at the last drop.
        perturbation: of the attention weights of all layers, between all tokens (`Visibility.perturbation`).
    """

    visibility: Visibility
    index: Int32[Array, "B M"]
    place: Int32[Array, "B N"]
    own: Bool[Array, "B N"]
    spoken: Bool[Array, "B N"]
    number: Int32[Array, "B M"]
    count: Int32[Array, "B M"]
    size: Float[Array, "B M"]
    last: Float[Array, "B N D"]
    perturbation: Float[Array, "layers B H L L"] | None

    @property
    def image(self) -> slice:
        """The room among all tokens."""
        return slice(self.visibility.num_text, self.visibility.num_text + self.index.shape[1])

    @classmethod
    def whole(cls, x: Float[Array, "B L D"], visibility: Visibility, num_image: Size) -> Kept:
        """Nothing is gone yet."""
        image = slice(visibility.num_text, visibility.num_text + num_image)
        segments = visibility.segments[:, image]
        there = same(segments)
        index = jnp.broadcast_to(jnp.arange(num_image, dtype=jnp.int32), segments.shape)
        if visibility.where is None:
            number = (there & (index[:, None] < index[:, :, None])).sum(-1, dtype=jnp.int32)
        else:
            number = visibility.where[:, image].sum(-1, dtype=jnp.int32)
        return cls(
            visibility=visibility,
            index=index,
            place=index,
            own=segments != 0,
            spoken=jnp.ones(segments.shape, bool),
            number=number,
            count=there.sum(-1, dtype=jnp.int32),
            size=jnp.ones(segments.shape, jnp.promote_types(x.dtype, jnp.float32)),
            last=x[:, image],
            perturbation=visibility.perturbation,
        )

    def restore(self, x: Float[Array, "B S D"]) -> Float[Array, "B L D"]:
        """The states with every image token in its place: a dropped one has the last it had."""
        text, rest = x[:, : self.image.start], x[:, self.image.stop :]
        image = jnp.where(self.spoken[..., None], take(x[:, self.image], self.place), self.last)
        return jnp.concatenate([text, image, rest], axis=1)

    def spread(self, weights: Float[Array, "B H S S"]) -> Float[Array, "B H L L"]:
        """Attention weights between all tokens: 0 from and to image tokens that are gone.

        Tokens that were merged into one all attend as it does, and what it receives they share evenly.
        """
        index, there, share = self._members()
        weights = jax.vmap(lambda row, i: row[:, i[:, None], i])(weights, index) * share[:, None, None]
        return jnp.where(there[:, None, :, None] & there[:, None, None], weights, 0)

    def gather(self, perturbation: Float[Array, "layers B H L L"]) -> Float[Array, "layers B H S S"]:
        """What these additions to spread weights add to those of the places: of keys their sum, of queries the mean."""
        index, there, share = self._members()
        shape = (*perturbation.shape[:3], *(self.visibility.segments.shape[1],) * 2)
        given = perturbation * jnp.where(there[:, :, None] & there[:, None], share[:, :, None], 0)[:, None]

        def add(row: Array, empty: Array, i: Array) -> Array:
            return empty.at[..., i[:, None], i].add(row)

        return jax.vmap(add, in_axes=(1, 1, 0), out_axes=1)(given, jnp.zeros(shape, given.dtype), index)

    def shorten(
        self, x: Float[Array, "B S D"], stay: Bool[Array, "B M"], into: Int32[Array, "B M"] | None, room: Size
    ) -> tuple[Float[Array, "B Z D"], Kept]:
        """Leaves `room` places, those that stay in raster order; the others are dropped, or went `into` some that stay.

        Args:
            x: the states; those of places into which others go are already their mean.
            stay: at most so many.
        """
        states = self.restore(x)
        order = jnp.argsort(~stay, axis=1, stable=True).astype(jnp.int32)
        moved = jnp.argsort(order, axis=1).astype(jnp.int32)  # where each place goes
        chosen, first = order[:, :room], self.image.start
        target = self.place if into is None else take(into, self.place)
        tokens = self._tokens(chosen, x.shape[1] - self.image.stop)
        sees = self.visibility.at(tokens)
        filled = take(stay, chosen)
        segments = sees.segments.at[:, first : first + room].multiply(filled.astype(jnp.int32))
        spoken = self.spoken & take(stay, target)
        place = jnp.where(spoken, take(moved, target), 0)
        shorter = dataclasses.replace(
            self,
            visibility=dataclasses.replace(sees, segments=segments),
            index=take(self.index, chosen),
            place=place,
            own=self.own & take(stay, self.place),
            spoken=spoken,
            number=take(self.number, chosen),
            count=take(self.count, chosen),
            size=take(self.size, chosen),
            last=states[:, first : first + self.last.shape[1]],
        )
        if self.perturbation is not None:
            perturbed = shorter.visibility.perturbed(shorter.gather(self.perturbation))
            shorter = dataclasses.replace(shorter, visibility=perturbed)
        return take(x, tokens), shorter

    def _tokens(self, image: Int32[Array, "B R"], others: Size) -> Int32[Array, "B S"]:
        """Numbers of all tokens: of the text, of these image tokens, and of what comes after them."""
        before, after = jnp.arange(self.image.start), self.image.stop + jnp.arange(others)
        rows = image.shape[0]
        around = [jnp.broadcast_to(n.astype(jnp.int32), (rows, *n.shape)) for n in (before, after)]
        return jnp.concatenate([around[0], self.image.start + image, around[1]], axis=1)

    def _members(self) -> tuple[Int32[Array, "B L"], Bool[Array, "B L"], Float[Array, "B L"]]:
        """Of all tokens: the place that speaks for each, whether one does, and its share in that place."""
        rest = self.visibility.segments.shape[1] - self.image.stop
        beside = ((0, 0), (self.image.start, rest))
        together = (self.place[:, :, None] == self.place[:, None]) & self.spoken[:, None]
        share = (1 / jnp.maximum(together.sum(-1), 1)).astype(self.size.dtype)
        there = jnp.pad(self.spoken, beside, constant_values=True)
        return self._tokens(self.place, rest), there, jnp.pad(share, beside, constant_values=1)


def take(x: Array, index: Int32[Array, "B M"]) -> Array:
    """Of each row, what stands at these numbers."""
    return jax.vmap(lambda row, chosen: row[chosen])(x, index)
