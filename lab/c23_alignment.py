"""Through cross attention the gradient reaches both sides, and the alignment of words with regions emerges from answers
alone.

Source: cross-modality layers, Tan & Bansal 2019, section 2.2.3; alignment in attention that nobody supervised, Cao et
al. 2020, section 4.

Test: two streams (a layer of the text, one of the picture, one cross layer as LXMERT's; width 32), pooled from the
text's first state, are trained for 500 steps on `name` (`lab/pairs.py`): the first word names one of four things by its
colour or its shape, and the answer is its mark. The arm `apart` is the same without cross attention. Measured: the norm
of the gradient of the image side's parameters as a share of that of the text's, at the start; what is answered right
(1/4 is a guess); pointing of the one head of cross attention on 1,024 new questions: the share of naming words whose
strongest weight is on the thing that they name (1/4 is chance).

Refuted if: the image's share of the gradient is below 1% with cross attention, or not exactly 0 without; or the answers
are right in less than 90% with it, or more than 30% without; or pointing is below 0.8, or above 0.4 at the start.

Seen: as claimed: right in 1.000 of the answers and pointing at 0.998 to 1.000, from 0.19 to 0.35 before training;
without cross attention a guess (0.24 to 0.26) and a gradient of exactly 0. The question matters. Where all four marks
were there once, a first form of it, the model was right in 1.000 and pointed right in 0.000: reading every thing but
the named one tells its mark as well. Each thing now has any mark. The bounds on answers and pointing are as they were;
those on a guess went from the first question's (1/2, 1/6) to this one's.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax

from lab import pairs, small
from lab.experiment import Check, Result
from singlestream.model.two_stream_config import TwoStreamConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ARMS, SEEDS = ("together", "apart"), (0, 1, 2)
STEPS = 500
KIND = "name"


def config_of(arm: str) -> TwoStreamConfig:
    return dataclasses.replace(small.TWO, cross_heads=1, coattention=arm == "together")


@functools.partial(jax.jit, static_argnames="config")
def gradients(params: Any, config: TwoStreamConfig, question: pairs.Question) -> dict[str, jax.Array]:
    """Norm of the loss's gradient with respect to the parameters of each side, embeddings and own layers."""
    found = jax.grad(lambda params: small.loss(small.merge(config, params), question, small.key_of(0)))(params)
    return {side: optax.tree.norm([found["embed"][side], found[side]]) for side in ("text", "image")}


def run(seed: int, arm: str) -> Result:
    config, key = config_of(arm), small.key_of(seed)
    start = small.untrained(key, config)
    norms = gradients(start, config, pairs.name(np.random.default_rng(seed), small.NEW // 4))
    params, losses, shares = small.train(seed, config, (KIND,), steps=STEPS)
    result = {"share": float(norms["image"] / norms["text"]), "right": shares[KIND], "losses": small.thinned(losses)}
    if arm == "apart":
        return result
    first, last = (small.pointing(p, config, KIND)["text_to_image"] for p in (start, params))
    return {**result, "start": first, "pointing": last}


def judge(results: Sequence[dict[str, Result]]) -> list[Check]:
    together, apart = ([r[arm] for r in results] for arm in ARMS)
    return [
        Check("together: gradient of the image's side over the text's", [r["share"] for r in together], least=0.01),
        Check("apart: the same", [r["share"] for r in apart], most=0.0),
        Check("together: answered right", [r["right"] for r in together], least=0.9),
        Check("apart: answered right", [r["right"] for r in apart], most=0.3),
        Check("pointing of cross attention, trained", [r["pointing"] for r in together], least=0.8),
        Check("pointing of cross attention, at the start", [r["start"] for r in together], most=0.4),
    ]


def draw(results: Sequence[dict[str, Result]], axes: Axes) -> None:
    for arm, colour in zip(ARMS, ("#1d4ed8", "#b91c1c"), strict=True):
        curves = np.array([r[arm]["losses"] for r in results])
        places = np.arange(curves.shape[1]) * STEPS / curves.shape[1]
        axes.plot(places, np.median(curves, 0), color=colour, label=f"{arm}: loss")
        axes.fill_between(places, curves.min(0), curves.max(0), color=colour, alpha=0.2)
    for name, place in (("start", 0), ("pointing", STEPS)):
        points = [r["together"][name] for r in results]
        axes.plot([place] * len(points), points, "o", color="#047857", label="pointing" if place else None)
    axes.axhline(1 / 4, color="#047857", linestyle="--", linewidth=1, label="pointing at random")
    axes.set(xlabel="step", ylim=(0, 1.8))
    axes.legend(loc="center right")
