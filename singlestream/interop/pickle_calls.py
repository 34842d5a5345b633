"""What a pickle of weights may have made for it beside plain containers: ordered dictionaries and numpy's arrays."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, Literal

import numpy as np

from singlestream.interop.pickles import Calls, Inert
from singlestream.interop.tensors import check_shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class PickledTensor:
    """An array whose bytes lie in the pickle itself.

    Raises:
        ValueError: bytes of another number than the shape has.
    """

    data: bytes
    dtype: np.dtype
    shape: tuple[int, ...]
    order: Literal["C", "F"] = "C"

    def __post_init__(self) -> None:
        if len(self.data) != math.prod(self.shape) * self.dtype.itemsize:
            raise ValueError(f"an array of {list(self.shape)} has {len(self.data)} bytes")

    def read(self) -> np.ndarray:
        """The numbers, contiguous."""
        array = np.frombuffer(self.data, self.dtype).reshape(self.shape, order=self.order)
        return np.array(array, dtype=self.dtype.newbyteorder("="), order="C")


class NumpyArray(Inert):
    """An array; `tensor` is known once its state came, and stays None for an array of other things than numbers."""

    tensor: PickledTensor | None = None

    def __init__(self) -> None:
        super().__init__("numpy.ndarray")

    def build(self, state: Any) -> None:
        match state:
            case (
                _,
                tuple() | list() as shape,
                NumpyType() as kind,
                bool() | int() as fortran,
                str() | bytes() as data,
            ):
                if dtype := kind.dtype:
                    # A pickle of Python 2 has bytes as text.
                    data = data.encode("latin-1") if isinstance(data, str) else data
                    order: Literal["C", "F"] = "F" if fortran else "C"
                    self.tensor = PickledTensor(data=data, dtype=dtype, shape=check_shape(shape), order=order)


class NumpyType(Inert):
    """A numpy dtype; its byte order comes with its state."""

    def __init__(self, code: object, *_: object):
        super().__init__("numpy.dtype")
        self._code, self._order = code, "="

    def build(self, state: Any) -> None:
        match state:
            case (_, "<" | ">" | "=" | "|" as order, *_):
                self._order = order

    @property
    def dtype(self) -> np.dtype | None:
        """Booleans, integers and floats of up to 64 bits; None for all else."""
        if isinstance(self._code, str) and re.fullmatch("b1|[iu][1248]|f[248]", self._code):
            return np.dtype(self._order + self._code)
        return None


def _scalar(kind: object, data: object) -> NumpyArray:
    array = NumpyArray()
    array.build((1, (), kind, False, data))
    return array


def _from_buffer(data: object, kind: object, shape: object, order: object) -> NumpyArray:
    array = NumpyArray()
    array.build((1, shape, kind, order == "F", bytes(data) if isinstance(data, bytearray) else data))
    return array


def _ordered_dict(pairs: object = ()) -> dict[Any, Any]:
    if not isinstance(pairs, list | tuple):
        raise ValueError("an OrderedDict of no pairs")
    return {key: value for key, value in pairs if isinstance(key, str | int)}


def _encode(text: object, encoding: object) -> object:
    # As Python 3 writes bytes for protocols that have none.
    return text.encode("latin-1") if isinstance(text, str) and encoding == "latin1" else Inert("_codecs.encode")


_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
CALLS: Calls = {
    "collections.OrderedDict": _ordered_dict,
    "_codecs.encode": _encode,
    "numpy.dtype": NumpyType,
    **{f"{module}._reconstruct": lambda *_: NumpyArray() for module in _NUMPY},
    **{f"{module}.scalar": _scalar for module in _NUMPY},
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
}
