"""Files in the safetensors format, read and written a tensor at a time.

A file is the length of its header (8 bytes), the header as JSON, and the numbers without gaps; the format's own
description is at https://github.com/huggingface/safetensors#format. Its library is not used: it writes from a second
copy of all tensors, and reads from a map whose pages count as the process's memory.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from singlestream.interop.rules import Tensor, WeightsError
from singlestream.interop.tensors import FileTensor, check_shape, contiguous

DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
MAX_HEADER = 100_000_000  # bytes, the format's own limit


def header_length(start: bytes, size: int) -> int | None:
    """Bytes of the header of a file that begins with `start`; None if its beginning is of another kind of file."""
    length = int.from_bytes(start[:8], "little")
    return length if 2 <= length <= MAX_HEADER and start[8:9] == b"{" and size > 8 else None


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file.

    Raises:
        WeightsError: a file that is cut short, or numbers of a kind that has no place here.
        `files.DAMAGE`: a header that is damaged.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length).decode("utf-8"))
    start, size = 8 + length, path.stat().st_size
    header.pop("__metadata__", None)
    result: dict[str, Tensor] = {}
    last = start
    for key, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise WeightsError(f"{path}: {key} is {entry['dtype']!s:.20}; known here: {', '.join(DTYPES)}")
        shape, (begin, end) = check_shape(entry["shape"]), check_shape(entry["data_offsets"])
        dtype = DTYPES[entry["dtype"]]
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{key} {list(shape)} has {end - begin} bytes")
        tensor = FileTensor(path=path, start=start + begin, dtype=dtype, shape=shape, strides=contiguous(shape))
        tensor.check(key, size)
        result[key] = tensor
        last = max(last, start + end)
    if last != size:
        raise ValueError(f"the header describes {last} bytes, the file has {size}")
    return result


def write_safetensors(path: Path, tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes a file as Transformers does; until all of it is written it has another name.

    Args:
        tensors: names and arrays. All are held until the end: views of parameters (`params.write_params`) take no
            memory, and each is made contiguous only when it is written.

    Raises:
        ValueError: a name twice, or numbers of a kind that the format does not have.
        OSError: the file cannot be written.
    """
    # The largest numbers first, so that each lies at a multiple of its size.
    ordered = sorted(tensors, key=lambda item: -item[1].dtype.itemsize)
    header = _header(ordered)
    partial = path.with_name(f"{path.name}.part")
    try:
        with partial.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for _, array in ordered:
                file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _header(tensors: list[tuple[str, np.ndarray]]) -> bytes:
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for key, array in tensors:
        if key in header:
            raise ValueError(f"{key} is to be written twice")
        if array.dtype not in names:
            raise ValueError(f"{key} is {array.dtype}; a file can hold {', '.join(map(str, names))}")
        offsets = [position, position + array.nbytes]
        header[key] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
        position = offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    return text + b" " * (-len(text) % 8)
