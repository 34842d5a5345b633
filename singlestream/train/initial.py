"""What `config.init` names: another run, or published weights, as a start."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from singlestream.config import Config, DataConfig
from singlestream.data.processor import Processor
from singlestream.data.text import Tokenizer
from singlestream.interop.build import answer_names, by_path, has_vocabulary, read, read_plan
from singlestream.interop.plan import Plan
from singlestream.interop.tuned import family_heads, family_rows, origin_of
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig
from singlestream.model.two_stream_config import ModelSettings, TwoStreamConfig
from singlestream.train import checkpoint
from singlestream.train.errors import FolderError
from singlestream.train.folder import RunFolder

USUAL = DataConfig()
# What the config decides also where published weights say what the model is: how it computes, and its noise.
OWN = ("dropout", "attention_dropout", "stochastic_depth", "layers", "remat", "dtype", "attention")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Initial:
    """Parameters to start from, by path, and what the numbers of their heads mean."""

    where: str
    params: Mapping[str, Any]
    answers: tuple[str, ...]
    region_classes: Mapping[str, tuple[str, ...]]


def published_plan(config: Config) -> Plan | None:
    """What published weights in `config.init` are; None where it names none (a run, nothing, or what is gone)."""
    folder = RunFolder.at(config.init)
    return read_plan(folder.path) if config.init and folder.holds_weights else None


def adopt_model(config: Config) -> Config:
    """The config with the model that published weights in `config.init` are; unchanged for anything else.

    A start from a model of one modality fills what it can of the config's own model.

    Rows are made as its family reads them for these objectives, except where the config says other than by default.
    """
    plan = published_plan(config)
    if plan is None or plan.fresh:
        return config
    own = {name: getattr(config.model, name) for name in OWN if hasattr(config.model, name)}
    own = {name: value for name, value in own.items() if hasattr(plan.config, name)}
    if isinstance(plan.config, ModelConfig):
        own["pooler"] = True  # fresh where the weights have none: all that a family has heads for have one
    rows = family_rows(plan, config.objectives)
    said = {name: getattr(config.data, name) for name in rows if getattr(config.data, name) != getattr(USUAL, name)}
    return dataclasses.replace(
        config,
        model=dataclasses.replace(plan.config, **own),
        data=dataclasses.replace(config.data, **{**rows, **said}),
    )


def adopt_heads(config: Config, heads: Mapping[str, HeadConfig]) -> dict[str, HeadConfig]:
    """The objectives' heads, in the form that the family of published weights in `config.init` has for them."""
    plan = published_plan(config)
    return dict(heads) if plan is None else family_heads(plan, heads)


def origin(config: Config) -> dict[str, Any] | None:
    """What the run has to keep so that it can be written as published weights are; None where it cannot be."""
    plan = published_plan(config)
    return None if plan is None else origin_of(plan)


def initial_tokenizer(config: Config) -> Tokenizer | None:
    """The vocabulary that goes with the word embeddings of `config.init`; None where that has none.

    Raises:
        FolderError: it is missing, or is not that of the weights.
    """
    plan, path = published_plan(config), RunFolder.at(config.init).path
    if not config.init or (plan and any(part.startswith("embed/text/") for part in plan.fresh)):
        return None
    folder = path if path.is_dir() else path.parent
    if not has_vocabulary(folder):
        raise FolderError(
            f"config.init={config.init!r}: no vocabulary (vocab.txt or tokenizer.json) in {folder}; it names a run's "
            "folder, or published weights with the files of their tokenizer"
        )
    tokenizer = Tokenizer.from_folder(folder)
    if plan and plan.spec.vocab_size != tokenizer.vocab_size:
        raise FolderError(
            f"config.init={config.init!r}: the vocabulary in {folder} has {tokenizer.vocab_size} words, the weights "
            f"have {plan.spec.vocab_size}"
        )
    return tokenizer


def read_initial(config: Config) -> Initial:
    """The parameters of another run's best checkpoint, or those of published weights.

    Raises:
        FolderError, CheckpointError, WeightsError: they cannot be read.
    """
    folder = RunFolder.at(config.init)
    if folder.holds_weights:
        module, plan, _ = read(folder.path)
        return Initial(
            where=f"{folder.path} ({plan.family}, {plan.dialect})",
            params=_taken(by_path(module), plan, config.model),
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


def _taken(params: Mapping[str, Any], plan: Plan, model: ModelSettings) -> dict[str, Any]:
    """Without what the weights do not have and a start leaves fresh.

    A text of its own stream has the first of BERT's layers, as the authors of LXMERT (9 of 12) and ViLBERT start.
    """
    if not plan.fresh:
        return dict(params)
    found = {path: array for path, array in params.items() if not path.startswith(plan.fresh)}
    # BERT's LayerNorm of the embeddings also fits a model that has one for the text alone.
    beside = {path.replace("embed/", "embed/text/"): found[path] for path in found if path.startswith("embed/norm/")}
    if isinstance(model, TwoStreamConfig):
        layers = {path: found[path] for path in found if path.startswith("encoder/blocks/")}
        beside |= {path.replace("encoder/", "text/", 1): layers[path][: model.num_layers] for path in layers}
    return found | beside
