"""Position encodings: one file each, found by its name.

`image_learned.py` is `config.model.image_positions="learned"`, `text_learned.py` that of `text_positions`. A file
offers one class

    class Position(nnx.Module):
        reads: ClassVar = (Patches,)                     the tokens that have what it needs; others get no position
        def __init__(self, config, *, rngs)
        def __call__(self, tokens) -> [B, N, D]          what is added to the content of the tokens

This file imports no jax, so that a wrong name in a config is told at once.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any


def position_names(side: str) -> tuple[str, ...]:
    """What `config.model.text_positions` or `image_positions` can be; `side` is text or image."""
    files = (module.name.partition("_") for module in pkgutil.iter_modules(__path__))
    return (*sorted(name for start, _, name in files if start == side), "none")


def build_position(side: str, config: Any, *, rngs: Any) -> Any:
    """The encoding of one side that a `ModelConfig` (whose file imports this one) asks for; None for "none"."""
    name = getattr(config, f"{side}_positions")
    if name == "none":
        return None
    return importlib.import_module(f"{__name__}.{side}_{name}").Position(config, rngs=rngs)
