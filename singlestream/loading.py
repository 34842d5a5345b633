"""From a run's folder to a model that answers."""

from __future__ import annotations

import os

from flax import nnx

from singlestream.config import ConfigError
from singlestream.data.processor import Processor
from singlestream.model.heads import HeadConfig
from singlestream.model.single_stream import SingleStream
from singlestream.predict import Model
from singlestream.train.checkpoint import find_step, read_params
from singlestream.train.errors import FolderError
from singlestream.train.folder import RunFolder
from singlestream.train.state import split_model


def load(path: str | os.PathLike[str], checkpoint: str | int = "best") -> Model:
    """The model of a run, with its averaged parameters where the run kept an average.

    Args:
        path: the run's folder; nothing else is needed.
        checkpoint: `best`, `latest`, or a step.

    Raises:
        FolderError: no such folder, no run, or a file of it that is damaged.
        CheckpointError: no such checkpoint (lists those there are), or one that cannot be read.
    """
    folder = RunFolder.at(path)
    if not folder.path.is_dir():
        raise FolderError(f"{folder.path}: no such folder; a run is made by train.py --workdir={path}")
    config = folder.read_config()
    step = find_step(folder.checkpoints, checkpoint, config.train)
    processor = Processor.from_folder(folder.path, config)
    try:
        heads = {name: HeadConfig(**values) for name, values in folder.read_json(folder.heads).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise FolderError(f"{folder.heads} does not describe heads: {error}") from error

    def make() -> SingleStream:
        return SingleStream(config.model, processor.spec, heads=heads, rngs=nnx.Rngs(params=0))

    try:
        graphdef, abstract = split_model(make)
    except ValueError as error:
        raise ConfigError(f"{folder.path}: its settings and heads make no model: {error}") from error
    params = read_params(folder.checkpoints, step, abstract)
    return Model(module=nnx.merge(graphdef, params), processor=processor, config=config, step=step)
