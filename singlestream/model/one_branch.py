"""A layer of an encoder of one modality: one branch with a residual, where a layer of the transformer has two."""

from __future__ import annotations

import jax
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.block import Residual, layer_norm, out_norm
from singlestream.model.config import ModelConfig
from singlestream.model.visibility import Visibility


class OneBranch(Residual):
    """What `Stack` runs: the norms where `config.norm` has them, `branch` between."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config)
        self.branch_norm, self.out_norm = layer_norm(config, rngs=rngs), out_norm(config, rngs=rngs)

    def branch(self, x: Float[Array, "B M D"], visibility: Visibility) -> Float[Array, "B M D"]:
        """What the layer adds."""
        raise NotImplementedError

    def __call__(
        self,
        x: Float[Array, "B M D"],
        visibility: Visibility,
        *,
        depth_rate: Float[Array, ""],
        key: jax.Array | None = None,
        weights: bool = False,
    ) -> tuple[Float[Array, "B M D"], None]:
        """One layer; there are no attention weights to return. `key=None` switches dropout off."""
        keys = [None] * 2 if key is None else list(jax.random.split(key))
        found = self.branch(self.before(x, self.branch_norm), visibility)
        return self.after(x, found, self.branch_norm, self.out_norm, depth_rate, keys), None
