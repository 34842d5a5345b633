"""Files of `torch.save`, read without torch: the zip format, and the one before torch 1.6. No code in them is run.

What the formats are is in `torch/serialization.py`, `_save` and `_legacy_save`. As there, the numbers are not checked
against the zip file's checksums, which torch can be told not to write.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from singlestream.interop.pickle_calls import PickledTensor
from singlestream.interop.pickles import Inert, read_pickle
from singlestream.interop.rules import Tensor, WeightsError
from singlestream.interop.tensors import FileTensor
from singlestream.interop.torch_pickles import (
    TORCH_CALLS,
    Storage,
    View,
    find_settings,
    find_state_dict,
    read_storage,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001

Places = Mapping[str, tuple[int, int]]  # first byte, and the one after the last


class Weights(dict[str, Tensor]):
    """The tensors of a file; `settings` is what it says of its model beside them, None where it says nothing."""

    settings: Mapping[str, Any] | None = None


def read_zip(path: Path) -> Weights:
    """The state dict of a file that torch 1.6 or later wrote.

    Raises:
        WeightsError: nothing in it that is a state dict, or a part that is compressed, missing or cut short.
        `files.DAMAGE`: a file that is damaged otherwise.
    """
    with path.open("rb") as file:
        places = _zip_places(path, file)
        if _part(file, places.get("byteorder", (0, 0))) == b"big":
            raise WeightsError(f"{path} was written on a big-endian machine; load it there and save it as safetensors")
        tree = read_pickle(io.BytesIO(_part(file, places["data.pkl"])), TORCH_CALLS, read_storage)
    storages = {name.removeprefix("data/"): place for name, place in places.items()}
    weights = Weights(_place(path, find_state_dict(str(path), tree), storages))
    weights.settings = find_settings(tree)
    return weights


def read_legacy(path: Path) -> dict[str, Tensor]:
    """The state dict of a file that a torch before 1.6 wrote: five pickles, then each storage's length and numbers.

    Raises:
        As `read_zip`.
    """
    known: dict[str, Storage] = {}

    def storage(identity: object) -> object:
        value = read_storage(identity)
        if isinstance(value, Storage):
            known.setdefault(value.key, value)
        return value

    with path.open("rb") as file:
        if _plain(file) != LEGACY_MAGIC or _plain(file) != LEGACY_VERSION:
            raise WeightsError(f"{path} is a pickle, but not one that torch.save wrote")
        _plain(file)  # sizes of C's types, of no use: the numbers are little-endian always
        tree = read_pickle(file, TORCH_CALLS, storage)
        storages = _legacy_places(path, file, known)
    return _place(path, find_state_dict(str(path), tree), storages)


def _zip_places(path: Path, file: io.BufferedReader) -> dict[str, tuple[int, int]]:
    """Where in the file the pickle, the byte order, and each storage (`data/KEY`) lie.

    Torch compresses nothing, so that tensors are read where they lie; who compresses could hide any size.
    """
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
    root = next((p.filename.removesuffix("data.pkl") for p in parts if f"/{p.filename}".endswith("/data.pkl")), None)
    if root is None:
        raise WeightsError(f"{path} is a zip file without data.pkl: torch.save did not write it")
    places = {}
    for part in parts:
        name = part.filename.removeprefix(root)
        if name not in ("data.pkl", "byteorder") and not name.startswith("data/"):
            continue
        if part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1:
            raise WeightsError(f"{path}: {part.filename} is compressed or encrypted; torch.save does neither")
        file.seek(part.header_offset)
        signature, name_length, extra_length = struct.unpack("<4s22xHH", file.read(30))
        if signature != b"PK\3\4":
            raise ValueError(f"no {part.filename} where the index says")
        start = part.header_offset + 30 + name_length + extra_length
        places[name] = (start, start + part.file_size)
    return places


def _legacy_places(path: Path, file: io.BufferedReader, known: Mapping[str, Storage]) -> dict[str, tuple[int, int]]:
    """Where each storage lies; `file` stands at the list of their keys."""
    size = path.stat().st_size
    places = {}
    for key in _plain(file):
        (count,) = struct.unpack("<q", file.read(8))
        start = file.tell()
        if not isinstance(key, str) or key not in known:
            raise ValueError("numbers that no tensor has")
        end = start + count * known[key].dtype.itemsize
        if not start <= end <= size:
            raise WeightsError(f"{path} is cut short: it ends at byte {size}, its numbers at {end} or later")
        places[key] = (start, end)
        file.seek(end)
    return places


def _place(path: Path, tensors: Mapping[str, View | PickledTensor], storages: Places) -> dict[str, Tensor]:
    """Each tensor with its place in the file."""
    size = path.stat().st_size
    result: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if isinstance(value, PickledTensor):
            result[key] = value
            continue
        if value.storage.key not in storages:
            raise WeightsError(f"{path}: the numbers of {key} are missing; the file is incomplete")
        start, end = storages[value.storage.key]
        dtype = value.storage.dtype
        start += value.offset * dtype.itemsize
        tensor = FileTensor(path=path, start=start, dtype=dtype, shape=value.shape, strides=value.strides)
        tensor.check(key, min(end, size))
        result[key] = tensor
    return result


def _part(file: io.BufferedReader, place: tuple[int, int]) -> bytes:
    file.seek(place[0])
    return file.read(place[1] - place[0])


def _plain(file: io.BufferedReader) -> Any:
    return read_pickle(file, {}, lambda _: Inert("nothing"))
