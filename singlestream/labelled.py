"""Labels over a split: how probable a run finds each of them, which ones it gives, and how well they rank the texts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from singlestream.answers import Metrics, prior_answers, put_share
from singlestream.batch import Batch
from singlestream.data.pipeline import EvalItem
from singlestream.data.record import Sentence
from singlestream.data.survey import is_question
from singlestream.data.targets import labels_of
from singlestream.explain.scores import auroc
from singlestream.model.answering import LABEL_HEAD, gives_several
from singlestream.objectives.classify import label_odds
from singlestream.predict import Model

FILE = "labels.jsonl"
# What is compared, by the name of its metric: the labels that the run gives, and what stands beside them.
ACCURACIES = {"accuracy": "given", "blind_accuracy": "blind", "majority_accuracy": "majority"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labelled:
    """A text, the log odds of each of the run's `labels`, those it gives, and the right ones (None: not published).

    `blind` are those that the text alone suggests, `majority` the commonest ones (both from the training texts).
    """

    sentence: Sentence
    labels: tuple[str, ...]
    odds: Float[np.ndarray, " labels"]
    given: tuple[str, ...]
    right: tuple[str, ...] | None
    blind: tuple[str, ...]
    majority: tuple[str, ...]

    def matches(self, given: Iterable[str]) -> bool | None:
        """Whether just those are given that are right, of which those that the run does not know may be missing."""
        if self.right is None:
            return None
        return set(given) in (set(self.right), set(self.right) & set(self.labels))

    def to_json(self) -> str:
        """A line of `labels.jsonl`."""
        probabilities = (1 + np.tanh(self.odds / 2)) / 2  # the logistic function, where nothing overflows
        values = {
            "id": self.sentence.id,
            "text": self.sentence.text,
            "probabilities": dict(zip(self.labels, probabilities.astype(np.float64).round(6).tolist(), strict=True)),
            "predicted": self.given,
            "right": self.right,
            "correct": self.matches(self.given),
        }
        return json.dumps(values, ensure_ascii=False)


def label_texts(model: Model, priors: Mapping[str, Any], batches: Iterable[EvalItem]) -> list[Labelled]:
    """What the objective `classify` says of every text: its one label, or with `several` each above one half.

    Args:
        priors: the run's `priors.json`.
    """
    several, separator = gives_several(model.config), model.config.data.label_separator

    @jax.jit
    def read(params: Any, batch: Batch) -> jax.Array:
        module = nnx.merge(model.graphdef, params)
        return label_odds(module.heads[LABEL_HEAD](module(batch)), several=several)

    found = []
    for batch, items in batches:
        for row, row_odds in zip(items, jax.device_get(read(model.params, batch)), strict=True):
            for (_, sentence), odds in zip(row, row_odds, strict=False):
                if not is_question(sentence):
                    continue
                given = np.flatnonzero(odds > 0) if several else [odds.argmax()]
                suggested = prior_answers(priors, sentence)
                found.append(
                    Labelled(
                        sentence=sentence,
                        labels=model.answers,
                        odds=odds,
                        given=tuple(model.answers[i] for i in given),
                        right=None if sentence.answer is None else labels_of(sentence.answer, separator),
                        blind=labels_of(suggested["blind"], separator),
                        majority=labels_of(suggested["majority"], separator),
                    )
                )
    return found


def summarise_labels(labelled: Sequence[Labelled]) -> Metrics:
    """`classify/texts` and, of those whose labels are published, accuracies and the areas under the ROC curve.

    `classify/accuracy`, `classify/blind_accuracy` and `classify/majority_accuracy`, each with its interval: the share
    with every label right. `classify/auroc`: the mean over the labels that some texts have and others have not, and
    `classify/auroc/LABEL` of each such label, where there are more than two: of two, either ranks as the other.
    """
    metrics: Metrics = {f"{LABEL_HEAD}/texts": len(labelled)}
    known = [(each, each.right) for each in labelled if each.right is not None]
    if not known:
        return metrics
    for name, field in ACCURACIES.items():
        put_share(
            metrics, f"{LABEL_HEAD}/{name}", [float(bool(each.matches(getattr(each, field)))) for each, _ in known]
        )
    labels, odds = known[0][0].labels, np.stack([each.odds for each, _ in known])
    there = np.array([[label in right for label in labels] for _, right in known])
    columns = zip(labels, odds.T, there.T, strict=True)
    areas = {label: auroc(scores, has) for label, scores, has in columns if has.any() and not has.all()}
    if areas:
        metrics[f"{LABEL_HEAD}/auroc"] = float(np.mean(list(areas.values())))
    if len(labels) > 2:
        metrics |= {f"{LABEL_HEAD}/auroc/{label}": area for label, area in areas.items()}
    return metrics
