"""Picking one head costs the largest of their Rademacher complexities, joining all the root of the sum of squares;
and the smaller complexity does not say which learns better.

Source: Bartlett & Mendelson 2002, definition 2 and theorem 8 (the bound), lemma 22 (linear functions of bounded
norm); the supremum over a union is the maximum over its members.

Test: four attention heads with random projections of different loudness read 16 tokens; linear functions of norm 1 of
what a head reads are its class. For 200 examples and 2,000 sign vectors the supremum of the correlation with the
signs is known exactly: |sum of sign x feature| / n of a head, its maximum over heads for the class that picks one,
the norm over all heads together for the class that joins them. Then both are fitted by least squares within norm 1 to
a target that reads all heads, and to one that reads the loudest alone, and the error on 2,000 new examples is
compared.

Refuted if: joining is not within 5% of the root of the squares, or picking not between the largest and 1.2 times it;
or if, for the target that needs all heads, the class of smaller complexity does not have at least twice the error.

Seen: as claimed: 1.02 times the root, 1.06 times the largest. The joined class, of 1.4 times the complexity, has a
55th of the error where all heads are needed, and 5.6 times the error where one is: the bound ranks the classes, the
task decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from lab.experiment import Check, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOUDNESS = np.array([1.0, 0.8, 0.6, 0.4])
HEADS, WIDTH, SIZE, TOKENS = len(LOUDNESS), 32, 8, 16
EXAMPLES, SIGNS, NEW = 200, 2000, 2000


def features(rng: np.random.Generator, num: int, projections: np.ndarray) -> np.ndarray:
    """What each head reads in `num` examples: [HEADS, num, SIZE]."""
    tokens, query = rng.standard_normal((num, TOKENS, WIDTH)), rng.standard_normal((num, WIDTH))
    q, k, v = (np.einsum("...d,hdc->h...c", x, w) for x, w in zip((query, tokens, tokens), projections, strict=True))
    weights = np.asarray(jax.nn.softmax(2 * np.einsum("hnc,hnkc->hnk", q, k) / np.sqrt(SIZE), axis=-1))
    return LOUDNESS[:, None, None] * np.einsum("hnk,hnkc->hnc", weights, v)


def complexities(rng: np.random.Generator, read: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Empirical Rademacher complexity of each head, of picking one, and of joining all, at norm 1."""
    signs = rng.choice([-1.0, 1.0], (SIGNS, EXAMPLES))
    norms = np.linalg.norm(np.einsum("sn,hnc->shc", signs, read), axis=-1) / EXAMPLES
    return norms.mean(0), float(norms.max(1).mean()), float(np.linalg.norm(norms, axis=1).mean())


def fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares with a norm of at most 1: the ridge regression of that norm, by bisection."""
    s, rotate = np.linalg.eigh(x.T @ x)
    target = rotate.T @ (x.T @ y)
    low, high = 1e-9, 1e9
    for _ in range(100):
        ridge = np.sqrt(low * high)
        low, high = (ridge, high) if np.linalg.norm(target / (s + ridge)) > 1 else (low, ridge)
    return rotate @ (target / (s + high))


def errors(train: np.ndarray, test: np.ndarray, target: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
    """Mean squared error on new examples of the best single head, and of all joined."""

    def error(heads: Sequence[int]) -> tuple[float, float]:
        x, new = (np.concatenate([read[h] for h in heads], axis=-1) for read in (train, test))
        y, truth = (np.einsum("hnc,hc->n", read, target) for read in (train, test))
        y = y + noise
        weights = fit(x, y)
        return float(((x @ weights - y) ** 2).mean()), float(((new @ weights - truth) ** 2).mean())

    return min(error([h]) for h in range(HEADS))[1], error(range(HEADS))[1]


def run(seed: int, *, gate: bool = True) -> Result:
    """`gate=False`: the class that is meant to pick one head joins them all."""
    rng = np.random.default_rng(seed)
    projections = rng.standard_normal((3, HEADS, WIDTH, SIZE)) / np.sqrt(WIDTH)
    train, test = features(rng, EXAMPLES, projections), features(rng, NEW, projections)
    single, pick, join = complexities(rng, train)
    result = {"single": single.tolist(), "pick": pick if gate else join, "join": join}
    for name, needed in (("all", HEADS), ("one", 1)):
        target = rng.standard_normal((HEADS, SIZE)) * (np.arange(HEADS) < needed)[:, None]
        noise = 0.1 * rng.standard_normal(EXAMPLES)
        picked, joined = errors(train, test, target / np.linalg.norm(target), noise)
        result |= {f"{name}_pick": picked if gate else joined, f"{name}_join": joined}
    return result


def judge(results: Sequence[Result]) -> list[Check]:
    root = [r["join"] / np.linalg.norm(r["single"]) for r in results]
    return [
        Check("joining all, over the root of the squares", root, 0.95, 1.05),
        Check("picking one, over the largest", [r["pick"] / max(r["single"]) for r in results], 1.0, 1.2),
        Check(
            "target of all heads: error of picking / joining", [r["all_pick"] / r["all_join"] for r in results], least=2
        ),
        Check("target of one head: error of picking / joining", [r["one_pick"] / r["one_join"] for r in results]),
    ]


def draw(results: Sequence[Result], axes: Axes) -> None:
    names = {"pick": "picking one", "join": "joining all"}
    for name, label in names.items():
        complexity = [r[name] for r in results]
        for needs, marker in (("all", "o"), ("one", "x")):
            values = [r[f"{needs}_{name}"] for r in results]
            axes.plot(complexity, values, marker, label=f"{label}, target of {needs}")
    axes.set(xlabel="Rademacher complexity", ylabel="error on new examples", yscale="log")
    axes.legend()
