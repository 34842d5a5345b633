"""From a run's folder, or from published weights, to a model that answers."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from flax import nnx

from singlestream.config import Config, ConfigError
from singlestream.data.processor import Processor
from singlestream.data.tokenizer_files import has_tokenizer
from singlestream.interop.build import answer_names, read
from singlestream.interop.plan import Plan
from singlestream.interop.rules import WeightsError
from singlestream.interop.training import holds
from singlestream.interop.tuned import tuned_plan
from singlestream.model.build import AnyModel, build_model
from singlestream.model.heads import HeadConfig
from singlestream.predict import Model
from singlestream.train.checkpoint import find_step, read_params
from singlestream.train.errors import FolderError
from singlestream.train.folder import RunFolder
from singlestream.train.state import split_model


def load(path: str | os.PathLike[str], checkpoint: str | int = "best", *, strict: bool = True) -> Model:
    """The model of a run, with its averaged parameters where the run kept an average, or of published weights.

    Args:
        path: a run's folder, or the folder or file of published weights (docs/families.md lists which are known).
        checkpoint: `best`, `latest`, or a step; of a run.
        strict: refuse published weights that do not fit whole; else what they lack stays fresh, with a warning.

    Warns:
        UserWarning: what stays fresh: with `strict=False`, and of a start from a model of one modality (BERT, ViT).

    Raises:
        FolderError: no such folder, no run, or a file of it that is damaged.
        CheckpointError: no such checkpoint (lists those there are), or one that cannot be read.
        WeightsError: published weights that are damaged, of no known family, or do not fit; lists every key.
    """
    folder = RunFolder.at(path)
    if not folder.path.exists():
        raise FolderError(f"{folder.path}: no such folder; a run is made by train.py --workdir={path}")
    return load_published(folder.path, strict=strict) if holds(folder.path) else load_run(folder, checkpoint)


def load_published(path: Path, *, strict: bool) -> Model:
    """A model of published weights, with its vocabulary where that lies beside them.

    Warns:
        UserWarning: what stays fresh or is not used, of weights that do not fit whole or are a start.
    """
    module, plan, account = read(path, strict=strict)
    for line in account.lines() if plan.fresh or not strict else ():
        warnings.warn(line, stacklevel=3)
    processor = None
    folder = path if path.is_dir() else path.parent
    if has_tokenizer(folder):
        processor = Processor.from_published(folder, plan.config, answers=answer_names(plan), rows=plan.rows)
    spec = plan.spec if processor is None else dataclasses.replace(processor.spec, num_answers=plan.spec.num_answers)
    config = Config(model=plan.config, data=processor.data) if processor else None
    return Model(module=module, spec=spec, processor=processor, config=config, plan=plan, account=account)


def load_run(folder: RunFolder, checkpoint: str | int) -> Model:
    """The model of a run."""
    config = folder.read_config()
    step = find_step(folder.checkpoints, checkpoint, config.train)
    processor = Processor.from_folder(folder.path, config)
    heads = folder.read_heads()

    def make() -> AnyModel:
        return build_model(config.model, processor.spec, heads=heads, rngs=nnx.Rngs(params=0))

    try:
        graphdef, abstract = split_model(make)
    except ValueError as error:
        raise ConfigError(f"{folder.path}: its settings and heads make no model: {error}") from error
    params = read_params(folder.checkpoints, step, abstract)
    plan = _written_as(folder, config, processor, heads)
    return Model(module=nnx.merge(graphdef, params), processor=processor, config=config, step=step, plan=plan)


def _written_as(
    folder: RunFolder, config: Config, processor: Processor, heads: Mapping[str, HeadConfig]
) -> Plan | None:
    """How a run that began with published weights is written back; None for any other run."""
    if not folder.published.is_file():
        return None
    origin = folder.read_json(folder.published)
    try:
        return tuned_plan(origin, config.model, processor.spec, heads, processor.answers)
    except (AttributeError, KeyError, TypeError, WeightsError) as error:
        raise FolderError(f"{folder.published} does not say how the run is written back: {error}") from error
