"""Visual question answering as classification over the run's answers (Antol et al. 2015; VisualBERT, section 4.1)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float

from singlestream.batch import Array, Batch
from singlestream.model.heads import HeadConfig
from singlestream.objectives import base

LOSSES = ("softmax", "binary")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """`loss`: `softmax`, one answer is right; `binary`, each answer by itself has the points that annotators give."""

    loss: str = "softmax"

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"config.objective_options.vqa.loss={self.loss!r}: choose one of {', '.join(LOSSES)}")


class Objective(base.Objective):
    """Cross-entropy of the answer, and the points of the answer given, over all questions.

    `softmax` takes the commonest answer as the right one. `binary` is the sum over answers of binary cross-entropies
    with the points as targets (Teney et al. 2018, "soft scores"; the same sum in ViLT and LXMERT). Points are the
    official VQA accuracy, 0.3, 0.6, 0.9 or 1 (`data.targets.answer_points`), or 1 for the one answer that is known.

    The target `answer` is the commonest answer's id, -1 where there is no question, and `num_answers` for an answer
    that is none of the run's. A question that has only such answers has no loss, and whatever is said to it is wrong.
    """

    targets = ("answer",)

    def heads(self, config, spec):
        if spec.num_answers < 2:
            raise ValueError(
                f"the training texts have {spec.num_answers} different answers (that come config.data.min_answer_count "
                "times or more); vqa needs 2 or more"
            )
        return {"vqa": HeadConfig(kind="classifier", size=spec.num_answers)}

    def loss(self, encode, heads, batch, spec, key, state):
        logits = heads["vqa"](encode(batch))
        loss, accuracy = base.cross_entropy(logits, batch.targets["answer"], batch.example_mask)
        if self.options.loss == "binary" or "answer_points" in batch.targets:
            points = answer_points(batch, logits)
            asked = batch.example_mask & (batch.targets["answer"] >= 0)
            accuracy = base.masked_sum(_of_chosen(points, logits), asked)
        if self.options.loss == "binary":
            # -t log s(x) - (1 - t) log(1 - s(x)) of a logit x and its target t, where no exponential overflows.
            terms = (jax.nn.softplus(logits) - points * logits).sum(-1)
            loss = base.masked_sum(terms, asked & (points > 0).any(-1))
        return {"loss": loss, "accuracy": accuracy}, state


def answer_points(batch: Batch, logits: Float[Array, "B K answers"]) -> Float[Array, "B K answers"]:
    """The points of every answer; without annotators 1 for the answer."""
    numbers = jnp.arange(logits.shape[-1])
    if "answer_points" not in batch.targets:
        return (batch.targets["answer"][..., None] == numbers).astype(logits.dtype)
    given = batch.targets["answer_points"].astype(logits.dtype)
    # One-hot and not a scatter, as in `base.cross_entropy`; an id of -1 is nobody's.
    return jnp.where(batch.targets["answer_ids"][..., None] == numbers, given[..., None], 0).sum(-2)


def _of_chosen(points: Float[Array, "B K answers"], logits: Float[Array, "B K answers"]) -> Float[Array, "B K"]:
    return jnp.take_along_axis(points, logits.argmax(-1)[..., None], axis=-1)[..., 0]
