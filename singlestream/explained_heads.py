"""What attention looks like by layer and head, for one answer: by words and image tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from singlestream.batch import Batch
from singlestream.explain.measures import entropy
from singlestream.explain.modes import Modes, modes
from singlestream.explain.study import Looks, Study, queries_of
from singlestream.words import Words

NUM_MODES = 3
# Tables that say nothing where the picture reads no words.
OF_BOTH = ("entropy, image to text", "share, image to text", "mutual attention")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heads:
    """The looks of attention by layer and head, counted from 0; W words and N image tokens, no padding.

    `to_text` is None where the picture reads no words. `tables` are single numbers by their names, of the heads that
    read the image or of all ("fall without it": of the explained answer's logit, `ablation.falls`); `similarity`
    compares all heads of one kind, as `measures.head_similarity`. `modes` are those of the words that are no special
    tokens, of each head and of the mean of all; `coverage` (of the words up to each) and `fertility`
    (of all) are what image tokens receive, means over layers and heads; there special tokens count.
    """

    to_image: Float[np.ndarray, "layers H W N"]
    to_text: Float[np.ndarray, "layers H N W"] | None
    tables: Mapping[str, Float[np.ndarray, "layers H"]]
    similarity: Mapping[str, Float[np.ndarray, "layers H layers H"]]
    modes: Modes
    mean_modes: Modes
    coverage: Float[np.ndarray, "W N"]
    fertility: Float[np.ndarray, " N"]


def heads_of(batch: Batch, study: Study, words: Words, *, reads: bool) -> Heads | None:
    """A word looks where its pieces look on average; a patch gives a word what it gives to all of its pieces.

    Args:
        reads: whether the picture reads the words.
    """
    found = study.looks
    if found is None:
        return None
    seen = slice(int((np.asarray(batch.image.segments)[0] > 0).sum()))
    to_image = words.mean @ found.to_image[:, 0, :, :, seen]
    return Heads(
        to_image=to_image,
        to_text=found.to_text[:, 0, :, seen] @ words.total.T if reads else None,
        tables={name: each for name, each in tables(found, batch).items() if reads or name not in OF_BOTH}
        | {_of("fall without it", name): each[..., 0] for name, each in (study.falls or {}).items()},
        similarity={
            name: found.similarity[name].reshape(2 * (spread.shape[0], spread.shape[2]))
            for name, spread in found.entropy.items()
            if reads or name != "image_to_text"
        },
        modes=_modes(to_image, words.special),
        mean_modes=_modes(to_image.mean((0, 1)), words.special),
        coverage=words.mean @ found.coverage[:, 0, :, :, seen].mean((0, 1)),
        fertility=found.fertility[:, 0, :, seen].mean((0, 1)),
    )


def _of(what: str, name: str) -> str:
    """The name of a table of one of `Encoded.attention`; a single stream has one alone."""
    return what if name == "self" else f"{what}, {name.replace('_', ' ')}"


def _modes(maps: Float[np.ndarray, "*S W N"], special: Bool[np.ndarray, " W"]) -> Modes:
    own = np.broadcast_to(~special[:, None], maps.shape[-2:])
    return Modes(*map(np.asarray, modes(maps, own, min(NUM_MODES, *own.shape))))


def tables(found: Looks, batch: Batch) -> dict[str, Float[np.ndarray, "layers H"]]:
    """One number a layer and head of the first row, by what it says.

    Entropies in nats are means over the queries of a kind, without those that were dropped or hidden; evenness is the
    number of image tokens that share all fertility evenly, exp of its entropy, as a share of all (the index of Buzas &
    Gibson 1969); fertility and mutual attention are the largest. Special tokens count as words.
    """
    num_text = batch.text.ids.shape[1]
    found_tables = {}
    for name, each in found.entropy.items():
        counted = np.asarray(queries_of(name, batch, each.shape[-1]))[0]
        sides = {"words": slice(num_text), "image": slice(num_text, None)} if name == "self" else {name: slice(None)}
        for side, part in sides.items():
            kind = f"entropy, {side.replace('_', ' ')}"
            there = (found.reads[name][:, 0] & counted)[:, None, part]
            found_tables[kind] = (each[:, 0, :, part] * there).sum(-1) / np.maximum(there.sum(-1), 1)
    found_tables |= {f"share, {name.replace('_', ' ')}": share for name, share in found.crossing.items()}
    fertility = found.fertility[:, 0][..., np.asarray(batch.image.segments)[0] > 0]
    found_tables["evenness"] = np.exp(np.asarray(entropy(fertility))) / fertility.shape[-1]
    found_tables["fertility"] = fertility.max(-1)
    found_tables["mutual attention"] = found.mutual[:, 0].max((-1, -2))
    return found_tables
