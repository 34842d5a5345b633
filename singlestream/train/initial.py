"""What `config.init` names: another run, or published weights, as a start."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from singlestream.config import Config, ConfigError
from singlestream.data.processor import Processor
from singlestream.data.text import Tokenizer
from singlestream.interop.build import answer_names, by_path, has_vocabulary, read, read_plan
from singlestream.interop.plan import Plan
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig
from singlestream.train import checkpoint
from singlestream.train.errors import FolderError
from singlestream.train.folder import RunFolder

# What the config decides also where published weights say what the model is: how it computes, and its noise.
OWN = ("dropout", "stochastic_depth", "layers", "remat", "dtype", "attention")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Initial:
    """Parameters to start from, by path, and what the numbers of their heads mean."""

    where: str
    params: Mapping[str, Any]
    answers: tuple[str, ...]
    region_classes: Mapping[str, tuple[str, ...]]


def is_published(init: str) -> bool:
    """Whether these are published weights and not a run (whose folder has a processor's `spec.json`).

    Raises:
        FolderError: there is nothing.
    """
    path = RunFolder.at(init).path
    if not path.exists():
        raise FolderError(f"config.init={init!r}: no such folder or file; it names a run's folder or published weights")
    return not (path / "spec.json").is_file()


def adopt_model(config: Config) -> Config:
    """The config with the model that published weights in `config.init` are; unchanged for anything else.

    A start from a model of one modality fills what it can of the config's own model.

    Raises:
        ConfigError: a model that train.py does not train.
    """
    if not config.init or not RunFolder.at(config.init).path.exists() or not is_published(config.init):
        return config  # a run that goes on does not need it any more
    plan = read_plan(RunFolder.at(config.init).path)
    if plan.fresh:
        return config
    if not isinstance(plan.config, ModelConfig):
        raise ConfigError(
            f"config.init={config.init!r} is a two-stream model ({plan.family}): train.py trains single streams"
        )
    own = {name: getattr(config.model, name) for name in OWN}
    return dataclasses.replace(config, model=dataclasses.replace(plan.config, **own))


def adopt_heads(config: Config, heads: Mapping[str, HeadConfig]) -> dict[str, HeadConfig]:
    """The objectives' heads, or those of published weights that have one of the same name and size."""
    if not config.init or not is_published(config.init):
        return dict(heads)
    published = read_plan(RunFolder.at(config.init).path).heads
    return {
        name: published[name] if name in published and published[name].size == head.size else head
        for name, head in heads.items()
    }


def initial_tokenizer(config: Config) -> Tokenizer | None:
    """The vocabulary that goes with the word embeddings; None where the start has none (a model of pictures).

    Raises:
        FolderError: it is missing.
    """
    folder = RunFolder.at(config.init).path
    if not is_published(config.init):
        if not (folder / "vocab.txt").is_file():
            raise FolderError(f"config.init={config.init!r}: {folder / 'vocab.txt'} is missing")
        return Tokenizer.from_folder(folder)
    if has_vocabulary(folder):
        return Tokenizer.from_folder(folder if folder.is_dir() else folder.parent)
    if any(path.startswith("embed/text/") for path in read_plan(folder).fresh):
        return None
    raise FolderError(f"config.init={config.init!r}: no vocabulary beside the weights (vocab.txt or tokenizer.json)")


def read_initial(config: Config) -> Initial:
    """The parameters of another run's best checkpoint, or those of published weights.

    Raises:
        FolderError, CheckpointError, WeightsError: they cannot be read.
    """
    folder = RunFolder.at(config.init)
    if is_published(config.init):
        module, plan, _ = read(folder.path)
        return Initial(
            where=f"{folder.path} ({plan.family}, {plan.dialect})",
            params=_taken(by_path(module), plan),
            answers=answer_names(plan),
            region_classes={},
        )
    other = folder.read_config()
    step = checkpoint.find_step(folder.checkpoints, "best", other.train)
    processor = Processor.from_folder(folder.path, other)
    return Initial(
        where=str(folder.checkpoints / str(step)),
        params=checkpoint.read_any_params(folder.checkpoints, step),
        answers=processor.answers,
        region_classes=processor.region_classes,
    )


def _taken(params: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Without what the weights do not have and a start leaves fresh."""
    if not plan.fresh:
        return dict(params)
    found = {path: array for path, array in params.items() if not path.startswith(plan.fresh)}
    # BERT's LayerNorm of the embeddings also fits a model that has one for the text alone.
    beside = {path.replace("embed/", "embed/text/"): found[path] for path in found if path.startswith("embed/norm/")}
    return found | beside
