"""Grounding over a split: the box, or the region, that a run says each expression means."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, Int

from singlestream.answers import Metrics, put_share
from singlestream.batch import Batch
from singlestream.data.pipeline import EvalItem
from singlestream.data.processor import Processor
from singlestream.data.record import Sentence
from singlestream.model.boxes import AGREE, iou
from singlestream.objectives.ground import Options, ground
from singlestream.predict import Model

FILE = "groundings.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grounded:
    """Characters `start` to `end` of a text, and the box (x0, y0, x1, y1) in [0, 1] of the picture that they mean.

    `region` is the number of the region with that box, from 0, and -1 for the mean of all; None where patches say a
    box. `truth`, and the IoU of the two, is None where it is not known or not one box.
    """

    sentence: Sentence
    start: int
    end: int
    box: tuple[float, ...]
    region: int | None
    truth: tuple[float, ...] | None
    iou: float | None

    def to_json(self) -> str:
        """A line of `groundings.jsonl`."""
        values = {
            "id": self.sentence.id,
            "phrase": self.sentence.text[self.start : self.end],
            "characters": [self.start, self.end],
            "box": [round(each, 6) for each in self.box],
            "region": self.region,
            "truth": None if self.truth is None else [round(each, 6) for each in self.truth],
            "iou": None if self.iou is None else round(self.iou, 6),
        }
        return json.dumps(values, ensure_ascii=False)


class _Read(NamedTuple):
    """Of Q expressions of a row: the box that each is said to mean, the place of the best image token, the truth.

    Places are among the tokens to choose from; `iou` is that of box and truth, where the latter `counts`.
    """

    box: Float[np.ndarray, "*S Q 4"]
    place: Int[np.ndarray, "*S Q"]
    truth: Float[np.ndarray, "*S Q 4"]
    counts: Bool[np.ndarray, "*S Q"]
    iou: Float[np.ndarray, "*S Q"]


def ground_texts(model: Model, batches: Iterable[EvalItem]) -> list[Grounded]:
    """What the objective `ground` says of every expression it asks about; with `texts` that is every text.

    A phrase is known by the box of its words: one without a box, or with several, is not asked about.
    """
    of = model.config.objective_options.get("ground", {}).get("of", Options.of)
    # Regions are counted as their file has them.
    mean = int(model.config.data.mean_region) if model.config.model.inputs.image_stem == "regions" else None

    @jax.jit
    def read(params: Any, batch: Batch) -> tuple[jax.Array, ...]:
        module = nnx.merge(model.graphdef, params)
        asked, found = ground(module.heads, module(batch), batch, of)
        places = jnp.cumsum(asked.tokens, axis=-1) - 1
        place = jnp.take_along_axis(places, found.scores.argmax(-1)[..., None], axis=-1)[..., 0]
        return found.box, place, asked.truth, asked.counts, iou(found.box, asked.truth)

    grounded = []
    for batch, items in batches:
        said = jax.device_get(read(model.params, batch))
        for number, texts in enumerate(items):
            row = _Read(*(each[number] for each in said))
            for k, (_, sentence) in enumerate(texts):
                whole = [(k, 0, len(sentence.text))]
                asked = whole if of == "texts" else _phrases(model.processor, row, k, sentence)
                grounded += [_grounded(row, mean, sentence, *each) for each in asked]
    return grounded


def _phrases(processor: Processor, row: _Read, k: int, sentence: Sentence) -> Iterator[tuple[int, int, int]]:
    """The last token of each phrase of the k-th text, and the phrase's first and last + 1 character."""
    spans, first = processor.tokens(sentence.text).spans, k * processor.data.text_length
    for i in np.flatnonzero(row.counts[first : first + len(spans)]):
        alike = (row.truth[first : first + i] == row.truth[first + i]).all(-1)
        begin = i - int(alike[::-1].cumprod().sum())
        yield int(first + i), spans[begin][0], spans[i][1]


def _grounded(row: _Read, mean: int | None, sentence: Sentence, q: int, start: int, end: int) -> Grounded:
    known = bool(row.counts[q])
    return Grounded(
        sentence=sentence,
        start=start,
        end=end,
        box=tuple(row.box[q].tolist()),
        region=None if mean is None else int(row.place[q]) - mean,
        truth=tuple(row.truth[q].tolist()) if known else None,
        iou=float(row.iou[q]) if known else None,
    )


def summarise_groundings(grounded: Sequence[Grounded]) -> Metrics:
    """`ground/expressions` and, of those whose box is known, `ground/accuracy` with its interval: an IoU of 0.5."""
    metrics: Metrics = {"ground/expressions": len(grounded)}
    if known := [float(each.iou >= AGREE) for each in grounded if each.iou is not None]:
        put_share(metrics, "ground/accuracy", known)
    return metrics
