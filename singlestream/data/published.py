"""How a published checkpoint's folder says that pictures are prepared: read into settings, and written back."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

import numpy as np

from singlestream.config import DataConfig, ModelConfig
from singlestream.data.image import longer_side
from singlestream.data.json_file import read_json
from singlestream.data.record import DataError

PICTURES, PROCESSOR = "preprocessor_config.json", "processor_config.json"
TEXT_LENGTH = 40  # tokens of a text: what ViLT takes; BERT's 512 would make rows of padding
REGIONS = 100  # of a picture: the most that bottom-up-attention's detector keeps
# What is done to every picture here: to RGB, resized bicubically, bytes to [-1, 1] (model/embed.py).
FIXED: dict[str, Any] = {
    "do_resize": True,
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def published_data(folder: pathlib.Path, model: ModelConfig, text_length: int = 0) -> DataConfig:
    """Settings of rows of one text and one picture, as the folder's files and the model's sizes give them.

    Args:
        text_length: of the folder's tokenizer; 0: not known. Rows take 40 tokens (which ViLT reads) where neither that
            nor the model's position table allows less.

    Raises:
        DataError: the folder's preparation of pictures is damaged, or another than ViLT's.
    """
    length = min(text_length or TEXT_LENGTH, TEXT_LENGTH)
    if model.text_positions == "learned":
        length = min(length, model.max_text_length)
    if model.image_stem == "regions":
        return DataConfig(text_length=length, max_patches=REGIONS)
    shorter = read_picture_settings(folder, model.patch_size)
    sides = (shorter, longer_side(shorter)) if shorter else tuple(n * model.patch_size for n in model.image_grid)
    return DataConfig(
        text_length=length,
        shorter_side=shorter,
        max_patches=math.prod(max(1, side // model.patch_size) for side in sides),
    )


def read_picture_settings(folder: pathlib.Path, patch_size: int) -> int:
    """The shorter side in pixels that `preprocessor_config.json` (or `processor_config.json`) asks for; 0 without one.

    Raises:
        DataError: the file is damaged, or asks for what is not done here; names the key.
    """
    path, settings = _find(folder)
    if not settings:
        return 0
    for key, wanted in FIXED.items():
        if not _same(settings.get(key, wanted), wanted):
            raise DataError(f"{path}: {key}={settings[key]!r}; pictures are prepared with {wanted!r} here")
    if settings.get("size_divisor", patch_size) != patch_size:
        raise DataError(f"{path}: size_divisor={settings['size_divisor']!r}, but the model's patches have {patch_size}")
    size = settings.get("size", 384)
    shorter = size.get("shortest_edge") if isinstance(size, dict) else size
    if isinstance(shorter, bool) or not isinstance(shorter, int) or shorter < 1:
        raise DataError(f"{path}: size={size!r}, expected the pixels of the shorter side, {{'shortest_edge': 384}}")
    return shorter


def read_normalisation(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of red, green and blue in [0, 1] with which a published ViT's pictures are normalised.

    From `preprocessor_config.json`, or `config.json` as timm writes it; without either a half and a half, as ViT was
    trained.

    Raises:
        DataError: the file is damaged, or asks for what is not done here; names the key.
    """
    folder = path if path.is_dir() else path.parent
    file, settings = _find(folder)
    mean_key, std_key = "image_mean", "image_std"
    if not settings and (folder / "config.json").is_file():
        file, mean_key, std_key = folder / "config.json", "mean", "std"
        settings = read_json(file, dict).get("pretrained_cfg", {})
    for key in ("do_rescale", "rescale_factor"):
        if not _same(settings.get(key, FIXED[key]), FIXED[key]):
            raise DataError(f"{file}: {key}={settings[key]!r}; pictures are prepared with {FIXED[key]!r} here")
    if not settings.get("do_normalize", True):
        return np.zeros(3), np.ones(3)
    mean, std = (_three(file, key, settings.get(key, [0.5] * 3)) for key in (mean_key, std_key))
    return mean, std


def _three(file: pathlib.Path, key: str, value: Any) -> np.ndarray:
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.shape != (3,) or (key.endswith("std") and not (found > 0).all()):
        raise DataError(f"{file}: {key}={value!r}, expected three numbers, of red, green and blue")
    return found


def write_picture_settings(folder: pathlib.Path, shorter_side: int, patch_size: int) -> None:
    """Writes `preprocessor_config.json` as `transformers.ViltImageProcessor` reads it."""
    settings = {
        "image_processor_type": "ViltImageProcessor",
        **FIXED,
        "size": {"shortest_edge": shorter_side},
        "size_divisor": patch_size,
        "do_pad": True,
    }
    (folder / PICTURES).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _find(folder: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    """The settings of pictures: a file of their own, or (transformers 5) a part of the processor's."""
    if (folder / PICTURES).is_file():
        return folder / PICTURES, read_json(folder / PICTURES, dict)
    path = folder / PROCESSOR
    settings = read_json(path, dict).get("image_processor", {}) if path.is_file() else {}
    if not isinstance(settings, dict):
        raise DataError(f"{path}: image_processor is no JSON object")
    return path, settings


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(found, (int, float)):
        return math.isclose(found, wanted, rel_tol=1e-6)
    return found == wanted
