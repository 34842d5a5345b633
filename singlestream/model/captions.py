"""Captions: pictures in, sentences out, by a model that learned `caption` or `prefix_lm`."""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from singlestream.batch import Batch
from singlestream.model.cached_decoder import CachedDecoder
from singlestream.model.caching import CachedText
from singlestream.model.decoding import Decoded, beam_search, greedy, sample
from singlestream.model.heads import DECODER

WRITING: dict[str, type[CachedDecoder] | type[CachedText]] = {"caption": CachedDecoder, "prefix_lm": CachedText}
READ = {"caption": DECODER, "prefix_lm": "causal"}  # the direction in which a model is read that writes
SEARCHES = ("greedy", "beam", "sample")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """How words are chosen.

    Attributes:
        kind: `greedy`; `beam` of `num_beams`, see `decoding.beam_search`; `sample` from the nucleus of `top_p` at a
            `temperature`, by a `seed`.
    """

    kind: str = "greedy"
    num_beams: int = 5
    length_penalty: float = 0.0
    top_p: float = 0.9
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in SEARCHES:
            raise ValueError(f"search {self.kind!r}: choose one of {', '.join(SEARCHES)}")
        if self.num_beams < 1 or not 0 < self.top_p <= 1 or not self.temperature > 0:
            raise ValueError(
                f"num_beams={self.num_beams}, top_p={self.top_p}, temperature={self.temperature}: a search needs 1 or "
                "more, a share in (0, 1], a number above 0"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Caption:
    """A text about a picture, and the log of its probability under the model."""

    text: str
    log_probability: float


@runtime_checkable
class Words(Protocol):
    """What a writer has to know of a tokenizer; `data.text.Tokenizer` is one."""

    cls_id: int
    sep_id: int

    def decode(self, ids: np.ndarray) -> str:
        """The text of ids, special tokens left out."""


def writing(heads: Container[str]) -> str:
    """The head that writes captions, "" where there is none."""
    return next((name for name in WRITING if name in heads), "")


class Writer:
    """Writes a caption for each row of a batch; compiled once for its shapes.

    Args:
        graphdef: of a single-stream model.
        head: that writes, from `writing`.
        tokenizer: the model's.
    """

    def __init__(self, graphdef: Any, head: str, tokenizer: Words, search: Search):
        self._graphdef, self._head, self._tokenizer, self._search = graphdef, head, tokenizer, search
        self._write = jax.jit(self._write_fn)

    def __call__(self, params: Any, batch: Batch) -> list[Caption]:
        """One caption a row of `batch`, whose texts are not read; they only say how long a caption can be."""
        tokens, scores = jax.device_get(self._write(params, batch))
        return [
            Caption(text=self._tokenizer.decode(_before(row, self._tokenizer.sep_id)), log_probability=float(score))
            for row, score in zip(tokens, scores, strict=True)
        ]

    def _write_fn(self, params: Any, batch: Batch) -> Decoded:
        text = WRITING[self._head](nnx.merge(self._graphdef, params), self._head)
        search = self._search
        rows, room = batch.text.ids.shape
        start = jnp.full(rows, self._tokenizer.cls_id, jnp.int32)
        ends: dict[str, int] = {"length": room - 1, "end_id": self._tokenizer.sep_id}
        if search.kind == "greedy":
            return greedy(text.next_token, text.start(batch), start, **ends)
        if search.kind == "sample":
            drawn: dict[str, Any] = {"top_p": search.top_p, "temperature": search.temperature}
            key = jax.random.key(search.seed)
            return sample(text.next_token, text.start(batch), start, key=key, **drawn, **ends)
        beams: dict[str, Any] = {"num_beams": search.num_beams, "length_penalty": search.length_penalty}
        return beam_search(text.next_token, text.start(batch), start, **beams, **ends)


def _before(ids: np.ndarray, end_id: int) -> np.ndarray:
    ends = np.flatnonzero(ids == end_id)
    return ids[: ends[0]] if len(ends) else ids
