"""Visual question answering as classification over the run's answers (Antol et al. 2015; VisualBERT, section 4.1)."""

from __future__ import annotations

from singlestream.model.heads import HeadConfig
from singlestream.objectives import base

Options = base.NoOptions


class Objective(base.Objective):
    """Cross-entropy of the answer, and the share of all questions that are answered right.

    The target is the answer's id, -1 where there is no question, and `num_answers` for an answer that training never
    saw: it has no loss, and whatever is said to it is wrong.
    """

    targets = ("answer",)

    def heads(self, config, spec):
        if spec.num_answers < 2:
            raise ValueError(f"the training texts have {spec.num_answers} different answers; vqa needs 2 or more")
        return {"vqa": HeadConfig(kind="classifier", size=spec.num_answers)}

    def loss(self, encode, heads, batch, spec, key, state):
        logits = heads["vqa"](encode(batch))
        loss, accuracy = base.cross_entropy(logits, batch.targets["answer"], batch.example_mask)
        return {"loss": loss, "accuracy": accuracy}, state
