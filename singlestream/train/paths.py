"""Paths of a tree's leaves, as patterns in configs and tables see them: `encoder/blocks/attention/query/kernel`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def path_of(keys: tuple[Any, ...]) -> str:
    """The `/`-joined path of a leaf, as `jax.tree_util.tree_map_with_path` gives its keys."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def map_with_path(fn: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` with `fn(path, leaf, ...)`."""
    return jax.tree_util.tree_map_with_path(lambda keys, *leaves: fn(path_of(keys), *leaves), tree, *rest)


def paths(tree: Any) -> list[str]:
    return [path_of(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(tree)]
