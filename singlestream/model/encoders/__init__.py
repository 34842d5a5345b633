"""Layers that read one modality alone, in front of those on both: one file each, found by its name.

`text_lstm.py` is `config.model.text_encoder="lstm"`, `image_cnn.py` that of `image_encoder`, `both_transformer.py` of
both. A file offers one class, a layer of a `Stack`:

    class Layer(nnx.Module):
        def __init__(self, config, *, rngs)
        def __call__(self, x, visibility, *, depth_rate, key, weights) -> (x [B, M, D], None)

where `visibility` speaks of the modality's tokens alone. This file imports no jax, so that a wrong name in a config is
told at once.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any


def _files() -> dict[tuple[str, str], str]:
    """(side, name) -> module."""
    found: dict[tuple[str, str], str] = {}
    for module in pkgutil.iter_modules(__path__):
        start, _, name = module.name.partition("_")
        found |= {(side, name): module.name for side in (("text", "image") if start == "both" else (start,))}
    return found


def encoder_names(side: str) -> tuple[str, ...]:
    """What `config.model.text_encoder` or `image_encoder` can be; `side` is text or image."""
    return ("none", *sorted(name for of, name in _files() if of == side))


def layer_of(side: str, name: str) -> Any:
    """The class of a layer of that name."""
    return importlib.import_module(f"{__name__}.{_files()[side, name]}").Layer
