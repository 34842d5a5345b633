"""A layer of the transformer, the same as on both modalities, over one of them."""

from singlestream.model.block import Block as Layer

__all__ = ["Layer"]
