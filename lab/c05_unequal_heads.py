"""Of heads of unequal width under one shared scale, the widest takes the gradient.

Source: the variance of q.k is the head's own width, Vaswani et al. 2017, footnote 4; on the width of heads,
Bhojanapalli et al. 2020.

Test: four heads whose queries and keys have 4, 16, 64 and 256 normal numbers, their values 32 each, a random gradient
at each head's output. Share of the squared gradient that reaches the widest head's queries, once with one scale for
all (from the mean width, as code that divides by sqrt(D / H) has it) and once with 1/sqrt(width) of each head. Equal
values, so that the widest head does not win by what it carries.

Refuted if: under the shared scale the widest gets less than 0.6 of the gradient, or under own scales more than 0.35
(fair: 0.25).

Seen: as claimed: 0.81 of the squared gradient goes to the widest head under the one scale, 0.25 under own ones. With
the narrowest head's scale the widest one saturates, and still takes 0.66: most queries then have no gradient, a few
between two keys a large one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from lab.experiment import Check, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTHS = np.array([4, 16, 64, 256])
DRAWS, KEYS, VALUES = 1024, 16, 32

Scales = Callable[[np.ndarray], np.ndarray]  # of each head, from the widths


def shared(widths: np.ndarray) -> np.ndarray:
    return np.full(len(widths), widths.mean() ** -0.5)


def narrowest(widths: np.ndarray) -> np.ndarray:
    return np.full(len(widths), widths.min() ** -0.5)


def own(widths: np.ndarray) -> np.ndarray:
    return widths**-0.5


@functools.partial(jax.jit, static_argnames="width")
def squared_gradient(width: int, scale: float, key: jax.Array) -> jax.Array:
    """Mean squared length of the gradient at the queries of a head."""

    def loss(q: jax.Array, k: jax.Array, v: jax.Array, out: jax.Array) -> jax.Array:
        return jax.nn.softmax(scale * k @ q) @ v @ out

    keys = jax.random.split(key, 4)
    shapes = ((width,), (KEYS, width), (KEYS, VALUES), (VALUES,))
    drawn = (jax.random.normal(key, (DRAWS, *shape)) for key, shape in zip(keys, shapes, strict=True))
    return (jax.vmap(jax.grad(loss))(*drawn) ** 2).sum(-1).mean()


def run(seed: int, *, one: Scales = shared) -> Result:
    """`one`: the scales that are meant to be one and the same."""
    result = {}
    for name, scales in (("shared", one), ("narrowest", narrowest), ("own", own)):
        keys = jax.random.split(jax.random.key(seed), len(WIDTHS))
        heads = zip(WIDTHS.tolist(), scales(WIDTHS), keys, strict=True)
        found = np.array([float(squared_gradient(width, scale, key)) for width, scale, key in heads])
        result[name] = (found / found.sum()).tolist()
    return result


def judge(results: Sequence[Result]) -> list[Check]:
    return [
        Check("one scale: the widest head's share of the gradient", [r["shared"][-1] for r in results], least=0.6),
        Check("own scales: the widest head's share", [r["own"][-1] for r in results], most=0.35),
        Check("one scale, the narrowest head's: the widest's share", [r["narrowest"][-1] for r in results]),
    ]


def draw(results: Sequence[Result], axes: Axes) -> None:
    labels = {"shared": "one scale, mean width", "narrowest": "one scale, narrowest", "own": "own scales"}
    for i, (name, label) in enumerate(labels.items()):
        places = np.arange(len(WIDTHS)) + 0.27 * (i - 1)
        axes.bar(places, np.median([r[name] for r in results], 0), width=0.25, label=label)
    axes.set_xticks(range(len(WIDTHS)), [str(width) for width in WIDTHS])
    axes.set(xlabel="width of the head", ylabel="share of the squared gradient")
    axes.legend()
