"""Attention as functions over queries, keys, values and a `Visibility`."""

from singlestream.model.attention.attend import attend

__all__ = ["attend"]
