"""VisualBERT without early fusion (Li et al. 2019, section 5.1): the image joins the text after the encoder."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.config import ModelConfig
from singlestream.model.encoder import Encoder
from singlestream.model.visibility import Visibility


class LateFusion(Encoder):
    """An encoder of the text alone; then `late`, of `config.late_layers` layers, over its states and the image.

    With one late layer it is `bypass_transformer` in the authors' code. A start from BERT fills the first encoder.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        self.late = Encoder(dataclasses.replace(config, num_layers=config.late_layers, late_layers=0), rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B L D"],
        visibility: Visibility,
        *,
        key: jax.Array | None = None,
        attention: bool = False,
    ) -> tuple[Float[Array, "B L D"], Any, Float[Array, "layers B H L L"] | None]:
        """Runs both.

        Returns:
            What `Encoder` does, of all layers. Image tokens have their embeddings for states, and attention weights of
            0, in the layers that they pass by.
        """
        keys = (None, None) if key is None else jax.random.split(key)
        image, first = x[:, visibility.num_text :], visibility.of_text()
        if visibility.perturbation is not None:
            of_text, change = slice(visibility.num_text), visibility.perturbation
            first = first.perturbed(change[: self.config.num_layers, :, :, of_text, of_text])
            visibility = visibility.perturbed(change[self.config.num_layers :])
        text, early, own = super().__call__(x[:, : visibility.num_text], first, key=keys[0], attention=attention)
        x = jnp.concatenate([text, image], axis=1)
        x, hidden, weights = self.late(x, visibility, key=keys[1], attention=attention)
        hidden = (*(jnp.concatenate([states, image], axis=1) for states in early), *hidden)
        if own is not None and weights is not None:
            beside = (0, image.shape[1])
            weights = jnp.concatenate([jnp.pad(own, ((0, 0), (0, 0), (0, 0), beside, beside)), weights])
        return x, hidden, weights
