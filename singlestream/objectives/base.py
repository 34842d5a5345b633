"""The interface of an objective, and the sums that several of them need."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from singlestream.batch import Array, Batch, Encoded, Spec
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig

Encode = Callable[[Batch], Encoded]
Heads = Mapping[str, Callable[[Encoded], Array]]
Sums = tuple[Float[Array, ""], Float[Array, ""]]  # (sum, count): divided only after all devices and parts are added
Metrics = dict[str, Sums]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Options of an objective that has none."""


class Objective:
    """Base of the class `Objective` that each file offers.

    Attributes:
        targets: the entries of `Batch.targets` that the loss reads.
        needs_others: whether the loss takes other rows of a batch, as negatives; a part of one row is then refused.
        terms: which metrics are losses, and the weight of each within this objective.
    """

    targets: ClassVar[tuple[str, ...]] = ()
    needs_others: ClassVar[bool] = False

    def __init__(self, options: Any):
        self.options = options
        self.terms: dict[str, float] = {"loss": 1.0}

    def heads(self, config: ModelConfig, spec: Spec) -> dict[str, HeadConfig]:
        """The heads that the loss calls; ValueError where the model or the data cannot serve them."""
        raise NotImplementedError

    def init_state(self, spec: Spec) -> dict[str, Array]:
        """What the objective keeps between steps; saved with the run."""
        return {}

    def loss(
        self, encode: Encode, heads: Heads, batch: Batch, spec: Spec, key: jax.Array, state: dict[str, Array]
    ) -> tuple[Metrics, dict[str, Array]]:
        """Sums and counts of the losses (see `terms`) and metrics of a batch.

        Args:
            encode: the model; calls with the same `Batch` object are computed once, also between objectives.
            heads: the model's heads by name.
            batch: rows whose `example_mask` is False do not count.
            spec: sizes and special ids.
            key: of what the objective draws; given at evaluation too.
            state: from `init_state`, or what the last step returned.
        """
        raise NotImplementedError


def masked_sum(values: Float[Array, "*S"], mask: Bool[Array, "*S"]) -> Sums:
    """Sum and count of the values where the mask is True; what is masked may be anything, NaN included."""
    return jnp.where(mask, values, 0).sum(), jnp.sum(mask, dtype=values.dtype)


def cross_entropy(
    logits: Float[Array, "*S C"], labels: Int32[Array, "*S"], mask: Bool[Array, "*S"]
) -> tuple[Sums, Sums]:
    """Sums of the negative log likelihood of the labels, and of hits, where the mask is True.

    A label below 0 (no target) counts as masked; one from C on is no class: a miss that has no likelihood.
    """
    mask = mask & (labels >= 0)
    known = mask & (labels < logits.shape[-1])
    # One-hot and not a gather: its gradient is elementwise, where a gather's is a scatter.
    chosen = labels[..., None] == jnp.arange(logits.shape[-1])
    nll = jax.nn.logsumexp(logits, axis=-1) - jnp.where(chosen, logits, 0).sum(-1)
    hits = (logits.argmax(-1) == labels).astype(logits.dtype)
    return masked_sum(nll, known), masked_sum(hits, mask)
