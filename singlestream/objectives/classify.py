"""Labels of a picture with its text: one of several (sentiment, hateful or not), or any number of them (genres)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.config import ConfigError
from singlestream.model.heads import HeadConfig
from singlestream.objectives import base
from singlestream.objectives.vqa import answer_points


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """`several`: each label by itself is there or not; else one of them is the right one."""

    several: bool = False


class Objective(base.Objective):
    """Cross-entropy of the label, or with `several` the sum over labels of binary cross-entropies.

    Labels are the texts' answers, or what `config.data.label_separator` separates in them. It is `vqa` with a head of
    its own and without annotators: here a label is right or wrong. Accuracy with `several` is the share of examples
    with every label right. `eval.py` adds the area under the ROC curve (`label_odds`).
    """

    targets = ("answer",)

    def heads(self, config, spec):
        if spec.num_answers < 2:
            raise ValueError(f"the training texts have {spec.num_answers} different labels; classify needs 2 or more")
        return {"classify": HeadConfig(kind="classifier", size=spec.num_answers)}

    def check(self, config):
        if config.data.label_separator and not self.options.several:
            raise ConfigError(
                f"config.data.label_separator={config.data.label_separator!r} separates several labels of one text: "
                "set config.objective_options.classify.several=True"
            )

    def loss(self, encode, heads, batch, spec, key, state):
        logits = heads["classify"](encode(batch))
        if not self.options.several:
            loss, accuracy = base.cross_entropy(logits, batch.targets["answer"], batch.example_mask)
            return {"loss": loss, "accuracy": accuracy}, state
        labels, asked = answer_points(batch, logits), batch.example_mask & (batch.targets["answer"] >= 0)
        # As in `vqa`: -t log s(x) - (1 - t) log(1 - s(x)), where no exponential overflows.
        loss = base.masked_sum((jax.nn.softplus(logits) - labels * logits).sum(-1), asked)
        right = ((logits > 0) == (labels > 0)).all(-1).astype(logits.dtype)
        return {"loss": loss, "accuracy": base.masked_sum(right, asked)}, state


def label_odds(logits: Float[Array, "*S labels"], *, several: bool) -> Float[Array, "*S labels"]:
    """Log odds of each label: they rank examples as probabilities do, and do not saturate."""
    if several:
        return logits
    others = jnp.where(jnp.eye(logits.shape[-1], dtype=bool), -jnp.inf, logits[..., None, :])
    return logits - jax.nn.logsumexp(others, axis=-1)
