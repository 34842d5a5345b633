"""Masked language modelling beside a picture (Devlin et al. 2019, section 3.1; VisualBERT, section 3.3)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int32

from singlestream.batch import Array, Batch, Spec, Text
from singlestream.model.heads import HeadConfig
from singlestream.objectives import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """`rate` of the tokens are predicted; `whole_word` draws words and not pieces (ViLT, section 3.2); `named` draws
    among words that are known to name something in the picture (`Batch.targets["word_boxes"]`).
    """

    rate: float = 0.15
    whole_word: bool = False
    named: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"config.objective_options.mlm.rate={self.rate}: must be in (0, 1)")


class Objective(base.Objective):
    """Of the drawn tokens 80% become [MASK], 10% a random piece, 10% stay; all of them are predicted."""

    def __init__(self, options: Options):
        super().__init__(options)
        self.targets = ("word_boxes",) if options.named else ()

    def heads(self, config, spec):
        return {"mlm": HeadConfig(kind="vocabulary", size=spec.vocab_size, source="text")}

    def loss(self, encode, heads, batch, spec, key, state):
        masked, chosen = encode.view("mlm", lambda: mask_tokens(batch, spec, key, self.options))
        logits = heads["mlm"](encode(masked))
        loss, accuracy = base.cross_entropy(logits, batch.text.ids, chosen)
        return {"loss": loss, "accuracy": accuracy}, state


def mask_tokens(batch: Batch, spec: Spec, key: jax.Array, options: Options) -> tuple[Batch, Bool[Array, "B T"]]:
    """The batch with tokens masked, and where; special tokens and padding are never drawn."""
    ids = batch.text.ids
    draw_key, kind_key, random_key = jax.random.split(key, 3)
    draw = jax.random.uniform(draw_key, ids.shape)
    if options.whole_word:
        draw = jnp.take_along_axis(draw, _word_start(ids, spec), axis=1)
    chosen = (draw < options.rate) & maskable(batch.text, spec)
    if options.named:
        boxes = batch.targets["word_boxes"]
        chosen &= (boxes[..., 2] > boxes[..., 0]).any(-1)
    kind = jax.random.uniform(kind_key, ids.shape)
    first_word = max(spec.pad_id, spec.unk_id, spec.cls_id, spec.sep_id, spec.mask_id) + 1
    noise = jax.random.randint(random_key, ids.shape, first_word, spec.vocab_size, ids.dtype)
    changed = jnp.where(kind < 0.8, spec.mask_id, jnp.where(kind < 0.9, noise, ids))
    text = dataclasses.replace(batch.text, ids=jnp.where(chosen, changed, ids).astype(ids.dtype))
    return batch.replace(text=text), chosen


def maskable(text: Text, spec: Spec) -> Bool[Array, "B T"]:
    special = jnp.array([spec.pad_id, spec.unk_id, spec.cls_id, spec.sep_id, spec.mask_id])
    known = text.ids < spec.vocab_size  # tokens of tasks follow the vocabulary
    return (text.segments != 0) & known & (text.ids[..., None] != special).all(-1)


def _word_start(ids: Int32[Array, "B T"], spec: Spec) -> Int32[Array, "B T"]:
    """The column at which each token's word begins: the last one that is no continuation."""
    continues = np.zeros((spec.vocab_size,), bool)
    continues[list(spec.continuations)] = True
    columns = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    return jax.lax.cummax(jnp.where(jnp.asarray(continues)[ids], 0, columns), axis=1)
