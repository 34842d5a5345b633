"""How many of the things that can be read are read: a number of them, or a share."""

from __future__ import annotations

from fractions import Fraction

import jax.numpy as jnp
from jaxtyping import Int32

from singlestream.batch import Array
from singlestream.model.attention.config import LEAST_SHARE


def how_many(keep: float, there: Int32[Array, "*S"]) -> Int32[Array, "*S"]:
    """Of so many that are there: `keep`, at most all; or, where `keep` is below 1, this share of them, rounded up.

    In whole numbers, so that 0.1 of 30 is 3 and not, by rounding, 4.
    """
    if keep >= 1:
        return jnp.minimum(jnp.int32(keep), there)
    share = _share(keep)
    return -(-there * share.numerator // share.denominator)


def at_most(keep: float, there: int) -> int:
    """`how_many` of a number that is known beforehand."""
    return min(int(keep), there) if keep >= 1 else -(-there * _share(keep).numerator // _share(keep).denominator)


def _share(keep: float) -> Fraction:
    return Fraction(keep).limit_denominator(round(1 / LEAST_SHARE))
