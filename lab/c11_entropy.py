"""Noise tokens raise the entropy of attention, a token that matches the query lowers it.

Source: Shannon 1948, section 6 (grouping): a token that gets weight w turns an entropy H into h(w) + (1 - w) H, where
h is that of a coin; that is more while w is small and less when it nears 1.

Test: the library's attention of 512 queries to 8 keys of 64 normal numbers; then 56 more such keys are shown, and
then a key that is the query itself, beside the 8 and beside all 64. Measured: the share of queries whose entropy
rises, and falls.

Refuted if: it rises with noise for fewer than 99% of the queries, or falls with a match for fewer than 99%.

Seen: as claimed, for every query. The entropy in shares of its largest, log K, rises by 0.06 as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from lab.experiment import Check, Result
from singlestream.batch import TEXT
from singlestream.model.attention.attend import attend
from singlestream.model.visibility import Visibility

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUERIES, SIZE, FEW = 512, 64, 8
COUNTS = (8, 16, 32, 64)  # of ordinary keys that are seen


@jax.jit
def entropy(q: jax.Array, k: jax.Array, seen: jax.Array) -> jax.Array:
    """Entropy in nats of each query's attention [QUERIES] to the keys [QUERIES, K, SIZE] that are `seen` [K]."""

    def side(segments: jax.Array) -> Visibility:
        segments = jnp.broadcast_to(segments, (QUERIES, *segments.shape)).astype(jnp.int32)
        return Visibility(segments=segments, part=0 * segments, modality=TEXT + 0 * segments)

    sees = side(jnp.ones(1)).towards(side(seen))
    weights = attend(q[:, None, None], k[:, :, None], k[:, :, None], sees, weights=True)[1][:, 0, 0]
    return jax.scipy.special.entr(weights).sum(-1)


def run(seed: int, *, noise_hidden: bool = False, match: float = 1.0) -> Result:
    """`noise_hidden` masks the noise; `match` is how much of the query the matching key holds."""
    q_key, k_key = jax.random.split(jax.random.key(seed))
    q = jax.random.normal(q_key, (QUERIES, SIZE))
    k = jax.random.normal(k_key, (QUERIES, max(COUNTS), SIZE))
    k = jnp.concatenate([k, match * q[:, None]], 1)
    place = np.arange(k.shape[1])
    last = len(place) - 1

    def shown(count: int, matched: bool) -> jax.Array:
        ordinary = place < (FEW if noise_hidden else count)
        return entropy(q, k, jnp.asarray(ordinary | ((place == last) & matched)))

    plain, matched = ([shown(count, which) for count in COUNTS] for which in (False, True))
    return {
        "rises": float((plain[-1] > plain[0]).mean()),
        "falls": [float((matched[i] < plain[i]).mean()) for i in (0, -1)],
        "plain": [float(x.mean()) for x in plain],
        "matched": [float(x.mean()) for x in matched],
    }


def judge(results: Sequence[Result]) -> list[Check]:
    even = [r["plain"][-1] / np.log(COUNTS[-1]) - r["plain"][0] / np.log(COUNTS[0]) for r in results]
    return [
        Check("queries whose entropy rises with 56 noise tokens", [r["rises"] for r in results], least=0.99),
        Check("falls with a match beside 8 tokens", [r["falls"][0] for r in results], least=0.99),
        Check("falls with a match beside 64 tokens", [r["falls"][1] for r in results], least=0.99),
        Check("entropy over its largest, log K: change by the noise", even),
    ]


def draw(results: Sequence[Result], axes: Axes) -> None:
    for name, label in (("plain", "noise alone"), ("matched", "and a match")):
        values = np.array([r[name] for r in results])
        axes.plot(COUNTS, np.median(values, 0), marker="o", label=label)
    axes.plot(COUNTS, np.log(COUNTS), "--", color="#334155", label="log K, the largest")
    axes.set(xscale="log", xlabel="tokens seen, K", ylabel="entropy in nats", ylim=(0, None))
    axes.legend()
