"""Region features that a detector wrote to files: one file a picture (npz, npy), or tables of many (tsv)."""

from __future__ import annotations

import collections
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Set
from typing import Any

import numpy as np
from jaxtyping import Float

from singlestream.config import ConfigError
from singlestream.data.features_table import DISTRIBUTION, Table
from singlestream.data.record import DETECTED, DataError, RegionFeatures
from singlestream.data.regions import region_features

LARGEST = 1 << 30  # bytes of one array of one picture; what claims more is damaged, or made to fill the memory

# What the same thing is called: bottom-up-attention and its PyTorch port, the authors of VisualBERT, UNITER.
NAMES = {
    "features": ("features", "x", "box_features"),
    "boxes": ("boxes", "bbox", "cls_boxes", "norm_bb"),
    "count": ("num_bbox", "num_boxes"),
    "height": ("image_h", "image_height"),
    "width": ("image_w", "image_width"),
    "objects": ("objects_id",),
    "objects_scores": ("objects_conf",),
    "attributes": ("attrs_id",),
    "attributes_scores": ("attrs_conf",),
    "distribution": DISTRIBUTION,
}


def open_features(path: str | os.PathLike[str], *, distribution: bool = False) -> Mapping[str, RegionFeatures]:
    """The features of many pictures by the pictures' names; each is read when it is asked for, nothing is kept.

    Args:
        path: a table (`.tsv`, see `features_table`), or a folder that holds tables, or a file for each picture. A file
            `NAME.npz` or `NAME.npy` is the picture NAME (see `read_regions`); `NAME_info.npy` is not read.
        distribution: also read the probabilities of all classes, which are near as long as the features.

    Raises:
        DataError: no such place, nothing of that kind in it, or a table of other columns; names the file and its line.
            A damaged entry raises it when it is asked for.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        files = sorted(entry for entry in path.iterdir() if entry.is_file())
        arrays = {file.stem: file for file in files if _is_array(file)}
        parts: list[Mapping[str, RegionFeatures]] = [_Files(arrays, distribution)] if arrays else []
        parts += [Table(file, distribution=distribution) for file in files if file.suffix == ".tsv"]
        if not parts:
            raise DataError(f"{path}: no region features in this folder; expected files .npz, .npy or .tsv")
        return collections.ChainMap(*parts)  # type: ignore[arg-type]  # nobody writes into it
    if path.suffix != ".tsv" or not path.is_file():
        raise DataError(f"{path}: no region features; expected a file .tsv, or a folder of files .npz, .npy or .tsv")
    return Table(path, distribution=distribution)


def read_regions(path: str | os.PathLike[str], *, distribution: bool = False) -> RegionFeatures:
    """The features of the one picture that a file `.npz` or `.npy` speaks of.

    An npz holds `x`, `features` or `box_features` [N, F] (or [F, N], where `num_bbox` or the boxes say so), and where
    known `bbox`, `boxes`, `cls_boxes` or `norm_bb` [N, 4 or more], `image_h` and `image_w`, `num_bbox` (the rest is
    padding), and LXMERT's `objects_id`, `objects_conf`, `attrs_id`, `attrs_conf`. Boxes in pixels without the picture's
    size are left out. With `distribution` also UNITER's `soft_labels`, or `cls_prob` [N, C], where there is one. An npy
    holds the features alone. Pickles within (`info`) are never opened.

    Raises:
        DataError: no such file, a damaged one, or arrays that do not fit each other; names the file.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file of region features")
    arrays = _read_arrays(path, {name for name in NAMES if distribution or name != "distribution"})
    if "features" not in arrays:
        raise DataError(f"{path}: no features; expected an array {', '.join(NAMES['features'][:-1])} or box_features")
    where, features = str(path), arrays.pop("features")
    count, boxes = _number(arrays, "count", where), arrays.pop("boxes", None)
    features = _upright(features, len(boxes) if boxes is not None and boxes.ndim == 2 else count, where)
    height, width = (_number(arrays, name, where) for name in ("height", "width"))
    size = (height, width) if height and width else None
    labels: dict[str, Any] = arrays  # what is left
    return region_features(where, features=features, boxes=boxes, size=size, count=count, **labels)


def detected_classes(features: Mapping[str, RegionFeatures] | None, picture: str) -> dict[str, tuple[str, ...]]:
    """A source's `region_classes` where its features were opened with `distribution`: 1, 2, ...; files have no names.

    Raises:
        ConfigError: pictures are read, no features.
        DataError: this picture, one of the source's, has no probabilities.
    """
    if features is None:
        raise ConfigError(
            "config.data.options.distribution=True: region features hold a detector's probabilities, set "
            "config.data.options.features"
        )
    found = features[picture].distribution
    if found is None:
        raise DataError(
            f"the region features of {picture!r} have no class probabilities ({' or '.join(NAMES['distribution'])}); "
            "set config.data.options.distribution=False"
        )
    return {DETECTED: tuple(f"{number}" for number in range(1, found.shape[1]))}


class _Files(Mapping[str, RegionFeatures]):
    """A file for each picture."""

    def __init__(self, paths: Mapping[str, pathlib.Path], distribution: bool):
        self._paths, self._distribution = paths, distribution

    def __getitem__(self, name: str) -> RegionFeatures:
        return read_regions(self._paths[name], distribution=self._distribution)

    def __contains__(self, name: object) -> bool:
        return name in self._paths  # Mapping's own would read the file

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def _is_array(file: pathlib.Path) -> bool:
    return file.suffix == ".npz" or (file.suffix == ".npy" and not file.stem.endswith("_info"))


def _read_arrays(path: pathlib.Path, wanted: Set[str]) -> dict[str, np.ndarray]:
    """The arrays of a file that are wanted, by the keys of NAMES."""
    try:
        with path.open("rb") as file:  # numpy's own would stay open where the file is damaged
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"features": loaded}
            found = {
                key: next((n for n in names if n in loaded.files), None)
                for key, names in NAMES.items()
                if key in wanted
            }
            _check_sizes(path, loaded.zip, [name for name in found.values() if name])
            return {key: loaded[name] for key, name in found.items() if name}
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not readable as arrays ({error})") from error


def _check_sizes(path: pathlib.Path, archive: zipfile.ZipFile, names: list[str]) -> None:
    for name in names:
        size = archive.getinfo(f"{name}.npy").file_size
        if size > LARGEST:
            raise DataError(f"{path}: {name} unpacks to {size:,} bytes, too much for one picture")


def _number(arrays: dict[str, np.ndarray], name: str, where: str) -> int | None:
    value = arrays.pop(name, None)
    if value is None:
        return None
    if value.size != 1 or value.dtype.kind not in "iuf":
        raise DataError(f"{where}: {NAMES[name][0]} is {value.dtype}{list(value.shape)}, expected one number")
    return int(value.reshape(())[()])


def _upright(features: np.ndarray, count: int | None, where: str) -> Float[np.ndarray, "N F"]:
    """Features with a row for each region: some files hold them turned, [F, N]."""
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise DataError(f"{where}: features are {features.dtype}{list(features.shape)}, expected numbers [N, F]")
    turned = count is not None and features.shape[0] != count == features.shape[1]
    return np.ascontiguousarray(features.T if turned else features, np.float32)
