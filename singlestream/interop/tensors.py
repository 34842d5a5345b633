"""One array of a file: known by its shape, read when it is asked for."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np

from singlestream.interop.rules import WeightsError


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileTensor:
    """Numbers that lie in `path` from byte `start` on, with torch's strides (in elements, not bytes).

    Every `read` takes the range that it needs into memory of its own. A map of the whole file would do the same, but
    its pages are counted to the process until it is closed, and a model would take its size twice.
    """

    path: Path
    start: int
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes from the first number to the last, whether or not all between belong to this array."""
        if 0 in self.shape:
            return 0
        return (1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))) * self.dtype.itemsize

    def check(self, key: str, end: int) -> None:
        """Refuses an array that reaches beyond byte `end`, where its storage or its file ends.

        So does one that repeats so few numbers so often (a stride of 0) that it is larger than all before `end`: what
        a model has is written down, and a small file shall not fill the memory.

        Raises:
            WeightsError: names the file and the key.
        """
        if self.start + self.nbytes > end:
            raise WeightsError(f"{self.path}: {key} {list(self.shape)} ends beyond its data; the file is cut short")
        if math.prod(self.shape) * self.dtype.itemsize > end:
            raise WeightsError(f"{self.path}: {key} claims to be {list(self.shape)}, more than the file holds")

    def read(self) -> np.ndarray:
        """The numbers, contiguous.

        Raises:
            WeightsError: the file is gone, shorter than it was, or cannot be read.
        """
        try:
            data = np.fromfile(self.path, np.uint8, self.nbytes, offset=self.start)
            if len(data) < self.nbytes:
                raise WeightsError(f"{self.path} became shorter while it was read")
            if not data.size:
                return np.zeros(self.shape, self.dtype)
            steps = [s * self.dtype.itemsize for s in self.strides]
            view = np.lib.stride_tricks.as_strided(data.view(self.dtype), self.shape, steps)
            return np.asarray(view, order="C")
        except (OSError, MemoryError) as error:
            raise WeightsError(f"{self.path} cannot be read: {error}") from error


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of an array whose numbers follow each other, the last axis fastest."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def check_shape(shape: object) -> tuple[int, ...]:
    """A file's claim of a shape, or of strides, as a tuple.

    Raises:
        ValueError: it is none. The message does not show it: a few bytes can describe an object of any length.
    """
    if not isinstance(shape, list | tuple) or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise ValueError("a shape that is none")
    if len(shape) > 32 or math.prod(max(n, 1) for n in shape) >= 2**60:
        raise ValueError("a shape that no memory holds")
    return tuple(shape)
