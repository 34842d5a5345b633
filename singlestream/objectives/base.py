"""The interface of an objective, and the sums that several of them need."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32

from singlestream.batch import Array, Batch, Encoded, Spec
from singlestream.config import Config
from singlestream.model import pooling
from singlestream.model.heads import HeadConfig
from singlestream.model.pooling import tokens_of
from singlestream.model.two_stream_config import ModelSettings
from singlestream.model.unimodal import Unimodal

T = TypeVar("T")
Heads = Mapping[str, Callable[[Encoded], Array]]
Sums = tuple[Float[Array, ""], Float[Array, ""]]  # (sum, count): divided only after all devices and parts are added
Metrics = dict[str, Sums]


@runtime_checkable
class Encode(Protocol):
    """The model as objectives call it, see `total.SharedEncode`.

    Attributes:
        heads: the model's heads by name.
        teacher: the same for the moving average of the parameters, without noise (see `Objective.needs_average`).
        found: what objectives that ran before found of this batch, by name (see `Objective.needs`).
    """

    heads: Heads
    teacher: Any
    found: dict[str, Metrics]

    def __call__(self, batch: Batch, *, direction: str | None = None, attention: bool = False) -> Encoded:
        """Encodes; calls with the same `Batch` object are computed once, also between objectives.

        Args:
            direction: who sees whom, of a single stream; by default as the model's settings say.
            attention: also `Encoded.attention`. Objectives that ask for it (`needs_attention`) run before the others,
                which then read the same encoding.
        """

    def view(self, name: str, make: Callable[[], T]) -> T:
        """What `make` returned when this name was first asked for: a changed batch that several objectives read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Options of an objective that has none."""


class Objective:
    """Base of the class `Objective` that each file offers.

    Attributes:
        targets: the entries of `Batch.targets` that the loss reads.
        needs: other objectives that a run must have, too; they run before this one.
        needs_others: whether the loss takes other rows of a batch, as negatives; a part of one row is then refused.
        needs_whole_records: whether the loss compares the texts of a record; one with more than a row holds is refused.
        needs_average: whether the loss reads `encode.teacher`; a run without `config.train.ema_decay` is then refused.
        needs_attention: whether the loss reads attention weights.
        terms: which metrics are losses, and the weight of each within this objective.
        models: what the models are that `published` names; set before `check`.
    """

    targets: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    needs_others: bool = False
    needs_whole_records: bool = False
    needs_average: bool = False
    needs_attention: bool = False

    def __init__(self, options: Any):
        self.options = options
        self.models: Mapping[str, Unimodal] = {}
        self.terms: dict[str, float] = {"loss": 1.0}

    def heads(self, config: ModelSettings, spec: Spec) -> dict[str, HeadConfig]:
        """The heads that the loss calls; ValueError where the model or the data cannot serve them.

        Called before anything else: what the loss has to know of the model, the objective notes here.
        """
        raise NotImplementedError

    def published(self) -> dict[str, str]:
        """Folders of published models that the loss reads, by name.

        Each name is an option that holds the folder. `init_state` gives the model's empty parameters under this name;
        at the start of a run they are filled in.
        """
        return {}

    def check(self, config: Config) -> None:
        """Raises ConfigError where other settings of the run do not go with this objective."""

    def init_state(self, spec: Spec) -> dict[str, Any]:
        """What the objective keeps between steps, arrays or trees of them; saved with the run."""
        return {}

    def loss(
        self, encode: Encode, heads: Heads, batch: Batch, spec: Spec, key: jax.Array, state: dict[str, Any]
    ) -> tuple[Metrics, dict[str, Any]]:
        """Sums and counts of the losses (see `terms`) and metrics of a batch.

        Args:
            encode: the model.
            heads: the model's heads by name.
            batch: rows whose `example_mask` is False do not count.
            spec: sizes and special ids.
            key: of what the objective draws; given at evaluation too.
            state: from `init_state`, or what the last step returned.
        """
        raise NotImplementedError


def made_before() -> Any:
    """For `Encode.view` of what an objective makes that this one `needs`."""
    raise AssertionError("objectives that another one needs run before it")


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


def region_cross_entropy(
    logits: Float[Array, "B N C"], classes: Int32[Array, "B N A"], mask: Bool[Array, "B N"], spec: Spec
) -> tuple[Sums, Sums]:
    """`cross_entropy` of every attribute of what lies at image tokens, added up.

    Of the C logits each attribute has its own `spec.region_classes` + 1; its class 0 is the background, -1 not known.
    """
    losses, hits, start = [], [], 0
    for attribute, size in enumerate(spec.region_classes):
        loss, hit = cross_entropy(logits[..., start : start + size + 1], classes[..., attribute], mask)
        losses.append(loss)
        hits.append(hit)
        start += size + 1
    return add(losses), add(hits)


def add(sums: list[Sums]) -> Sums:
    return sum((s for s, _ in sums), jnp.zeros(())), sum((c for _, c in sums), jnp.zeros(()))


def divergence(wanted: Float[Array, "*S C"], logits: Float[Array, "*S C"], mask: Bool[Array, "*S"]) -> Sums:
    """Sums of KL(softmax(wanted) || softmax(logits)) where the mask is True; no gradient for `wanted`.

    Logits of -inf, in both alike, leave a class out.
    """
    wanted = jax.lax.stop_gradient(jax.nn.log_softmax(wanted, axis=-1))
    found = jax.nn.log_softmax(logits, axis=-1)
    there = wanted > -jnp.inf
    terms = jnp.exp(wanted) * (jnp.where(there, wanted, 0) - jnp.where(there, found, 0))
    return masked_sum(terms.sum(-1), mask)


def unit(x: Float[Array, "*S D"]) -> Float[Array, "*S D"]:
    """Vectors of length 1, in float32 or wider; what is 0 stays 0."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12))


def paired(batch: Batch) -> Bool[Array, "B K"]:
    """True for the examples that have a text and a picture; of several corpora some have one of them."""
    words = tokens_of(batch.text, batch.examples).any(-1)
    return batch.example_mask & words & image_tokens_of(batch).any(-1)


def image_tokens_of(batch: Batch) -> Bool[Array, "B K N"]:
    """`pooling.image_tokens_of` a batch."""
    return pooling.image_tokens_of(batch.image, batch.examples)
