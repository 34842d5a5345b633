"""Every initialisation in one table."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.config import ModelConfig

zeros = nnx.initializers.zeros_init()


def initializer(name: str, config: ModelConfig) -> nnx.Initializer:
    """The initialiser of a kind of parameter, by the name used throughout the model.

    | name | parameter | start |
    | --- | --- | --- |
    | dense | every projection of the encoder, stems and heads | Glorot uniform, as in ViT (Dosovitskiy et al. 2021) |
    | token | word embeddings | normal, `config.embed_std` |
    | position | text positions, and image positions unless `position_init="fourier"` | normal, `config.embed_std` |
    | type | modality, token-type and picture-number embeddings | normal, 0.02 (BERT) |
    """
    table: dict[str, nnx.Initializer] = {
        "dense": nnx.initializers.xavier_uniform(),
        "token": nnx.initializers.normal(config.embed_std),
        "position": nnx.initializers.normal(config.embed_std),
        "type": nnx.initializers.normal(0.02),
    }
    return table[name]


def fourier_grid(key: jax.Array, rows: int, columns: int, width: int, *, rms: float = 0.6) -> Float[Array, "R C D"]:
    """A smooth start for a learned grid of positions: random mixtures of low Fourier features of the coordinates.

    Neighbours start alike and far places apart, as strong as the content beside them; independent normal rows have
    to learn first that the picture is a plane.
    """
    y = (jnp.arange(rows) + 0.5)[:, None] / rows
    x = (jnp.arange(columns) + 0.5)[None, :] / columns
    y, x = jnp.broadcast_arrays(y, x)
    waves = [f(math.pi * k * c) for c in (y, x) for k in range(1, 5) for f in (jnp.sin, jnp.cos)]
    features = jnp.stack(waves, axis=-1)
    table = features @ jax.random.normal(key, (features.shape[-1], width))
    return table * (rms / jnp.sqrt(jnp.mean(table**2)))
