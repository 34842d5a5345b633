"""What an evaluation found: answered questions, and the figures made of them."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from rich.table import Table

from singlestream.data.pipeline import blind_answer
from singlestream.data.record import Sentence, Source
from singlestream.explain.scores import calibration, wilson_interval
from singlestream.predict import Model
from singlestream.train.folder import RunFolder

# The answers that are compared, by the name of their metric: the model's, and what stands beside it.
ACCURACIES = {
    "accuracy": "predicted",
    "blind_accuracy": "blind",
    "majority_accuracy": "majority",
    "no_image_accuracy": "no_image",
    "no_audio_accuracy": "no_audio",
}

Metrics = dict[str, int | float]  # counts are whole


@runtime_checkable
class Line(Protocol):
    """What an evaluation found of one example, a line of a file."""

    def to_json(self) -> str: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answered:
    """One question with what was answered.

    `top` are the most probable answers and their probabilities, the prediction first; `no_image` is the model's answer
    with the picture taken away (the sound stays), `no_audio` that with the sound taken away, None of a model that reads
    none, `blind` what the question alone suggests, `majority` the commonest answer of all and
    `kind_majority` that of questions of this kind (all three from the training texts).
    """

    record: int
    sentence: Sentence
    top: tuple[tuple[str, float], ...]
    no_image: str
    blind: str
    majority: str
    kind_majority: str
    no_audio: str | None = None

    @property
    def predicted(self) -> str:
        return self.top[0][0]

    @property
    def probability(self) -> float:
        return self.top[0][1]

    @property
    def known(self) -> bool:
        """Whether the right answer is published."""
        return self.sentence.answer is not None

    @property
    def correct(self) -> bool:
        return self.predicted == self.sentence.answer

    def to_json(self) -> str:
        """A line of `predictions.jsonl`; with `score`, the VQA accuracy, where several annotators answered."""
        values = {
            "id": self.sentence.id,
            "text": self.sentence.text,
            "answer": self.sentence.answer,
            "predicted": self.predicted,
            "probability": round(self.probability, 6),
            "kind": self.sentence.kind,
            "correct": self.correct if self.known else None,
        }
        if self.sentence.answers:
            values["score"] = round(self.sentence.score(self.predicted), 6)
        return json.dumps(values, ensure_ascii=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pointing:
    """The layer and head that point best, every head's score, and on which checkpoint and split that was found."""

    step: int
    weights: int  # `fingerprint.digest` of the checkpoint's
    split: str
    layer: int  # counted from 0
    head: int
    by_head: list[list[float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found; `metrics` is what `metrics.json` holds."""

    model: Model
    folder: RunFolder
    split: str
    source: Source
    metrics: Metrics
    answered: list[Answered]
    pointing: Pointing | None

    @property
    def judged(self) -> list[Answered]:
        """The questions whose answer is published: those that figures are made of."""
        return [each for each in self.answered if each.known]


def prior_answers(priors: Mapping[str, Any], sentence: Sentence) -> dict[str, str]:
    """What a question's words alone suggest: the fields `blind`, `majority` and `kind_majority` of `Answered`."""
    return {
        "blind": blind_answer(dict(priors), sentence.text),
        "majority": priors["majority"],
        "kind_majority": priors["by_kind"].get(sentence.kind, priors["majority"]),
    }


def by_kind(answered: Iterable[Answered]) -> dict[str, list[Answered]]:
    """The questions of each kind, kinds in alphabetical order."""
    kinds: dict[str, list[Answered]] = collections.defaultdict(list)
    for each in answered:
        kinds[each.sentence.kind].append(each)
    return dict(sorted(kinds.items()))


def summarise(answered: Sequence[Answered]) -> Metrics:
    """Accuracies with their intervals, over all questions and by kind, and the calibration error.

    Where several annotators answered, an accuracy is the official one of VQA. Questions whose answer is not published
    are counted only.

    Keys: `vqa/accuracy`, `vqa/blind_accuracy`, `vqa/majority_accuracy`, `vqa/no_image_accuracy` and, of a model that
    reads audio, `vqa/no_audio_accuracy`, each also with `/low`
    and `/high` (95%) and, where there are several kinds, with `/KIND` (whose majority is that of the kind); `vqa/ece`;
    `vqa/questions`; where the source groups questions, `vqa/consistency`, the share of groups with every answer right.
    """
    asked, answered = len(answered), [each for each in answered if each.known]
    if not answered:
        return {"vqa/questions": asked}
    metrics: Metrics = {}
    fields = {name: field for name, field in ACCURACIES.items() if getattr(answered[0], field) is not None}
    for name, field in fields.items():
        put_share(metrics, f"vqa/{name}", _scores(answered, field))
    probability = np.array([each.probability for each in answered])
    metrics["vqa/ece"] = calibration(probability, np.array(_scores(answered, "predicted")))[0]
    metrics["vqa/questions"] = asked
    if whole := _whole_groups(answered):
        put_share(metrics, "vqa/consistency", whole)
    kinds = by_kind(answered)
    if len(kinds) > 1:
        for kind, some in kinds.items():
            for name, field in {**fields, "majority_accuracy": "kind_majority"}.items():
                put_share(metrics, f"vqa/{name}/{kind}", _scores(some, field))
    return metrics


def _whole_groups(answered: Sequence[Answered]) -> list[float]:
    """1 for each group of questions that are all answered right, else 0 (consistency, as NLVR2 counts it)."""
    groups: dict[str, bool] = {}
    for each in answered:
        if group := each.sentence.group:
            groups[group] = groups.get(group, True) and each.correct
    return [float(right) for right in groups.values()]


def _scores(answered: Sequence[Answered], field: str) -> list[float]:
    return [each.sentence.score(getattr(each, field)) for each in answered]


def put_share(metrics: Metrics, key: str, scores: Sequence[float]) -> None:
    """The mean of scores between 0 and 1, and its 95% interval as `KEY/low` and `KEY/high`."""
    # Between 0 and 1 scores vary less than hits of the same mean: the interval is then wider than it had to be.
    total = sum(scores)
    metrics[key] = total / len(scores)
    metrics[f"{key}/low"], metrics[f"{key}/high"] = wilson_interval(min(total, len(scores)), len(scores))


def answers_table(metrics: Mapping[str, float], split: str) -> Table:
    """Accuracy by kind with its interval, beside what is reached without the picture; for a terminal."""
    table = Table(title=f"accuracy on {split}, %", title_justify="left")
    hears = "vqa/no_audio_accuracy" in metrics
    for name in ("kind", "model", "95%", "no picture", *(["no sound"] * hears), "question alone", "majority"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    prefix = "vqa/accuracy/"
    kinds = [k.removeprefix(prefix) for k in metrics if k.startswith(prefix) and not k.endswith(("/low", "/high"))]
    for kind in ("", *kinds):
        key = f"/{kind}" if kind else ""
        value, low, high = (100 * metrics[f"vqa/accuracy{key}{end}"] for end in ("", "/low", "/high"))
        others = ("no_image", *(["no_audio"] * hears), "blind", "majority")
        beside = (100 * metrics[f"vqa/{name}_accuracy{key}"] for name in others)
        table.add_row(kind or "all", f"{value:.1f}", f"{low:.1f}-{high:.1f}", *(f"{share:.1f}" for share in beside))
    return table
