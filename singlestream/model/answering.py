"""Which head answers questions, and what its numbers say."""

from __future__ import annotations

from collections.abc import Container

import jax
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.config import Config

LABEL_HEAD = "classify"
ANSWERING = ("vqa", "nlvr2", LABEL_HEAD)  # heads whose numbers are the run's answers
WANTED = " or ".join(map(repr, ANSWERING))  # in the words of an error


def answering(heads: Container[str]) -> str:
    """The head that answers questions, "" where there is none."""
    return next((name for name in ANSWERING if name in heads), "")


def gives_several(config: Config) -> bool:
    """Whether the run gives each label by itself, any number of them; else a text has one answer."""
    return bool(config.objective_options.get(LABEL_HEAD, {}).get("several"))


def is_by_itself(head: str, config: Config) -> bool:
    """Whether after such a run a head says of each answer by itself how probable it is; else of one of them all."""
    if head == LABEL_HEAD:
        return gives_several(config)
    return head == "vqa" and config.objective_options.get("vqa", {}).get("loss") == "binary"


def probabilities(logits: Float[Array, "*S answers"], head: str, config: Config) -> Float[Array, "*S answers"]:
    """What a head's logits say after such a run: a distribution over the answers, or of each answer by itself.

    After `vqa` with the loss `binary` these are the points to expect of it, after `classify` with `several` how
    probable it is that the label is there.
    """
    return jax.nn.sigmoid(logits) if is_by_itself(head, config) else jax.nn.softmax(logits, axis=-1)
