"""Tables of region features (tsv), in bottom-up-attention's columns or LXMERT's, read by random access.

A line is a picture. Arrays are base64 of their bytes, float32 (classes: int64). Without a first line of names, 6
columns are those of bottom-up-attention (Anderson et al. 2018, `generate_tsv.py`), 7 those of ViLBERT, which adds the
probabilities of all classes (Lu et al. 2019), 10 those of LXMERT (Tan and Bansal 2019, `src/utils.py`).
"""

from __future__ import annotations

import binascii
import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from singlestream.data.record import DataError, RegionFeatures
from singlestream.data.regions import region_features

COLUMNS = {
    6: ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features"),
    7: ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features", "cls_prob"),
    10: (
        *("image_id", "image_h", "image_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
        *("num_boxes", "boxes", "features"),
    ),
}
SHORT = {"img_id": "image_id", "img_h": "image_h", "img_w": "image_w"}  # LXMERT's names
LABELS = {
    "objects_id": ("objects", np.int64),
    "objects_conf": ("objects_scores", np.float32),
    "attrs_id": ("attributes", np.int64),
    "attrs_conf": ("attributes_scores", np.float32),
}
DISTRIBUTION = ("soft_labels", "cls_prob")
NEEDED = COLUMNS[6]

Line = tuple[int, int, int]  # its number from 1, where it begins in the file, its length in bytes


class Table(Mapping[str, RegionFeatures]):
    """The pictures of one file, by their ids; a line is read when it is asked for.

    Where the lines begin is found in one pass and kept beside the file, in `NAME.tsv.index.json`, if that can be
    written. Of several lines with one id the last counts.

    Raises:
        DataError: the file cannot be read, or a line has other columns; names the line. Asking for a picture whose line
            is damaged raises it too.
    """

    def __init__(self, path: pathlib.Path, *, distribution: bool = False):
        self._path, self._wants = path, DISTRIBUTION if distribution else ()
        try:
            stat = path.stat()
            kept = _read_index(path, stat)
            self._columns, self._lines = kept or _make_index(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
        if not kept:
            _write_index(path, stat, self._columns, self._lines)

    def __contains__(self, name: object) -> bool:
        return name in self._lines  # Mapping's own would read the line

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, name: str) -> RegionFeatures:
        number, start, length = self._lines[name]
        where = f"{self._path}, line {number}"
        with self._path.open("rb") as file:  # opened anew: threads and processes share no place in it
            file.seek(start)
            cells = file.read(length).rstrip(b"\r\n").split(b"\t")
        values = dict(zip(self._columns, cells, strict=False))
        if len(cells) != len(self._columns) or values["image_id"].decode("utf-8", "replace") != name:
            raise DataError(f"{where}: another line than when it was indexed; remove {_index_file(self._path)}")
        height, width, count = (_whole(values[key], key, where) for key in ("image_h", "image_w", "num_boxes"))
        if min(height, width, count) < 1:
            raise DataError(f"{where}: {count} boxes in a picture of {width} x {height}")
        labels: dict[str, Any] = {
            label: _array(values[key], key, dtype, (count,), where)
            for key, (label, dtype) in LABELS.items()
            if key in values
        }
        for key in self._wants:
            if key in values:
                labels["distribution"] = _array(values[key], key, np.float32, (count, -1), where)
        return region_features(
            f"{where} (picture {name})",
            features=_array(values["features"], "features", np.float32, (count, -1), where),
            boxes=_array(values["boxes"], "boxes", np.float32, (count, 4), where),
            size=(height, width),
            **labels,
        )


def _make_index(path: pathlib.Path) -> tuple[tuple[str, ...], dict[str, Line]]:
    columns: tuple[str, ...] = ()
    lines: dict[str, Line] = {}
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            length, begin = len(line), start
            start += length
            if not line.strip():
                continue
            if not columns:
                columns, named = _columns(line, f"{path}, line {number}")
                if named:
                    continue
            if line.count(b"\t") != len(columns) - 1:
                found = line.count(b"\t") + 1
                raise DataError(
                    f"{path}, line {number}: {found} columns, expected {len(columns)}: {', '.join(columns)}"
                )
            place = columns.index("image_id")
            name = line.split(b"\t", place + 1)[place].strip().decode("utf-8", "replace")
            lines[name] = (number, begin, length)
    if not lines:
        raise DataError(f"{path}: no line with region features")
    return columns, lines


def _columns(line: bytes, where: str) -> tuple[tuple[str, ...], bool]:
    """The names of the columns, and whether this line is the one that names them."""
    cells = line.rstrip(b"\r\n").split(b"\t")
    if b"features" in cells:
        names = tuple(SHORT.get(name, name) for name in (cell.decode("utf-8", "replace").strip() for cell in cells))
        if missing := [name for name in NEEDED if name not in names]:
            raise DataError(f"{where}: no column {', '.join(missing)}")
        return names, True
    if len(cells) not in COLUMNS:
        known = " or ".join(f"{size} ({', '.join(names)})" for size, names in COLUMNS.items())
        raise DataError(f"{where}: {len(cells)} columns; expected {known}, or a first line that names them")
    return COLUMNS[len(cells)], False


def _whole(cell: bytes, key: str, where: str) -> int:
    try:
        return int(float(cell))
    except (ValueError, OverflowError) as error:
        raise DataError(f"{where}: {key} is {cell[:20]!r}, expected a number") from error


def _array(cell: bytes, key: str, dtype: type, shape: tuple[int, ...], where: str) -> np.ndarray:
    try:
        content = binascii.a2b_base64(cell, strict_mode=True)
        return np.frombuffer(content, dtype).reshape(shape)
    except ValueError as error:
        raise DataError(f"{where}: {key} is not the base64 of {np.dtype(dtype)}{list(shape)} ({error})") from error


def _index_file(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.index.json")


def _read_index(path: pathlib.Path, stat: os.stat_result) -> tuple[tuple[str, ...], dict[str, Line]] | None:
    """The kept index, if it is of this very file."""
    try:
        kept = json.loads(_index_file(path).read_text(encoding="utf-8"))
        if [kept["size"], kept["modified"]] != [stat.st_size, stat.st_mtime_ns]:
            return None
        lines = {str(name): (int(n), int(start), int(length)) for name, (n, start, length) in kept["lines"].items()}
        columns = tuple(map(str, kept["columns"]))
        return (columns, lines) if set(NEEDED) <= set(columns) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # none, or damaged: it is made anew


def _write_index(path: pathlib.Path, stat: os.stat_result, columns: tuple[str, ...], lines: dict[str, Line]) -> None:
    index: dict[str, Any] = {"size": stat.st_size, "modified": stat.st_mtime_ns, "columns": columns, "lines": lines}
    file = _index_file(path)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    with contextlib.suppress(OSError):  # a folder that cannot be written: the index lives in memory alone
        part.write_text(json.dumps(index), encoding="utf-8")
        part.replace(file)
