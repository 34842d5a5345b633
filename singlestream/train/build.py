"""From settings to what a run is made of: data, vocabulary, objectives, heads. What a run keeps is written here."""

from __future__ import annotations

import dataclasses
import json
import shutil
from typing import Any

import jax
from flax import nnx

from singlestream.batch import Batch, Spec
from singlestream.config import Config, ConfigError
from singlestream.data.mixture import open_training
from singlestream.data.overlap import by_collection, joined, picture_ids, write_ids
from singlestream.data.pipeline import check_edges, check_rows, check_training_rows, priors, training_texts
from singlestream.data.processor import Processor
from singlestream.data.record import Source
from singlestream.data.sources import open_split, split_names
from singlestream.model.build import AnyModel, build_model
from singlestream.model.heads import HeadConfig
from singlestream.objectives import build_objectives
from singlestream.train.checkpoint import steps
from singlestream.train.cluster import sync
from singlestream.train.folder import RunFolder
from singlestream.train.initial import Initial, adopt_heads, initial_tokenizer, origin, pictures_before
from singlestream.train.teachers import Teachers, keep_teachers, kept_teachers, read_teachers
from singlestream.train.weights import Weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What a run is made of, before anything is computed."""

    config: Config
    folder: RunFolder
    source: Source
    validation: Source | None
    processor: Processor
    spec: Spec
    objectives: dict[str, Any]
    heads: dict[str, HeadConfig]
    weights: Weights | None

    def make_model(self) -> AnyModel:
        return build_model(self.config.model, self.spec, heads=self.heads, rngs=nnx.Rngs(params=self.config.seed))

    def heads_of_other_classes(self, other: Processor | Initial) -> list[str]:
        """Heads that learn answers or region classes which are others, or in another order, than those of `other`.

        Their shapes may agree, but not what their numbers mean.
        """
        mine = self.processor
        differ = {
            "answer": mine.answers != other.answers,
            "region_class": list(mine.region_classes.items()) != list(other.region_classes.items()),
        }
        return [
            name
            for objective in self.objectives.values()
            if any(differ.get(target) for target in objective.targets)
            for name in objective.heads(self.config.model, self.spec)
        ]

    def empty_batch(self, *, evaluation: bool = False) -> Batch:
        """This process's share of a batch, without content: its shapes."""
        processor = self.processor.unpacked() if evaluation else self.processor
        rows = self.config.train.batch_size // jax.process_count()
        return processor.batch([processor.row([])] * rows)


def build_run(config: Config, folder: RunFolder, weights: Weights | None = None) -> Run:
    """Opens the data and makes what the run keeps in its folder, or reads it again where there is a checkpoint.

    The first process does it alone, then the others find everything there (a folder that all of them see).

    Args:
        config: of the run.
        folder: of the run.
        weights: reads the published weights that `config` names; None: it names none.

    Raises:
        ConfigError, DataError, FolderError: whatever is wrong with settings, data or folder.
    """
    first = jax.process_index() == 0
    if not first:
        sync("built")
    source = open_training(config.data, progress=first)
    name = validation_split(config)
    validation = open_split(config.data, name, progress=first) if name else None
    fresh = first and not begun(folder)
    teachers = read_teachers(config, weights) if fresh else kept_teachers(folder)
    processor = (
        _new_processor(config, source, teachers, weights) if fresh else Processor.from_folder(folder.path, config)
    )
    spec = processor.spec
    objectives = build_objectives(config, spec, teachers)
    heads = {name: head for o in objectives.values() for name, head in o.heads(config.model, spec).items()}
    heads = adopt_heads(config, heads, weights) if fresh else folder.read_heads()
    run = Run(
        config=config,
        folder=folder,
        source=source,
        validation=validation,
        processor=processor,
        spec=spec,
        objectives=objectives,
        heads=heads,
        weights=weights,
    )
    _check_targets(run)
    if first:
        with folder.writing():
            if fresh:
                _keep(run)
            folder.write_json(folder.config, json.loads(config.to_json()))
        sync("built")
    return run


def begun(folder: RunFolder) -> bool:
    """Whether there is something to continue: before its first checkpoint a run starts anew, with whatever settings."""
    return folder.is_run and bool(steps(folder.checkpoints))


def validation_split(config: Config) -> str:
    """`validation` or `dev`, whichever the source has; "" where it has neither."""
    return next((name for name in ("validation", "dev") if name in split_names(config.data)), "")


def _new_processor(config: Config, source: Source, teachers: Teachers, weights: Weights | None) -> Processor:
    # Word embeddings only mean something with their vocabulary; answers are those of the new data.
    return Processor.build(config, source, initial_tokenizer(config, teachers, weights))


def _check_targets(run: Run) -> None:
    data, have = run.config.data, run.empty_batch().targets
    if run.config.model.attention.reads_edges:
        check_edges(run.source, data)
    for name, objective in run.objectives.items():
        missing = [target for target in objective.targets if target not in have]
        if missing:
            raise ConfigError(
                f"config.objectives.{name} needs the target {missing[0]!r}, which the source "
                f"{data.name!r} does not give; it gives {', '.join(sorted(have)) or 'none'}"
            )
        if "answer" in objective.targets and not any(text.answer for text in training_texts(run.source, data)):
            raise ConfigError(
                f"config.objectives.{name} needs texts with an answer: config.data.texts={data.texts!r} and "
                f"config.data.kinds={data.kinds} leave none"
            )
        if objective.needs_whole_records:
            check_training_rows(run.source, data)
            if run.validation is not None:
                check_rows(run.validation, data)


def _keep(run: Run) -> None:
    """Writes the run's small files, each whole or not at all; `config.json`, which makes it a run, comes last."""
    folder = run.folder
    part = folder.path / ".part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    run.processor.save(part)
    if ids := joined(by_collection(picture_ids(run.source)), pictures_before(run.config, run.weights)):
        write_ids(part / folder.pictures.name, ids)
    for file in sorted(part.iterdir()):
        file.replace(folder.path / file.name)
    part.rmdir()
    folder.write_json(folder.heads, {name: dataclasses.asdict(head) for name, head in run.heads.items()})
    folder.write_json(folder.priors, priors(run.source, run.config.data))
    keep_teachers(folder, {name: objective.models for name, objective in run.objectives.items() if objective.models})
    began_with = origin(run.config, run.weights)
    if began_with is None:
        folder.published.unlink(missing_ok=True)  # of a start with other settings, of which nothing else is left
    else:
        folder.write_json(folder.published, began_with)
