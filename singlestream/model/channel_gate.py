"""Channels of text and picture, each scaled by what is in both: squeeze and excitation over two modalities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import IMAGE, TEXT, Array
from singlestream.model.block import dense
from singlestream.model.config import ModelConfig
from singlestream.model.visibility import Visibility


def seen_means(x: Float[Array, "B L D"], visibility: Visibility) -> Float[Array, "B L two_D"]:
    """For each token the mean over the text tokens that it sees, then over the image tokens; 0 where there is none."""
    mask, modality = visibility.mask(), visibility.modality[:, None]
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def mean(kind: int) -> Array:
        weights = (mask & (modality == kind)).astype(wide.dtype)
        return jnp.einsum("blm,bmd->bld", weights, wide) / jnp.maximum(weights.sum(-1, keepdims=True), 1)

    return jnp.concatenate([mean(TEXT), mean(IMAGE)], axis=-1).astype(x.dtype)


class ChannelGate(nnx.Module):
    """x * 2 sigmoid(W_m relu(W [text; image])), with W_m of the token's own modality.

    Squeeze and excitation (Hu et al. 2018, section 3), with one squeeze of both modalities as in MMTM (Joze et al.
    2020, section 3.2), whose factor 2 lets a gate open as well as close. W narrows to D / `config.channel_gate`.

    There is one, before the layers on both modalities, after encoders of each: a channel still means what its own
    modality made of it there, as in MMTM, and what attention mixes comes gated. The means are over what a token
    sees, so no direction is undone: with `prefix` a picture's gates know nothing of its texts.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        width, narrow = config.width, config.width // config.channel_gate
        self.squeeze = dense(config, 2 * width, narrow, rngs=rngs)
        self.text = dense(config, narrow, width, rngs=rngs)
        self.image = dense(config, narrow, width, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B L D"], visibility: Visibility
    ) -> tuple[Float[Array, "B L D"], Float[Array, "B L D"]]:
        """The gated tokens, and the gates, in (0, 2)."""
        squeezed = jax.nn.relu(self.squeeze(seen_means(x, visibility)))
        of_text = (visibility.modality == TEXT)[..., None]
        gates = 2 * jax.nn.sigmoid(jnp.where(of_text, self.text(squeezed), self.image(squeezed)))
        return x * gates, gates
