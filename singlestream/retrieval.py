"""Retrieval over a full gallery in two stages: vectors make a shortlist, the encoder re-ranks it (ALBEF, section 5).

First every text and every picture is read by itself (`itc`), once; similarities rank everything. Then the encoder reads
each query with the best of its shortlist, and `itm` puts those in order; what is not on the shortlist stays behind it.
(Li et al. 2021.) All of it is kept in a folder in blocks, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from singlestream.answers import Metrics
from singlestream.batch import Batch
from singlestream.config import ConfigError
from singlestream.data.processor import Processor, Row
from singlestream.data.record import Source
from singlestream.gallery import MAX_ROWS, Arrays, Gallery, Queries, embed, kept
from singlestream.objectives.itm import MATCH, MISMATCH
from singlestream.predict import Model
from singlestream.ranking import first_stage, recall, reranked
from singlestream.train.fingerprint import digest
from singlestream.train.folder import write_atomic

HEADS = ("itc_text", "itc_image", "itm")
PAIRS = 4096  # of a block of scores


def retrieve(model: Model, source: Source, folder: Path, *, shortlist: int) -> Metrics:
    """Recall over the whole gallery in both directions.

    Args:
        folder: where vectors and scores are kept; those of another checkpoint or other texts are thrown away.
        shortlist: how many of the gallery the encoder reads with each query.

    Returns:
        `retrieve/image/r1`, `r5`, `r10`, `median` (the rank of a text's own picture), `retrieve/text/...` (the rank of
        the best of a picture's own texts), the same of the first stage alone as `retrieve/itc/...`, and
        `retrieve/encoded`, the texts that the encoder read with a picture.

    Raises:
        ConfigError: the run has not learned both `itc` and `itm`.
    """
    if missing := [name for name in HEADS if name not in model.heads]:
        raise ConfigError(f"retrieval needs the objectives itc and itm; this run has no head {missing[0]!r}")
    _begin(folder, model, source)
    gallery = embed(model, source, folder)
    own_texts = np.split(np.argsort(gallery.truth, kind="stable"), np.cumsum(np.bincount(gallery.truth))[:-1])
    own_image = [gallery.truth[t : t + 1] for t in range(len(gallery.text))]
    to_image, image_rank = first_stage(gallery.text, gallery.image, own_image, shortlist)
    to_text, text_rank = first_stage(gallery.image, gallery.text, own_texts, shortlist)
    forth = np.arange(len(gallery.text))[:, None] + len(gallery.text) * to_image
    back = to_text + len(gallery.text) * np.arange(len(gallery.image))[:, None]
    pairs = np.unique(np.concatenate([forth.ravel(), back.ravel()]))  # by picture, then by text
    scores = _score(model, source, gallery, pairs, folder / f"pairs-{shortlist}")
    metrics: Metrics = {"retrieve/encoded": len(pairs)}
    for name, codes, ids, own, rank in (
        ("image", forth, to_image, own_image, image_rank),
        ("text", back, to_text, own_texts, text_rank),
    ):
        true = np.stack([np.isin(found, mine) for found, mine in zip(ids, own, strict=True)])
        second = reranked(scores[np.searchsorted(pairs, codes)], true, rank)
        metrics |= recall(f"retrieve/{name}", second) | recall(f"retrieve/itc/{name}", rank)
    return metrics


def _score(model: Model, source: Source, gallery: Gallery, pairs: np.ndarray, stem: Path) -> Float[np.ndarray, " P"]:
    """What `itm` says of each pair, in log odds."""

    @jax.jit
    def read(params: Any, batch: Batch) -> jax.Array:
        module = nnx.merge(model.graphdef, params)
        logits = module.heads["itm"](module(batch))
        return logits[..., MATCH] - logits[..., MISMATCH]

    queries = Queries(source, model.config.data)
    blocks = []
    for start in range(0, len(pairs), PAIRS):
        some = pairs[start : start + PAIRS]
        path = stem.with_name(f"{stem.name}-{start}")
        blocks.append(kept(path, functools.partial(_score_block, model, queries, gallery, some, read)))
    return np.concatenate([block["score"] for block in blocks])


def _score_block(
    model: Model, queries: Queries, gallery: Gallery, pairs: np.ndarray, read: Callable[[Any, Batch], Any]
) -> Arrays:
    processor = model.processor.unpacked().without_targets()
    size = min(model.config.train.batch_size, MAX_ROWS)
    images, texts = np.divmod(pairs, len(gallery.text))
    rows = list(_rows(images, texts, processor.data.texts_per_row))
    scores = []
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        made = [_row(processor, queries, gallery, image, of) for image, of in some]
        made += [processor.row([])] * (size - len(made))
        found = jax.device_get(read(model.params, processor.batch(made)))
        scores += [found[k, : len(of)] for k, (_, of) in enumerate(some)]
    return {"score": np.concatenate(scores)}


def _rows(images: np.ndarray, texts: np.ndarray, most: int) -> Iterator[tuple[int, np.ndarray]]:
    """A picture with up to `most` texts, pairs being in the order of pictures."""
    for image in np.unique(images).tolist():
        own = texts[images == image]
        for start in range(0, len(own), most):
            yield image, own[start : start + most]


def _row(processor: Processor, queries: Queries, gallery: Gallery, image: int, texts: np.ndarray) -> Row:
    places = gallery.place[texts].tolist()
    return processor.row([(queries[int(gallery.record[image])], [queries.texts(i)[number] for i, number in places])])


def _begin(folder: Path, model: Model, source: Source) -> None:
    """Makes the folder, or empties it where it holds another checkpoint's work, or that on other data."""
    data, about = model.config.data, folder / "about.json"
    # A run that was begun anew reaches the same step with other weights.
    of_model = {"step": model.step, "weights": digest(model.params)}
    now = {**of_model, "data": data.dir, "records": len(source), "texts": data.texts, "kinds": list(data.kinds)}
    try:
        before = json.loads(about.read_text())
    except (OSError, ValueError):
        before = None
    if before != now:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_atomic(about, json.dumps(now))
