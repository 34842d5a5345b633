"""One of the two streams on its way through its own layers and the cross layers."""

from __future__ import annotations

import jax

from singlestream.batch import Array
from singlestream.model.encoder import Encoder, divide
from singlestream.model.two_stream_config import TwoStreamConfig
from singlestream.model.visibility import Visibility


class Side:
    """One stream on its way through its own layers, and what each of them left.

    Args:
        name: `text` or `image`.
        encoder: its own layers.
        x, visibility: its embedded tokens, and who sees whom among them.
    """

    def __init__(
        self,
        config: TwoStreamConfig,
        name: str,
        encoder: Encoder,
        x: Array,
        visibility: Visibility,
        key: jax.Array | None,
        attention: bool,
    ):
        of_text = name == "text"
        places = config.cross_after_text if of_text else config.cross_after_image
        self.fixed = config.fixed_layers if of_text else config.fixed_image_layers
        self.shared = config.cross == "shared"  # whether the stream reads itself in a cross layer, too
        self.encoder, self.x, self.visibility, self.attention = encoder, x, visibility, attention
        self.hidden: list[Array] = []
        self.weights: list[Array] = []
        self.ran = self.crossed = 0  # own layers that ran, and cross layers in which the stream read itself
        ends = sorted({*places, self.fixed, encoder.config.num_layers} - {0})
        sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        self.stretches = list(zip(ends, divide(encoder.layers(key), sizes), strict=True))

    def advance(self, layers: int) -> None:
        """Runs what is missing of the first so many layers."""
        while self.stretches and self.stretches[0][0] <= layers:
            end, stretch = self.stretches.pop(0)
            self.x, hidden, weights = self.encoder.run(stretch, self.x, self._own(), attention=self.attention)
            self.ran = end
            self.hidden += list(hidden)
            if weights is not None:
                self.weights.append(weights)
            if end == self.fixed:
                self.x = jax.lax.stop_gradient(self.x)

    def crossing(self) -> Visibility:
        """Who sees whom within the stream in the cross layer that comes now."""
        return change_of(self.visibility, self.ran + self.crossed) if self.shared else self.visibility.perturbed(None)

    def put(self, x: Array) -> None:
        """The states that a cross layer made of these."""
        self.x = x
        self.hidden.append(x)
        self.crossed += self.shared

    def _own(self) -> Visibility:
        """Who sees whom in the stream's own layers that come now, whose numbers leave out the cross layers."""
        change = self.visibility.perturbation
        return self.visibility if change is None else self.visibility.perturbed(change[self.crossed :])


def change_of(sees: Visibility, number: int) -> Visibility:
    """What is added to attention weights is now that of one layer."""
    return sees if sees.perturbation is None else sees.perturbed(sees.perturbation[number])
