"""Dense supervision by place: image tokens name what lies under them, naming words say where it lies.

The region classes that models of VisualBERT's age took from a detector, as targets: masked region classification
(Chen et al. 2020, UNITER, section 3.2) without the mask, plus the centre of the object, plus referent pointing for
words. It is supervision beyond question and answer; whoever reports a figure that used it says so.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Bool, Float

from singlestream.batch import Array
from singlestream.model.heads import HeadConfig
from singlestream.objectives import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Weights of the three terms, bins of a coordinate, and the layer whose states at a word point (0: the last)."""

    region: float = 1.0
    centre: float = 0.5
    word: float = 1.0
    bins: int = 12
    layer: int = 3


class Objective(base.Objective):
    """Cross-entropies: each attribute's class of an image token, its object's centre, a word's referent's centre."""

    targets = ("region_class", "region_centre", "word_boxes")

    def __init__(self, options: Options):
        super().__init__(options)
        self.terms = {
            "region_loss": options.region,
            "centre_loss": options.centre,
            "word_loss": options.word,
        }

    def heads(self, config, spec):
        if not spec.region_classes:
            raise ValueError("this data has no region classes, locate cannot learn from it")
        if self.options.layer > config.num_layers:
            raise ValueError(
                f"config.objective_options.locate.layer={self.options.layer} is more than config.model.num_layers="
                f"{config.num_layers}"
            )
        bins = 2 * self.options.bins
        return {
            "locate_region": HeadConfig(size=sum(n + 1 for n in spec.region_classes), source="image"),
            "locate_centre": HeadConfig(size=bins, source="image"),
            "locate_word": HeadConfig(size=bins, source="text", layer=self.options.layer),
        }

    def loss(self, encode, heads, batch, spec, key, state):
        encoded, image_mask = encode(batch), batch.image.segments > 0
        region_loss, region_hits = base.region_cross_entropy(
            heads["locate_region"](encoded), batch.targets["region_class"], image_mask, spec
        )
        centre = batch.targets["region_centre"]
        centre_loss, centre_hits = self._places(
            heads["locate_centre"](encoded), centre, image_mask & (centre[..., 0] >= 0)
        )
        place, named = single_centre(batch.targets["word_boxes"])
        word_loss, word_hits = self._places(heads["locate_word"](encoded), place, named & (batch.text.segments > 0))
        metrics = {
            "region_loss": region_loss,
            "centre_loss": centre_loss,
            "word_loss": word_loss,
            "region_accuracy": region_hits,
            "centre_accuracy": centre_hits,
            "word_accuracy": word_hits,
        }
        return metrics, state

    def _places(
        self, logits: Float[Array, "B S C"], place: Float[Array, "B S 2"], mask: Bool[Array, "B S"]
    ) -> tuple[base.Sums, base.Sums]:
        """Two classifications into bins, of x and of y."""
        bins = self.options.bins
        logits = logits.reshape(*logits.shape[:-1], 2, bins)
        labels = jnp.clip((place * bins).astype(jnp.int32), 0, bins - 1)
        return base.cross_entropy(logits, labels, jnp.broadcast_to(mask[..., None], labels.shape))


def single_centre(boxes: Float[Array, "B T M 4"]) -> tuple[Float[Array, "B T 2"], Bool[Array, "B T"]]:
    """(x, y) of the centre of what a word names, and where the word names exactly one thing."""
    present = boxes[..., 2] > boxes[..., 0]
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    total = jnp.where(present[..., None], centres, 0).sum(-2)
    return total, present.sum(-1) == 1
