"""How the parameters of a published file correspond to ours: one list of rules a family, read in both directions.

A rule names arrays of ours by their path and arrays of theirs by their key, and says by a `Layout` how the ones become
the others. `{i}` in a key is the number of a layer: ours then carries all layers on its first axis.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from singlestream.data.record import DataError

Arrays = tuple[np.ndarray, ...]


@runtime_checkable
class Tensor(Protocol):
    """An array of a file: its shape is known, its numbers are read when asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def read(self) -> np.ndarray: ...


class WeightsError(DataError):
    """Weights that do not fit; the message lists every name, and nothing was loaded."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Our arrays of one layer from theirs, and theirs from ours; each undoes the other exactly."""

    read: Callable[..., Arrays]
    write: Callable[..., Arrays]


SAME = Layout(read=lambda x: (x,), write=lambda x: (x,))
LINEAR = Layout(read=lambda x: (x.T,), write=lambda x: (x.T,))  # torch's [out, in]
# Three projections, one array: kernels [D, 3, D], biases [3, D].
QKV_KERNEL = Layout(
    read=lambda q, k, v: (np.stack([q.T, k.T, v.T], axis=1),), write=lambda x: tuple(x[:, i].T for i in range(3))
)
QKV_BIAS = Layout(read=lambda q, k, v: (np.stack([q, k, v]),), write=lambda x: tuple(x))
# The same in one array of torch's, [3 D, D] and [3 D].
FUSED_KERNEL = Layout(
    read=lambda x: (x.reshape(3, -1, x.shape[1]).transpose(2, 0, 1),),
    write=lambda x: (x.transpose(1, 2, 0).reshape(-1, x.shape[0]),),
)
FUSED_BIAS = Layout(read=lambda x: (x.reshape(3, -1),), write=lambda x: (x.reshape(-1),))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """`ours` (paths) and `theirs` (keys) hold the same numbers."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    layout: Layout = SAME

    @property
    def stacked(self) -> bool:
        return "{i}" in self.theirs[0]

    def keys(self, i: int | None) -> list[str]:
        return [key if i is None else key.replace("{i}", str(i)) for key in self.theirs]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copy:
    """A key that holds the same numbers as another key: tied weights, which files may leave out."""

    key: str
    of: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
    """A key that holds no parameter (`position_ids`): ignored when read; written where `value` is given."""

    key: str
    value: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Account:
    """What came from where.

    `taken` maps our paths to their keys; `fresh` are paths of ours that the file does not have, `unused` keys of the
    file that have no place here, `misfits` lines about keys of another shape or type.
    """

    taken: Mapping[str, tuple[str, ...]]
    fresh: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    misfits: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What a person wants to know of an incomplete reading."""
        lists = (("fresh, not in the file", self.fresh), ("not used", self.unused), ("not as expected", self.misfits))
        return [f"{len(names)} {title}: {', '.join(names)}" for title, names in lists if names]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """A family's dialect: everything its files hold, and where it goes."""

    rules: Sequence[Rule]
    copies: Sequence[Copy] = ()
    constants: Sequence[Constant] = ()
