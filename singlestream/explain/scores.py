"""How far a figure can be trusted: intervals of a share, calibration of probabilities. numpy only."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float


def wilson_interval(hits: int | float, count: int) -> tuple[float, float]:
    """95% interval of a share of `hits` in `count` (Wilson, JASA 1927, the score interval); (0, 1) for no count.

    `hits` may be a sum of scores in [0, 1], which vary less than hits do.
    """
    if not 0 <= hits <= count:
        raise ValueError(f"hits={hits} must be between 0 and count={count}")
    if count == 0:
        return 0.0, 1.0
    z = 1.959963984540054  # the normal distribution's 97.5% point
    share = hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # The bounds at 0 and all hits are exactly 0 and 1; in floating point they are not quite.
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == count else middle + half)


def bootstrap_interval(values: Float[np.ndarray, " examples"], *, draws: int = 2000) -> tuple[float, float]:
    """95% interval of the mean of one value an example, by the percentiles of resampled means (Efron 1979).

    The draws are the same each time. Of one example, or none, nothing is known: (-inf, inf).
    """
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return -math.inf, math.inf
    chosen = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(values[chosen].mean(-1), (2.5, 97.5))
    return float(low), float(high)


def auroc(scores: Float[np.ndarray, " examples"], positive: Bool[np.ndarray, " examples"]) -> float:
    """Area under the ROC curve: the share of pairs of a positive and a negative that the scores rank so; ties are half.

    By the sum of ranks (Mann and Whitney 1947), which is the area under the curve exactly.

    Raises:
        ValueError: there are no positives, or no negatives.
    """
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    above = int(positive.sum())
    below = len(positive) - above
    if not above or not below:
        raise ValueError(f"{above} positives and {below} negatives: an area under the ROC curve needs both")
    ranks = np.cumsum(counts) - (counts - 1) / 2  # from 1; of equal scores their mean
    return float((ranks[place][positive].sum() - above * (above + 1) / 2) / (above * below))


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """The answers whose probability lies in [low, high): how many, their mean probability, the share that is right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def calibration(
    probability: Float[np.ndarray, " examples"],
    correct: Bool[np.ndarray, " examples"] | Float[np.ndarray, " examples"],
    *,
    num_bins: int = 10,
) -> tuple[float, tuple[CalibrationBin, ...]]:
    """Expected calibration error, and the bins of equal width (those that hold an answer) behind it.

    The error is the mean over answers of |confidence - accuracy| of their bin (Naeini et al., AAAI 2015). `correct` may
    be scores in [0, 1].
    """
    probability, correct = np.asarray(probability, np.float64), np.asarray(correct, np.float64)
    which = np.minimum((probability * num_bins).astype(int), num_bins - 1)
    bins = []
    for i in range(num_bins):
        held = which == i
        if count := int(held.sum()):
            bins.append(
                CalibrationBin(
                    low=i / num_bins,
                    high=(i + 1) / num_bins,
                    count=count,
                    confidence=float(probability[held].mean()),
                    accuracy=float(correct[held].mean()),
                )
            )
    total = sum(b.count for b in bins)
    error = sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / max(total, 1)
    return float(error), tuple(bins)
