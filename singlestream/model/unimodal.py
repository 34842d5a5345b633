"""A published model of one modality (BERT, ViT) that reads its part of a batch alone, as others learn from it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Int32

from singlestream.batch import Array, Batch, Patches, Spec
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig
from singlestream.model.single_stream import SingleStream


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unimodal:
    """What such a model is; its parameters are held by whoever calls it.

    Attributes:
        reads: `text` or `image`.
        config: a single stream; what would read the other modality is there, small, and never reached.
        vocab_size: of its words.
        heads: those that it came with.
    """

    reads: str
    config: ModelConfig
    vocab_size: int = 1
    heads: Mapping[str, HeadConfig] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def _split(self) -> tuple[Any, Any]:
        def make() -> SingleStream:
            return SingleStream(self.config, Spec(vocab_size=self.vocab_size), heads=self.heads, rngs=nnx.Rngs(0))

        graphdef, params = nnx.split(nnx.eval_shape(make))
        return graphdef, nnx.to_pure_dict(params)

    def empty_params(self) -> dict[str, Any]:
        """A pure dict of zeros, for the parameters to be put into."""
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self._split[1])

    def with_params(self, params: Any) -> SingleStream:
        """The model, for `text_alone` or `pictures_alone` of a batch; no gradient reaches `params`."""
        return nnx.merge(self._split[0], jax.lax.stop_gradient(params))


def text_alone(batch: Batch) -> Batch:
    """The batch without image tokens; its texts do not see one another as they did not before."""
    return batch.replace(image=_no_tokens(batch.image))


def pictures_alone(batch: Batch, *, patch_size: int, num_images: int) -> Batch:
    """Every picture by itself, as one example without text, whatever examples share it or have it beside others.

    Args:
        patch_size: of the patches without their margin, which is cut off.
        num_images: pictures of one example, at most.
    """
    image = batch.image
    assert isinstance(image, Patches)
    # A number for each (segment, part, index), the same for all tokens of a picture.
    wide = 1 + jnp.maximum(image.part, image.index).max(initial=0)
    ids = jnp.where(image.segments > 0, (image.segments * wide + image.part) * wide + image.index, 0)
    own = image.segments[:, None] == batch.examples[:, :, :1]
    own &= (image.part[:, None] == 0) | (image.part[:, None] == batch.examples[:, :, 1:])
    found = _different(ids, own & (ids > 0)[:, None], num_images)
    alone = Patches(
        pixels=_inner(image.pixels, patch_size),
        yx=image.yx,
        grid=image.grid,
        index=jnp.zeros_like(ids),
        segments=ids,
        part=jnp.zeros_like(ids),
    )
    return Batch(
        inputs={"text": dataclasses.replace(_no_tokens(batch.text), slots=1), "image": alone},
        examples=jnp.stack([found, jnp.zeros_like(found)], axis=-1),
        example_mask=found > 0,
        picture=jnp.zeros_like(found),
    )


def _no_tokens(part: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[:, :0], part)


def _different(ids: Int32[Array, "B N"], own: Bool[Array, "B K N"], count: int) -> Int32[Array, "B KC"]:
    """The ids of the tokens that each example owns, `count` at most, each once in a row; 0 where there is none."""
    none = jnp.iinfo(jnp.int32).max
    last, found = jnp.zeros(own.shape[:2], jnp.int32), []
    for _ in range(count):
        left = own & (ids[:, None] > last[..., None])
        last = jnp.where(left, ids[:, None], none).min(-1, initial=none)
        found.append(jnp.where(last < none, last, 0))
    chosen = jnp.concatenate(found, axis=1)
    again = jnp.tril(chosen[:, :, None] == chosen[:, None], -1).any(-1)
    return jnp.where(again, 0, chosen)


def _inner(pixels: Array, patch_size: int) -> Array:
    """Windows [B, N, (P + 2 m)^2 * 3] without their margins."""
    window = math.isqrt(pixels.shape[-1] // 3)
    margin = (window - patch_size) // 2
    inner = slice(margin, window - margin)
    square = pixels.reshape(-1, window, window, 3)[:, inner, inner]
    return square.reshape(*pixels.shape[:2], 3 * patch_size**2)
