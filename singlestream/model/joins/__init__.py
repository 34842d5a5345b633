"""How the pooled vectors of text and picture become one: one file each, found by its name.

`gated.py` is `config.model.join="gated"`. A file offers one class

    class Join(nnx.Module):
        def __init__(self, config, *, rngs)
        def __call__(self, text [B, K, D], image [B, K, D]) -> (pooled [B, K, D], extra)

where `extra` is what else it has for `Encoded.extra`: `modality_weights` [B, K, 2] of text and image; `decisions`
[B, K, 2, D], which heads read each by itself in place of `pooled`. This file imports no jax, so that a wrong name in
a config is told at once.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any


def join_names() -> tuple[str, ...]:
    """What `config.model.join` can be."""
    return ("none", *sorted(module.name for module in pkgutil.iter_modules(__path__)))


def build_join(config: Any, *, rngs: Any) -> Any:
    """The join that a `ModelConfig` (whose file imports this one) asks for; None for "none"."""
    if config.join == "none":
        return None
    return importlib.import_module(f"{__name__}.{config.join}").Join(config, rngs=rngs)
