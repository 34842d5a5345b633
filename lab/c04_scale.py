"""The variance of q.k grows with d, softmax saturates and its gradient dies; 1/sqrt(d) mends it.

Source: Vaswani et al. 2017, section 3.2.1 and footnote 4.

Test: queries and 16 keys of d normal numbers, d from 16 to 4096. Measured for the library's dot and scaled dot
product: the exponent of d in the variance of the scores (a straight line through the logarithms), the mean of the
largest weight, and the median norm of the softmax's Jacobian, d weights / d scores.

Refuted if: the exponent is not within 0.1 of 1; or at d = 1024 the largest weight is below 0.9 or the Jacobian's
median norm above 1e-3 without the scale; or if with it the exponent is not within 0.1 of 0, or the Jacobian's norm at
4096 not within 25% of that at 16.

Seen: as claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from lab import kinds
from lab.experiment import Check, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZES = (16, 64, 256, 1024, 4096)
QUERIES, KEYS = 512, 16


def measure(name: str, size: int, seed: int) -> tuple[float, float, float]:
    """Variance of the scores, mean of the largest weight, median norm of the softmax's Jacobian."""
    rng = np.random.default_rng([seed, size])
    q = jnp.asarray(rng.standard_normal((1, 1, QUERIES, size)), jnp.float32)
    k = jnp.asarray(rng.standard_normal((1, 1, KEYS, size)), jnp.float32)
    scores = kinds.score(name, size, jax.random.key(0))(q, k)[0, 0]
    norm = jnp.linalg.norm(jax.vmap(jax.jacobian(jax.nn.softmax))(scores), axis=(1, 2))
    return float(scores.var()), float(jax.nn.softmax(scores).max(-1).mean()), float(jnp.median(norm))


def run(seed: int, *, mended: str = "scaled_dot") -> Result:
    result: Result = {}
    for kind, name in (("plain", "dot"), ("mended", mended)):
        variance, largest, jacobian = zip(*(measure(name, size, seed) for size in SIZES), strict=True)
        result |= {f"{kind}_jacobian": list(jacobian), f"{kind}_largest": list(largest)}
        result[f"{kind}_exponent"] = float(np.polyfit(np.log(SIZES), np.log(variance), 1)[0])
    return result


def judge(results: Sequence[Result]) -> list[Check]:
    kept = [r["mended_jacobian"][-1] / r["mended_jacobian"][0] for r in results]
    return [
        Check("q.k: exponent of d in the variance", [r["plain_exponent"] for r in results], 0.9, 1.1),
        Check("q.k, d = 1024: mean of the largest weight", [r["plain_largest"][3] for r in results], least=0.9),
        Check("q.k, d = 1024: median norm of the Jacobian", [r["plain_jacobian"][3] for r in results], most=1e-3),
        Check("scaled: exponent of d in the variance", [r["mended_exponent"] for r in results], -0.1, 0.1),
        Check("scaled: Jacobian at d = 4096, over that at 16", kept, 0.75, 1.25),
    ]


def draw(results: Sequence[Result], axes: Axes) -> None:
    for kind, label in (("plain", "q.k"), ("mended", "q.k / sqrt(d)")):
        values = np.maximum([r[f"{kind}_jacobian"] for r in results], 1e-20)
        axes.plot(SIZES, np.median(values, 0), marker="o", label=label)
        axes.fill_between(SIZES, values.min(0), values.max(0), alpha=0.2)
    axes.set(xscale="log", yscale="log", xlabel="d", ylabel="median norm of d weights / d scores", ylim=(1e-10, 3))
    axes.legend()
