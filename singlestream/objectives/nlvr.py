"""Is a sentence true of two pictures? (Suhr et al. 2019, NLVR2), answered from both vectors side by side.

The way that UNITER calls pair (Chen et al. 2020, section 4.3), and ViLT's: the sentence is read beside each picture by
itself. Both pictures in one sequence, UNITER's triplet, is what `vqa` does with records of two pictures.
"""

from __future__ import annotations

from singlestream.config import ConfigError
from singlestream.model.heads import HeadConfig
from singlestream.objectives import base

Options = base.NoOptions


class Objective(base.Objective):
    """Cross-entropy of the answer of each pair of successive examples, which are a text beside its two pictures."""

    targets = ("answer",)

    def heads(self, config, spec):
        if spec.num_answers < 2:
            raise ValueError(f"the training texts have {spec.num_answers} different answers; nlvr needs 2 or more")
        return {"nlvr2": HeadConfig(kind="classifier", size=spec.num_answers, source="pairs")}

    def check(self, config):
        if config.data.apart != 2:
            raise ConfigError(
                f"config.objectives.nlvr reads two pictures one by one: config.data.apart={config.data.apart}, set it "
                "to 2, or take config.objectives.vqa for pictures that are read together"
            )

    def loss(self, encode, heads, batch, spec, key, state):
        logits = heads["nlvr2"](encode(batch))
        both = batch.example_mask[:, ::2] & batch.example_mask[:, 1::2]
        loss, accuracy = base.cross_entropy(logits, batch.targets["answer"][:, ::2], both)
        return {"loss": loss, "accuracy": accuracy}, state
