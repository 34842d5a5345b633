"""The vectors of every text and every picture of a split, kept in blocks so that a stopped run goes on where it was."""

from __future__ import annotations

import dataclasses
import functools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from singlestream.batch import Batch
from singlestream.config import DataConfig
from singlestream.data.pipeline import eval_batches, wanted
from singlestream.data.record import DataError, Record, Sentence, Source
from singlestream.objectives.itc import unimodal
from singlestream.objectives.total import SharedEncode
from singlestream.predict import Model

RECORDS = 256  # of a block
MAX_ROWS = 32  # of a batch

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gallery:
    """Every text and every picture of a split.

    `truth[t]` is the picture of text t, `record[i]` a record of picture i; text t is number `place[t, 1]` of the texts
    of record `place[t, 0]`.
    """

    text: Float[np.ndarray, "T E"]
    image: Float[np.ndarray, "I E"]
    truth: Int[np.ndarray, " T"]
    record: Int[np.ndarray, " I"]
    place: Int[np.ndarray, "T 2"]


class Queries:
    """A split with the texts of the kinds that the run is about, `config.data.kinds`, and of some records alone."""

    def __init__(self, source: Source, data: DataConfig, start: int = 0, stop: int | None = None):
        self._source, self._data, self.region_classes = source, data, source.region_classes
        self._numbers = range(len(source))[start:stop]
        # Every picture is asked for with many texts in turn, and every text with many pictures.
        self._kept_texts = functools.lru_cache(maxsize=RECORDS * 100)(self._texts)
        self._kept_record = functools.lru_cache(maxsize=1)(self._record)

    def __len__(self) -> int:
        return len(self._numbers)

    def texts(self, i: int) -> tuple[Sentence, ...]:
        return self._kept_texts(i)

    def __getitem__(self, i: int) -> Record:
        return self._kept_record(i)

    def _texts(self, i: int) -> tuple[Sentence, ...]:
        return tuple(text for text in self._source.texts(self._numbers[i]) if wanted(text, self._data))

    def _record(self, i: int) -> Record:
        return dataclasses.replace(self._source[self._numbers[i]], texts=self.texts(i))


def embed(model: Model, source: Source, folder: Path) -> Gallery:
    """The vectors of all texts and pictures; a picture that several records show is one."""
    read = _vectors_fn(model)
    data, blocks = model.config.data, []
    for start in range(0, len(source), RECORDS):
        part = Queries(source, data, start, start + RECORDS)
        if any(part.texts(i) for i in range(len(part))):
            blocks.append(kept(folder / f"vectors-{start}", functools.partial(_embed_block, model, part, read)))
            blocks[-1]["record"] += start
    if not blocks:
        raise DataError(
            f"config.data.texts={data.texts!r} and config.data.kinds={data.kinds} leave no text to retrieve"
        )
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    pictures, first = np.unique(joined["picture"], return_index=True)
    return Gallery(
        text=joined["text"],
        image=joined["image"][first],
        truth=np.searchsorted(pictures, joined["picture"]),
        record=joined["record"][first],
        place=np.stack([joined["record"], joined["number"]], axis=-1),
    )


def _vectors_fn(model: Model) -> Callable[[Any, Batch], Any]:
    @jax.jit
    def read(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        found = unimodal(SharedEncode(nnx.merge(model.graphdef, params), None), batch)
        return tuple(x.reshape(*batch.picture.shape, -1) for x in (found.text, found.image))

    return read


def _embed_block(model: Model, part: Queries, read: Callable[[Any, Batch], Any]) -> Arrays:
    """Of each text its vector and its picture's, which record it is of, and its number there."""
    found: dict[str, list[Any]] = {name: [] for name in ("text", "image", "picture", "record", "number")}
    counts = [0] * len(part)
    rows = min(model.config.train.batch_size, MAX_ROWS)
    for batch, items in eval_batches(part, model.processor, batch_size=rows):
        text, image = jax.device_get(read(model.params, batch))
        for row, row_items in enumerate(items):
            for k, (record, _) in enumerate(row_items):
                values = (text[row, k], image[row, k], batch.picture[row, k], record, counts[record])
                counts[record] += 1
                for kept, value in zip(found.values(), values, strict=True):
                    kept.append(value)
    return {name: np.array(values) for name, values in found.items()}


def kept(path: Path, make: Callable[[], Arrays]) -> Arrays:
    """A block from its file, or made and written: whole, or not at all. A damaged file is made anew."""
    file = path.with_name(f"{path.name}.npz")
    try:
        # Opened here: numpy leaves a damaged file open.
        with file.open("rb") as stream, np.load(stream) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        made = make()
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as written:
        np.savez(written, **made)  # type: ignore[arg-type]
    part.replace(file)
    return made
