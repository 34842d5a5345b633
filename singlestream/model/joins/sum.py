"""The sum of two projections: what each modality says is added, and neither asks the other."""

from __future__ import annotations

from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.model.block import dense
from singlestream.model.config import ModelConfig


class Join(nnx.Module):
    """U t + V v."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.text, self.image = (dense(config, config.width, config.width, rngs=rngs) for _ in range(2))

    def __call__(
        self, text: Float[Array, "B K D"], image: Float[Array, "B K D"]
    ) -> tuple[Float[Array, "B K D"], dict[str, Array]]:
        return self.text(text) + self.image(image), {}
