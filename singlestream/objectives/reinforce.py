"""REINFORCE for attention that draws its keys (`config.model.attention.selection="sampled"`).

Xu et al. 2015, section 4.1: equation 11 is the estimator, equation 12 adds the moving average as a baseline and the
entropy. A draw is rewarded by what the answer became: minus the loss of `vqa`.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from singlestream.batch import Array
from singlestream.config import ConfigError
from singlestream.model.pooling import tokens_of
from singlestream.objectives import base


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """`decay` of the moving average of rewards; weight of the `entropy` of an example's draws, in the mean."""

    decay: float = 0.9
    entropy: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"config.objective_options.reinforce.decay={self.decay}: must be in [0, 1)")
        if not self.entropy >= 0:
            raise ValueError(f"config.objective_options.reinforce.entropy={self.entropy}: must be at least 0")


class Objective(base.Objective):
    """The gradient that the draws of attention have on the mean loss of `vqa`, which itself gives them none.

    With `vqa` of the same weight both together are an unbiased gradient of the expected loss, less `entropy` times the
    mean entropy of an example's draws. Each draw has the rewards, above the baseline, of the examples that its token
    belongs to: of a shared picture all, of a text one. The value is always 0: only its gradient says something.
    `baseline` is the average of the rewards so far; it starts at that of a guess.
    """

    needs_attention = True

    def heads(self, config, spec):
        kind = config.attention.selection
        if kind != "sampled":
            raise ValueError(
                f"reinforce needs config.model.attention.selection='sampled', which draws what it reads; it is {kind!r}"
            )
        for name, off in (
            ("image_cls", False),
            ("bottlenecks", 0),
            ("audio_dim", 0),
            ("text_encoder", "none"),
            ("image_encoder", "none"),
        ):
            value = getattr(config, name, off)
            if value not in (off, "lstm", "cnn"):
                raise ValueError(
                    f"reinforce does not go with config.model.{name}={value!r}: it rewards the draws of text and image "
                    "tokens in the layers on both, and would leave out those of others"
                )
        return {}

    def check(self, config):
        options = config.objective_options.get("vqa", {})
        if "vqa" not in config.objectives or options.get("loss", "softmax") != "softmax":
            raise ConfigError(
                "config.objectives: reinforce rewards the one right answer: it needs vqa, with "
                "config.objective_options.vqa.loss='softmax'"
            )

    def init_state(self, spec):
        return {"baseline": jnp.float32(-math.log(max(spec.num_answers, 1)))}

    def loss(self, encode, heads, batch, spec, key, state):
        encoded = encode(batch, attention=True)
        logits, labels = heads["vqa"](encoded), batch.targets["answer"]
        losses = jax.vmap(jax.vmap(base.cross_entropy))(logits, labels, batch.example_mask)[0]
        reward, counts = -jax.lax.stop_gradient(losses[0]), losses[1]
        advantage = jnp.where(counts > 0, reward - state["baseline"], 0)
        own = {"text": tokens_of(batch.text, batch.examples), "image": base.image_tokens_of(batch)}
        total = sum(
            _of_draws(weights, _queries(name, own), advantage, counts > 0, self.options.entropy)
            for name, weights in encoded.attention.items()
        )
        mean = reward.sum() / jnp.maximum(counts.sum(), 1)
        moved = self.options.decay * state["baseline"] + (1 - self.options.decay) * mean
        baseline = jnp.where(counts.sum() > 0, moved, state["baseline"]).astype(jnp.float32)
        metrics = {"loss": (total, counts.sum()), "baseline": (state["baseline"], jnp.ones(()))}
        return metrics, {"baseline": baseline}


def _queries(name: str, own: dict[str, Bool[Array, "B K S"]]) -> Bool[Array, "B K Q"]:
    """Which queries of attention weights, by their name in `Encoded.attention`, belong to each example."""
    if name == "self":
        return jnp.concatenate([own["text"], own["image"]], axis=-1)
    return own[name.partition("_")[0]]


def _of_draws(
    weights: Float[Array, "layers B H Q S"],
    own: Bool[Array, "B K Q"],
    advantage: Float[Array, "B K"],
    counts: Bool[Array, "B K"],
    entropy: float,
) -> Float[Array, ""]:
    """0, with the gradient of all draws of some attention (`selections.sampled` says what its weights carry)."""
    chosen = jax.lax.stop_gradient(weights) > 0
    drawn = chosen.any(-1)  # neither dropped nor of a token that a layer passes by
    log_p = jnp.where(chosen, weights, 0).sum(-1)
    spread = jnp.where(drawn[..., None] & ~chosen, weights, 0).sum(-1)
    belongs = own.astype(weights.dtype)
    draws = jnp.einsum("bkq,lbhq->bk", belongs, drawn.astype(weights.dtype))
    rewarded = jnp.einsum("bkq,bk->bq", belongs, advantage)[:, None]
    shared = jnp.einsum("bkq,bk->bq", belongs, counts / jnp.maximum(draws, 1))[:, None]
    loss = -jnp.where(drawn, rewarded * log_p + entropy * shared * spread, 0).sum()
    return loss - jax.lax.stop_gradient(loss)
