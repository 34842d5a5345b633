"""Decisions of each modality, averaged: what a head makes of the text alone and of the picture alone."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.block import dense
from singlestream.model.config import ModelConfig
from singlestream.model.heads import DECISIONS


class Join(nnx.Module):
    """Heads read U t and V v each by itself, and their logits are averaged: the fixed rule "mean" of classifiers
    (Kittler et al. 1998, of probabilities; here of logits, whose mean is a product of experts).

    Whatever the head is, what it decides is a sum of what each modality says: neither asks the other.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.text, self.image = (dense(config, config.width, config.width, rngs=rngs) for _ in range(2))

    def __call__(
        self, text: Float[Array, "B K D"], image: Float[Array, "B K D"]
    ) -> tuple[Float[Array, "B K D"], dict[str, Array]]:
        each = jnp.stack([self.text(text), self.image(image)], axis=2)
        return each.mean(2), {DECISIONS: each}
