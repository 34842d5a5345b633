"""Grounding: which image token an expression speaks of, and the box it means.

Regions are chosen (Chen et al. 2020, UNITER; Li et al. 2019, VisualBERT, section 4.4). Over patches the choice goes
with a box that each patch says, as in one-stage grounding (Yang et al. 2019), and the box is the mean over patches by
the probabilities of the choice.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from singlestream.batch import Array, Batch, Encoded, Regions
from singlestream.model.boxes import AGREE, centre_and_size, corners, generalized_iou, iou, token_boxes
from singlestream.model.heads import HeadConfig
from singlestream.model.pooling import tokens_of
from singlestream.model.two_stream_config import TwoStreamConfig
from singlestream.objectives import base

OF = ("phrases", "texts")
OUT = -1e30  # score of a token that is no choice; not -inf: a row without a picture would give NaN


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is grounded, one of `OF`, and the weights of the choice and, over patches, of a box's two losses.

    The weights of a box are DETR's (Carion et al. 2020, appendix A.4), which MDETR keeps.
    """

    of: str = "phrases"
    choice: float = 1.0
    l1: float = 5.0
    giou: float = 2.0

    def __post_init__(self) -> None:
        if self.of not in OF:
            raise ValueError(f"config.objective_options.ground.of={self.of!r}: choose one of {', '.join(OF)}")


class Asked(NamedTuple):
    """Q expressions of a row: the box each means, whether it counts, and which image tokens it may choose from."""

    truth: Float[Array, "B Q 4"]
    counts: Bool[Array, "B Q"]
    tokens: Bool[Array, "B Q N"]


class Found(NamedTuple):
    """What Q expressions are taken to mean: scores of image tokens, the tokens' boxes, and the box of each expression.

    A region's box is its own, a patch's the one that it says.
    """

    scores: Float[Array, "B Q N"]
    boxes: Float[Array, "B N 4"]
    box: Float[Array, "B Q 4"]


class Objective(base.Objective):
    """Cross-entropy of the choice; over patches also L1 and generalised IoU of the box (DETR, section 3.1).

    `phrases`: each run of words that name the same one thing asks, by the state of its last token, which image token it
    means (the head of VisualBERT for Flickr30k Entities). `texts`: each text all of whose naming words mean one and the
    same thing, as a referring expression; image tokens, which have read the text, score themselves (UNITER, ViLBERT).

    Of regions the right one has the highest IoU with the true box; where that is below 0.5 there is no loss, and
    whatever is chosen misses. Of patches it is the one nearest to the box's centre. Accuracy is the share of
    expressions whose box has an IoU of 0.5 or more with the truth. Boxes are those of an example's first picture.
    """

    targets = ("word_boxes",)

    def heads(self, config, spec):
        options, stem = self.options, config.inputs.image_stem
        self.terms = {"choice_loss": options.choice}
        heads = {"phrase": HeadConfig(kind="regions", size=config.width, source="text")}
        if options.of == "texts":
            if not config.picture_reads_text:
                every = "both" if isinstance(config, TwoStreamConfig) else "full"
                raise ValueError(
                    "config.objective_options.ground.of='texts' needs pictures that read their text, config.model."
                    f"direction={config.direction!r} hides it from them: set it to {every!r}, or of='phrases'"
                )
            heads = {"grounding": HeadConfig(size=1, source="image")}
        elif isinstance(config, TwoStreamConfig) and config.image_width != config.width:
            raise ValueError(
                f"config.objective_options.ground.of='phrases' compares words and regions: config.model.width="
                f"{config.width} and config.model.image_width={config.image_width} must be equal, or set of='texts'"
            )
        if stem == "regions":
            return heads
        self.terms |= {"l1_loss": options.l1, "giou_loss": options.giou}
        return heads | {"ground_box": HeadConfig(kind="classifier", size=4, source="image")}

    def loss(self, encode, heads, batch, spec, key, state):
        asked, found = ground(heads, encode(batch), batch, self.options.of)
        hits = (iou(found.box, asked.truth) >= AGREE).astype(jnp.float32)
        losses = _of_regions if isinstance(batch.image, Regions) else _of_patches
        return {**losses(found, asked, batch), "accuracy": base.masked_sum(hits, asked.counts)}, state


def ground(heads: base.Heads, encoded: Encoded, batch: Batch, of: str) -> tuple[Asked, Found]:
    """The expressions of a batch, one of the kinds `OF`, and what they mean to a model with the objective's heads."""
    if of == "phrases":
        asked, scores = phrases(batch), heads["phrase"](encoded)
    else:
        asked, scores = texts(batch), heads["grounding"](encoded)[..., 0][:, None]
    scores, boxes = jnp.where(asked.tokens, scores, OUT), token_boxes(batch.image)
    if isinstance(batch.image, Regions):
        return asked, Found(scores, boxes, jnp.take_along_axis(boxes, scores.argmax(-1)[..., None], axis=1))
    boxes = patch_boxes(heads["ground_box"](encoded), boxes)
    share = jax.nn.softmax(scores, axis=-1)
    return asked, Found(scores, boxes, jnp.einsum("bqn,bnc->bqc", share, boxes, precision=jax.lax.Precision.HIGHEST))


def phrases(batch: Batch) -> Asked:
    """A place for each text token; the last one of a phrase that names one thing counts."""
    text, image = batch.text, batch.image
    truth, one = _single_box(batch.targets["word_boxes"])
    together = (truth[:, 1:] == truth[:, :-1]).all(-1) & one[:, 1:]
    for of in (text.segments, text.part):
        together &= of[:, 1:] == of[:, :-1]
    last = jnp.pad(~together, ((0, 0), (0, 1)), constant_values=True)
    tokens = text.segments[..., None] == image.segments[:, None]
    tokens &= (image.part[:, None] == 0) | (text.part[..., None] == image.part[:, None])
    tokens &= (image.segments[:, None] != 0) & (image.index[:, None] == 0)
    example = (tokens_of(text, batch.examples) & batch.example_mask[..., None]).any(1)
    return Asked(truth, one & last & example & tokens.any(-1), tokens)


def texts(batch: Batch) -> Asked:
    """A place for each example; it counts where its words name one thing and no other."""
    word, one = _single_box(batch.targets["word_boxes"])
    named = (batch.targets["word_boxes"][..., 2] > batch.targets["word_boxes"][..., 0]).any(-1)
    own = tokens_of(batch.text, batch.examples) & named[:, None]
    highest = jnp.where(own[..., None], word[:, None], 0).max(-2)
    lowest = jnp.where(own[..., None], word[:, None], 1).min(-2)
    counts = batch.example_mask & own.any(-1) & ~(own & ~one[:, None]).any(-1) & (highest == lowest).all(-1)
    tokens = base.image_tokens_of(batch) & (batch.image.index[:, None] == 0)
    return Asked(highest, counts & tokens.any(-1), tokens)


def patch_boxes(raw: Float[Array, "B N 4"], cells: Float[Array, "B N 4"]) -> Float[Array, "B N 4"]:
    """The box that each patch says; its centre counts from the patch's own (Deformable DETR, appendix A.3)."""
    centre = centre_and_size(cells)[..., :2]
    start = jnp.concatenate([jnp.log(centre) - jnp.log1p(-centre), jnp.zeros_like(centre)], axis=-1)
    return corners(jax.nn.sigmoid(raw + start))


def _single_box(boxes: Float[Array, "B T M 4"]) -> tuple[Float[Array, "B T 4"], Bool[Array, "B T"]]:
    """The box of a word, and whether it names exactly one thing."""
    present = boxes[..., 2] > boxes[..., 0]
    return jnp.where(present[..., None], boxes, 0).sum(-2), present.sum(-1) == 1


def _of_regions(found: Found, asked: Asked, batch: Batch) -> base.Metrics:
    fit = jnp.where(asked.tokens, iou(found.boxes[:, None], asked.truth[:, :, None]), -1)
    label = jnp.where(fit.max(-1) >= AGREE, jax.lax.argmax(fit, 2, jnp.int32), fit.shape[-1])
    return {"choice_loss": base.cross_entropy(found.scores, label, asked.counts)[0]}


def _of_patches(found: Found, asked: Asked, batch: Batch) -> base.Metrics:
    truth, cells = asked.truth, token_boxes(batch.image)
    middle, place = (centre_and_size(x)[..., :2] for x in (cells, truth))
    far = jnp.square(middle[:, None] - place[:, :, None]).sum(-1)
    label = jax.lax.argmin(jnp.where(asked.tokens, far, jnp.inf), 2, jnp.int32)
    apart = jnp.abs(centre_and_size(found.box) - centre_and_size(truth)).sum(-1)
    return {
        "choice_loss": base.cross_entropy(found.scores, label, asked.counts)[0],
        "l1_loss": base.masked_sum(apart, asked.counts),
        "giou_loss": base.masked_sum(1 - generalized_iou(found.box, truth), asked.counts),
    }
