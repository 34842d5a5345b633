"""Who is where in the shorter sequence, and back."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from singlestream.batch import Array, Size
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
        count: of each place, the image tokens that its example had at first.
        size: of each place, the image tokens that were merged into it.
    """

    visibility: Visibility
    index: Int32[Array, "B M"]
    place: Int32[Array, "B N"]
    own: Bool[Array, "B N"]
    spoken: Bool[Array, "B N"]
    count: Int32[Array, "B M"]
    size: Float[Array, "B M"]
    last: Float[Array, "B N D"]

    @property
    def image(self) -> slice:
        """The room among all tokens."""
        return slice(self.visibility.num_text, self.visibility.num_text + self.index.shape[1])

    @classmethod
    def whole(cls, x: Float[Array, "B L D"], visibility: Visibility, num_image: Size) -> Kept:
        """Nothing is gone yet."""
        image = slice(visibility.num_text, visibility.num_text + num_image)
        segments = visibility.segments[:, image]
        there = (segments[:, :, None] == segments[:, None]) & (segments != 0)[:, :, None]
        number = jnp.broadcast_to(jnp.arange(num_image, dtype=jnp.int32), segments.shape)
        return cls(
            visibility=visibility,
            index=number,
            place=number,
            own=segments != 0,
            spoken=jnp.ones(segments.shape, bool),
            count=there.sum(-1, dtype=jnp.int32),
            size=jnp.ones(segments.shape, jnp.promote_types(x.dtype, jnp.float32)),
            last=x[:, image],
        )

    def restore(self, x: Float[Array, "B S D"]) -> Float[Array, "B L D"]:
        """The states with every image token in its place: a dropped one has the last it had."""
        text, rest = x[:, : self.image.start], x[:, self.image.stop :]
        image = jnp.where(self.spoken[..., None], take(x[:, self.image], self.place), self.last)
        return jnp.concatenate([text, image, rest], axis=1)

    def spread(self, weights: Float[Array, "B H S S"]) -> Float[Array, "B H L L"]:
        """Attention weights between all tokens: 0 from and to image tokens that are gone."""
        index = self._tokens(self.place, self.visibility.segments.shape[1] - self.image.stop)
        there = self._tokens_mask()
        weights = _pairs(weights, index)
        return jnp.where(there[:, None, :, None] & there[:, None, None], weights, 0)

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
        perturbation = self.visibility.perturbation
        if perturbation is not None:
            seen = (segments != 0)[:, None, None]
            perturbation = jnp.where(seen, jax.vmap(lambda layer: _pairs(layer, tokens))(perturbation), 0)
        spoken = self.spoken & take(stay, target)
        place = jnp.where(spoken, take(moved, target), 0)
        return take(x, tokens), dataclasses.replace(
            self,
            visibility=dataclasses.replace(sees, segments=segments, perturbation=perturbation),
            index=take(self.index, chosen),
            place=place,
            own=self.own & take(stay, self.place),
            spoken=spoken,
            count=take(self.count, chosen),
            size=take(self.size, chosen),
            last=states[:, first : first + self.last.shape[1]],
        )

    def _tokens(self, image: Int32[Array, "B R"], others: Size) -> Int32[Array, "B S"]:
        """Numbers of all tokens: of the text, of these image tokens, and of what comes after them."""
        before, after = jnp.arange(self.image.start), self.image.stop + jnp.arange(others)
        rows = image.shape[0]
        around = [jnp.broadcast_to(n.astype(jnp.int32), (rows, *n.shape)) for n in (before, after)]
        return jnp.concatenate([around[0], self.image.start + image, around[1]], axis=1)

    def _tokens_mask(self) -> Bool[Array, "B L"]:
        rest = self.visibility.segments.shape[1] - self.image.stop
        return jnp.pad(self.own, ((0, 0), (self.image.start, rest)), constant_values=True)


def take(x: Array, index: Int32[Array, "B M"]) -> Array:
    """Of each row, what stands at these numbers."""
    return jax.vmap(lambda row, chosen: row[chosen])(x, index)


def _pairs(matrix: Array, index: Int32[Array, "B M"]) -> Array:
    """[B, H, M, M]: rows and columns of these numbers."""
    return jax.vmap(lambda m, i: m[:, i[:, None], i])(matrix, index)
