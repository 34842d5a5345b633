"""The model that settings describe."""

from __future__ import annotations

from collections.abc import Mapping

from flax import nnx

from singlestream.batch import Spec
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig
from singlestream.model.single_stream import SingleStream
from singlestream.model.two_stream import TwoStream
from singlestream.model.two_stream_config import ModelSettings

AnyModel = SingleStream | TwoStream


def build_model(
    config: ModelSettings, spec: Spec, *, heads: Mapping[str, HeadConfig] | None = None, rngs: nnx.Rngs
) -> AnyModel:
    """A model with fresh parameters.

    Raises:
        ValueError: a head that this model cannot have.
    """
    if isinstance(config, ModelConfig):
        return SingleStream(config, spec, heads=heads, rngs=rngs)
    return TwoStream(config, spec, heads=heads, rngs=rngs)
