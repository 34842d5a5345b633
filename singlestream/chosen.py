"""Multiple choice over a split: which of a record's texts a run chooses, and where two runs are right together."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from singlestream.answers import Metrics, put_share
from singlestream.batch import Batch
from singlestream.config import ConfigError
from singlestream.data.pipeline import EvalItem, check_rows
from singlestream.data.record import Sentence, Source
from singlestream.objectives.choose import CHOICE_HEAD, RIGHT
from singlestream.predict import Model
from singlestream.train.errors import FolderError
from singlestream.train.folder import RunFolder

FILE = "choices.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chosen:
    """One question: its texts, how probable each of them is, and which one is right (None: not published)."""

    question: str  # what the source calls it, `Sentence.group`, else the first text's name
    texts: tuple[str, ...]
    probabilities: tuple[float, ...]
    right: int | None

    @property
    def chosen(self) -> int:
        return int(np.argmax(self.probabilities))

    @property
    def correct(self) -> bool | None:
        return None if self.right is None else self.chosen == self.right

    def to_json(self) -> str:
        """A line of `choices.jsonl`; choices are counted from 0."""
        values = {
            "id": self.question,
            "texts": self.texts,
            "probabilities": [round(each, 6) for each in self.probabilities],
            "chosen": self.chosen,
            "right": self.right,
            "correct": self.correct,
        }
        return json.dumps(values, ensure_ascii=False)


def choose_texts(model: Model, source: Source, batches: Iterable[EvalItem]) -> list[Chosen]:
    """Softmax over the texts of each record, as the objective `choose` has it; a text alone is no choice.

    Raises:
        DataError: a record with more texts than a row holds.
    """
    check_rows(source, model.config.data)

    @jax.jit
    def read(params: Any, batch: Batch) -> jax.Array:
        module = nnx.merge(model.graphdef, params)
        return module.heads[CHOICE_HEAD](module(batch))[..., 0]

    right = model.answers[RIGHT]
    found = []
    for batch, items in batches:
        for row, scores in zip(items, jax.device_get(read(model.params, batch)), strict=True):
            if len(row) > 1:
                found.append(_chosen([sentence for _, sentence in row], scores[: len(row)], right))
    return found


def _chosen(texts: Sequence[Sentence], scores: Float[np.ndarray, " K"], right: str) -> Chosen:
    odds = np.exp(scores.astype(np.float64) - scores.max())
    answers = [text.answer for text in texts]
    return Chosen(
        question=texts[0].group or texts[0].id,
        texts=tuple(text.text for text in texts),
        probabilities=tuple((odds / odds.sum()).tolist()),
        right=answers.index(right) if right in answers else None,
    )


def summarise_choices(chosen: Sequence[Chosen]) -> Metrics:
    """`choose/questions` and, of those whose right text is known, `choose/accuracy` with its interval."""
    metrics: Metrics = {"choose/questions": len(chosen)}
    if known := [float(each.correct) for each in chosen if each.correct is not None]:
        put_share(metrics, "choose/accuracy", known)
    return metrics


def read_choices(folder: RunFolder, place: str) -> dict[str, bool | None]:
    """Of each question whether a run, evaluated before, chose right; None where nobody can tell.

    Args:
        place: the name of that evaluation's folder, the split's.

    Raises:
        FolderError: the run was not evaluated there, or the file is not what was written.
    """
    path = folder.eval(place) / FILE
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {line["id"]: line["correct"] for line in lines}
    except FileNotFoundError:
        raise FolderError(f"there is no {path}: evaluate {folder.path} on that split first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{path} is damaged ({error!r}): evaluate {folder.path} again") from error


def summarise_together(chosen: Sequence[Chosen], others: Mapping[str, bool | None]) -> Metrics:
    """`choose/together`: the share of questions that this run and another one both answer right (VCR's Q->AR).

    Raises:
        ConfigError: the other run was asked other questions.
    """
    if others.keys() != {each.question for each in chosen}:
        raise ConfigError(f"--together: that run chose in {len(others)} questions, and not in the same as this one's")
    metrics: Metrics = {}
    both = [(each.correct, others[each.question]) for each in chosen]
    if known := [float(mine and theirs) for mine, theirs in both if mine is not None and theirs is not None]:
        put_share(metrics, "choose/together", known)
    return metrics
