"""Without a handshake no sum of a function of the shape and a function of the colour solves the pairing; a product
does.

Source: a softmax over k of f(q) + g(k) is a softmax of g(k) alone, the same for every q; "general" score q W k, Luong
et al. 2015, section 3.1; additive score, Bahdanau et al. 2015, appendix A.1.2; XOR and thresholds, Minsky & Papert
1969.

Test: four shapes and four colours, a planted one-to-one pairing. (a) Given a shape, choose its colour: fitted by
cross-entropy are f(q) + g(k), the library's bilinear score, and Bahdanau's score, which has its sum inside a tanh.
(b) Given both, say whether they belong together, matches and mismatches weighing the same: the best of all thresholds
of f + g is found by exhaustion (its yes-sets are nested: an order of the colours, and of each shape a prefix).

Refuted if: a sum chooses better than chance (1/4), or says yes and no better than 3/4, or the product makes a
mistake.

Seen: as claimed, exactly. "Additive" in Bahdanau's name is not additive in this sense: its tanh shakes hands, and it
solves the pairing as well.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lab import kinds
from lab.experiment import Check, Result
from lab.fit import descend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM = 4  # shapes, and as many colours
SCORES = ("sum", "bilinear", "additive")


class Sum(nnx.Module):
    """f(q) + g(k): no handshake."""

    def __init__(self, size: int, key: jax.Array):
        self.tables = nnx.Param(jax.random.normal(key, (2, size)))

    def __call__(self, q: jax.Array, k: jax.Array) -> jax.Array:
        f, g = self.tables[...]
        return (q @ f)[..., :, None] + (k @ g)[..., None, :]


@functools.partial(jax.jit, static_argnames="name")
def fit(name: str, colour_of: jax.Array, key: jax.Array) -> jax.Array:
    """Share of the shapes for which the fitted score puts the right colour on top."""
    one_hot = jnp.eye(NUM)[None, None]
    made, fitted = jax.random.split(key)
    score = Sum(NUM, made) if name == "sum" else kinds.score(name, NUM, made)
    graph, params = nnx.split(score)

    def logits(params: nnx.State) -> jax.Array:
        return nnx.merge(graph, params)(one_hot, one_hot)[0, 0]

    def loss(params: nnx.State, key: jax.Array) -> jax.Array:
        return -jax.nn.log_softmax(logits(params))[jnp.arange(NUM), colour_of].mean()

    params, _ = descend(loss, params, fitted, steps=400, rate=0.05)
    return (logits(params).argmax(-1) == colour_of).mean()


def best_sum(match: np.ndarray) -> float:
    """The best balanced accuracy of f(shape) + g(colour) > 0 over all f and g."""
    gain = np.where(match, 0.5 / match.sum(), -0.5 / (~match).sum())  # of saying yes where "no" was said
    best = max(
        np.maximum(gain[:, list(order)].cumsum(1).max(1), 0).sum() for order in itertools.permutations(range(NUM))
    )
    return 0.5 + float(best)


def run(seed: int, *, paired: bool = True, product: str = "bilinear") -> Result:
    """`paired=False`: one colour belongs to all shapes, and there is nothing to shake hands about."""
    rng = np.random.default_rng(seed)
    colour_of = rng.permutation(NUM) if paired else np.full(NUM, rng.integers(NUM))
    match = colour_of[:, None] == np.arange(NUM)
    names = ("sum", product, "additive")
    chosen = [float(fit(name, jnp.asarray(colour_of), jax.random.key(seed))) for name in names]
    return {**dict(zip(SCORES, chosen, strict=True)), "best_sum": best_sum(match)}


def judge(results: Sequence[Result]) -> list[Check]:
    return [
        Check("f(q) + g(k): right colours chosen", [r["sum"] for r in results], most=1 / NUM),
        Check("f(q) + g(k): best balanced accuracy of all", [r["best_sum"] for r in results], most=0.75 + 1e-9),
        Check("q W k: right colours chosen", [r["bilinear"] for r in results], least=1.0),
        Check("v tanh(Wq q + Wk k): right colours chosen", [r["additive"] for r in results]),
    ]


def draw(results: Sequence[Result], axes: Axes) -> None:
    labels = ("f(q) + g(k)", "q W k", "v tanh(Wq q + Wk k)")
    axes.bar(labels, [float(np.mean([r[name] for r in results])) for name in SCORES], color="#1d4ed8")
    axes.axhline(1 / NUM, color="#334155", linestyle="--", label="chance")
    axes.set_ylabel("right colours chosen")
    axes.legend()
