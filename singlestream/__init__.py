"""Transformers that read an image and a text as one sequence of tokens, in JAX.

The names below are the public ones. Each is imported when it is first used, so that `import singlestream`, and a
program that only has to say what is wrong with a flag, does not wait for JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from singlestream.batch import Audio as Audio
    from singlestream.batch import Batch as Batch
    from singlestream.batch import BatchError as BatchError
    from singlestream.batch import Encoded as Encoded
    from singlestream.batch import Patches as Patches
    from singlestream.batch import Regions as Regions
    from singlestream.batch import Spec as Spec
    from singlestream.batch import Text as Text
    from singlestream.batch import make_batch as make_batch
    from singlestream.batch import without_audio as without_audio
    from singlestream.batch import without_image as without_image
    from singlestream.config import Config as Config
    from singlestream.config import ConfigError as ConfigError
    from singlestream.data.image import patchify_batch as patchify  # noqa: F401  (public under this name)
    from singlestream.data.processor import Processor as Processor
    from singlestream.data.record import DataError as DataError
    from singlestream.explained import Explained as Explained
    from singlestream.explained import explain_answer as explain_answer
    from singlestream.interop.rules import WeightsError as WeightsError
    from singlestream.loading import load as load
    from singlestream.model.captions import Caption as Caption
    from singlestream.model.captions import Search as Search
    from singlestream.model.config import ModelConfig as ModelConfig
    from singlestream.model.heads import HeadConfig as HeadConfig
    from singlestream.model.single_stream import SingleStream as SingleStream
    from singlestream.model.two_stream import TwoStream as TwoStream
    from singlestream.model.two_stream_config import TwoStreamConfig as TwoStreamConfig
    from singlestream.predict import Model as Model
    from singlestream.predict import Prediction as Prediction
    from singlestream.train.errors import RunError as RunError

__version__ = "0.1.0"

# Public name -> where it is defined; the same list as above, for the interpreter.
_HOMES = {
    "Audio": "batch.Audio",
    "Batch": "batch.Batch",
    "BatchError": "batch.BatchError",
    "Caption": "model.captions.Caption",
    "Config": "config.Config",
    "ConfigError": "config.ConfigError",
    "DataError": "data.record.DataError",
    "Encoded": "batch.Encoded",
    "Explained": "explained.Explained",
    "HeadConfig": "model.heads.HeadConfig",
    "Model": "predict.Model",
    "ModelConfig": "model.config.ModelConfig",
    "Patches": "batch.Patches",
    "Prediction": "predict.Prediction",
    "Processor": "data.processor.Processor",
    "Regions": "batch.Regions",
    "RunError": "train.errors.RunError",
    "Search": "model.captions.Search",
    "SingleStream": "model.single_stream.SingleStream",
    "Spec": "batch.Spec",
    "Text": "batch.Text",
    "TwoStream": "model.two_stream.TwoStream",
    "TwoStreamConfig": "model.two_stream_config.TwoStreamConfig",
    "WeightsError": "interop.rules.WeightsError",
    "explain_answer": "explained.explain_answer",
    "load": "loading.load",
    "make_batch": "batch.make_batch",
    "patchify": "data.image.patchify_batch",
    "without_audio": "batch.without_audio",
    "without_image": "batch.without_image",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].rpartition(".")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
