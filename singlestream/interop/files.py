"""Opens weights: a file or a folder of them, of any kind, told by content and not by name.

Nothing in a file is run, and no tensor is read before it is asked for.
"""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from singlestream.interop.rules import Tensor, WeightsError
from singlestream.interop.safetensor_files import header_length, read_safetensors, write_safetensors
from singlestream.interop.torch_files import read_legacy, read_zip

__all__ = ["has_weights", "open_tensors", "write_safetensors"]

# Whole models in a folder, the first of these that is there; an index names the files that a model was cut into.
NAMES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
ENDINGS = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".th")

# What reading a damaged file may raise, from Python's json, struct and zipfile and from our own readers.
DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


def open_tensors(path: str | os.PathLike[str]) -> Mapping[str, Tensor]:
    """The tensors of a published model, by the keys of its file.

    Args:
        path: a file (safetensors; torch's formats, before and since 1.6), or a folder with `model.safetensors`,
            `pytorch_model.bin`, an index of either, or any one file of weights.

    Raises:
        WeightsError: no such file, none or several in the folder, none that is known, or one that is damaged. The
            message names the file and says what to do.
    """
    path = Path(path)
    return _open_folder(path) if path.is_dir() else _open_file(path)


def has_weights(path: Path) -> bool:
    """Whether this is a file, or a folder with files that may hold weights, by their names."""
    return path.is_file() or any(file.name in NAMES or file.suffix in ENDINGS for file in path.iterdir())


def _open_folder(folder: Path) -> Mapping[str, Tensor]:
    for name in NAMES:
        if (folder / name).is_file():
            return _open_index(folder / name) if name.endswith(".json") else _open_file(folder / name)
    files = sorted(path for path in folder.iterdir() if path.suffix in ENDINGS and path.is_file())
    if not files:
        raise WeightsError(f"{folder} has no weights: none of {', '.join(NAMES)}, no file *{', *'.join(ENDINGS)}")
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise WeightsError(f"{folder} has several files of weights ({names}); give the path of one")
    return _open_file(files[0])


def _open_file(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file or folder")
    try:
        name, read = _kind(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    try:
        return read(path)
    except WeightsError:
        raise
    except DAMAGE as error:
        raise WeightsError(
            f"{path}, a {name} file, is damaged or cut short ({error!s:.200}); fetch it again"
        ) from error


def _open_index(path: Path) -> Mapping[str, Tensor]:
    """The tensors of all files of an index; its other tensors are not the model's."""
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"].items()
        names = sorted({name for _, name in places})
        if bad := [name for name in names if Path(name).name != name or not (path.parent / name).is_file()]:
            raise WeightsError(f"{path} names {bad[0][:80]!r}, which is no file of its folder")
    except WeightsError:
        raise
    except DAMAGE as error:
        raise WeightsError(f"{path} is no index of weights ({error!s:.200}); fetch it again") from error
    files = {name: _open_file(path.parent / name) for name in names}
    if missing := [f"{key} in {name}" for key, name in places if key not in files[name]]:
        raise WeightsError(f"{path} promises what is not there: {', '.join(missing)}")
    return {key: files[name][key] for key, name in places}


def _kind(path: Path) -> tuple[str, Callable[[Path], Mapping[str, Tensor]]]:
    """The name of a file's kind and its reader, from its first bytes."""
    with path.open("rb") as file:
        start = file.read(100)
    if not start:
        raise WeightsError(f"{path} is empty; fetch it again")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is git-LFS's pointer to the weights; fetch them with `git lfs pull`")
    # First: a header's length may be any number, and begin as the other kinds do.
    if header_length(start, path.stat().st_size) is not None:
        return "safetensors", read_safetensors
    if start.startswith(b"PK\3\4"):
        return "torch", read_zip
    if start.startswith(b"\x80"):
        return "torch", read_legacy
    raise WeightsError(f"{path} is no file of weights that is known here: expected safetensors, or torch.save's")
