"""The singular modes of the scores between words and patches find planted correspondences.

Source: singular vectors as groups of rows and columns, Dhillon 2001 (spectral co-clustering), section 4; a low rank
under noise, Benaych-Georges & Nadakuditi 2012, theorem 2.9.

Test: 24 words and 36 patches in random order; three groups of 10, 6 and 4 words and of 15, 9 and 6 patches share a
concept each, the rest belongs to none. Queries and keys are 32 normal numbers plus the concept, which is as long as
these. Each token of a group is given to the mode, of the first three, in which it is largest; modes stand for groups
in the best of the 6 ways.

Refuted if: fewer than 0.95 of words and patches are given to their group (0.33 by chance). Told beside it: the same
for the weights after the softmax, for concepts half as long, and for groups of equal size, whose modes have equal
singular values and may mix.

Seen: as claimed, and by the modes of the weights as well. What the claim leaves out: with concepts half as long 0.72
(0.56 to 0.86) find their group, and of groups of equal size 0.76, since modes of equal singular values mix.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from lab.experiment import Check, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE, GROUPS = 32, 3
UNEQUAL = ((10, 6, 4), (15, 9, 6))  # words and patches of each group
EQUAL = ((7, 7, 7), (11, 11, 11))
TOKENS = (24, 36)


def plant(
    rng: np.random.Generator, sizes: tuple[tuple[int, ...], tuple[int, ...]], strength: float
) -> list[np.ndarray]:
    """Groups of words and of patches (GROUPS: of none), and the scores [words, patches]."""
    concepts = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0][:GROUPS] * strength * np.sqrt(SIZE)
    groups, vectors = [], []
    for counts, total in zip(sizes, TOKENS, strict=True):
        labels = np.repeat(np.arange(GROUPS + 1), [*counts, total - sum(counts)])
        groups.append(rng.permutation(labels))
        own = np.concatenate([concepts, np.zeros((1, SIZE))])[groups[-1]]
        vectors.append(own + rng.standard_normal((total, SIZE)))
    return [*groups, vectors[0] @ vectors[1].T / np.sqrt(SIZE)]


def found(words: np.ndarray, patches: np.ndarray, matrix: np.ndarray) -> float:
    """Share of the tokens in groups that the first modes of a matrix give to their group."""
    u, _, v = np.linalg.svd(matrix)
    guess = np.concatenate([np.abs(u[:, :GROUPS]).argmax(1), np.abs(v[:GROUPS]).argmax(0)])
    truth = np.concatenate([words, patches])
    grouped = truth < GROUPS
    ways = (np.array(way)[guess] == truth for way in itertools.permutations(range(GROUPS)))
    return max(float(right[grouped].mean()) for right in ways)


def run(seed: int, *, strength: float = 1.0) -> Result:
    """`strength`: of the concepts."""
    rng = np.random.default_rng(seed)
    words, patches, scores = plant(rng, UNEQUAL, strength)
    weights = np.asarray(jax.nn.softmax(scores, axis=-1))
    return {
        "scores": found(words, patches, scores),
        "weights": found(words, patches, weights),
        "half": found(*plant(rng, UNEQUAL, strength / 2)),
        "equal": found(*plant(rng, EQUAL, strength)),
        "values": np.linalg.svd(scores)[1][:8].tolist(),
    }


def judge(results: Sequence[Result]) -> list[Check]:
    return [
        Check("tokens given to their group by modes of the scores", [r["scores"] for r in results], least=0.95),
        Check("by modes of the weights", [r["weights"] for r in results]),
        Check("by modes of the scores, concepts half as long", [r["half"] for r in results]),
        Check("by modes of the scores, groups of equal size", [r["equal"] for r in results]),
    ]


def draw(results: Sequence[Result], axes: Axes) -> None:
    values = np.array([r["values"] for r in results])
    axes.plot(np.arange(1, 9), values.T, "o-", color="#1d4ed8", alpha=0.5)
    axes.axvline(GROUPS + 0.5, color="#334155", linestyle="--", label="groups planted")
    axes.set(xlabel="mode", ylabel="singular value of the scores", ylim=(0, None))
    axes.legend()
