"""Which head answers questions, and what its numbers say."""

from __future__ import annotations

from collections.abc import Container

import jax
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.config import Config

ANSWERING = ("vqa", "nlvr2")  # heads whose numbers are the run's answers


def answering(heads: Container[str]) -> str:
    """The head that answers questions, "" where there is none."""
    return next((name for name in ANSWERING if name in heads), "")


def probabilities(logits: Float[Array, "*S answers"], config: Config) -> Float[Array, "*S answers"]:
    """What the head's logits say after such a run: a distribution, or with `binary` the points to expect of each."""
    loss = config.objective_options.get("vqa", {}).get("loss")
    return jax.nn.sigmoid(logits) if loss == "binary" else jax.nn.softmax(logits, axis=-1)
