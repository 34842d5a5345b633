"""Multiple choice: which of several texts about a picture is right? (Zellers et al. 2019, VCR; VisualBERT, section 4.2)

A record is one question: its texts are the question with each of the answers, of which one has the answer "true" and
the others "false", or any other two words of which the right one's is the later in the alphabet.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from singlestream.config import ConfigError
from singlestream.model.heads import HeadConfig
from singlestream.objectives import base

Options = base.NoOptions
CHOICE_HEAD = "choice"
RIGHT = 1  # id of the right text's answer


class Objective(base.Objective):
    """Softmax over the texts of a row about one picture, a number each, and the cross-entropy of the right one.

    The texts share that picture (`direction="prefix"`), or each has a copy of it (`config.data.copies`). A text that is
    alone in its row has no rival, and does not count.
    """

    targets = ("answer",)
    needs_whole_records = True

    def heads(self, config, spec):
        if spec.num_answers != 2:
            raise ValueError(
                f"the training texts have {spec.num_answers} different answers; choose needs 2, as 'true' for the "
                "right text of a record and 'false' for the others"
            )
        return {CHOICE_HEAD: HeadConfig(size=1)}

    def check(self, config):
        if config.data.texts_per_row < 2:
            raise ConfigError(
                f"config.objectives.choose compares the texts of a row: config.data.texts_per_row="
                f"{config.data.texts_per_row}, set it to the number of texts of a record"
            )

    def loss(self, encode, heads, batch, spec, key, state):
        scores = heads[CHOICE_HEAD](encode(batch))[..., 0]
        picture, mask = batch.picture, batch.example_mask
        rivals = (picture[:, :, None] == picture[:, None]) & mask[:, None]
        # Not -inf: an example that is padding has no rival, and would give NaN.
        others = jnp.where(rivals, scores[:, None], -1e30)
        right = mask & (batch.targets["answer"] == RIGHT) & (rivals.sum(-1) > 1)
        loss = jax.nn.logsumexp(others, axis=-1) - scores
        hits = others.argmax(-1) == jnp.arange(scores.shape[1])
        return {
            "loss": base.masked_sum(loss, right),
            "accuracy": base.masked_sum(hits.astype(loss.dtype), right),
        }, state
