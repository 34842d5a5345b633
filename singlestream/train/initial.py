"""What `config.init` names: another run, or published weights, as a start."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from singlestream.config import Config, DataConfig
from singlestream.data.overlap import UNKNOWN, Ids, read_ids
from singlestream.data.processor import Processor
from singlestream.data.text import Tokenizer
from singlestream.data.tokenizer_files import has_tokenizer
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig
from singlestream.model.two_stream_config import ModelSettings, TwoStreamConfig
from singlestream.train import checkpoint
from singlestream.train.errors import FolderError
from singlestream.train.folder import RunFolder
from singlestream.train.teachers import Teachers, text_teachers
from singlestream.train.weights import Weights

USUAL = DataConfig()
PICTURES = "embed/modality/table/embedding"  # with `modality="pictures"`: a row for text, first picture, second, ...
# What the config decides also where published weights say what the model is: how it computes, and its noise.
OWN = ("decoder_layers", "dropout", "attention_dropout", "stochastic_depth", "layers", "remat", "dtype", "attention")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Initial:
    """Parameters to start from, by path, what the numbers of their heads mean, and tables that got further rows."""

    where: str
    params: Mapping[str, Any]
    answers: tuple[str, ...]
    region_classes: Mapping[str, tuple[str, ...]]
    longer: tuple[str, ...] = ()


def published(config: Config, weights: Weights | None) -> tuple[Weights, Any] | None:
    """Their reader, and what the published weights in `config.init` are.

    None where it names none (a run, nothing, or what is gone), or nobody reads any.
    """
    path = RunFolder.at(config.init).path
    if weights is None or not config.init or not weights.holds(path):
        return None
    return weights, weights.read_plan(path)


def adopt_model(config: Config, weights: Weights | None) -> Config:
    """The config with the model that published weights in `config.init` are; unchanged for anything else.

    A start from a model of one modality fills what it can of the config's own model.

    Rows are made as its family reads them for these objectives, except where the config says other than by default.
    """
    found = published(config, weights)
    if found is None or found[1].fresh:
        return config
    reader, plan = found
    own = {name: getattr(config.model, name) for name in OWN if hasattr(config.model, name)}
    own = {name: value for name, value in own.items() if hasattr(plan.config, name)}
    if isinstance(plan.config, ModelConfig):
        own["pooler"] = True  # fresh where the weights have none: all that a family has heads for have one
    rows = reader.family_rows(plan, config.objectives)
    said = {name: getattr(config.data, name) for name in rows if getattr(config.data, name) != getattr(USUAL, name)}
    return dataclasses.replace(
        config,
        model=dataclasses.replace(plan.config, **own),
        data=dataclasses.replace(config.data, **{**rows, **said}),
    )


def adopt_heads(config: Config, heads: Mapping[str, HeadConfig], weights: Weights | None) -> dict[str, HeadConfig]:
    """The objectives' heads, in the form that the family of published weights in `config.init` has for them."""
    found = published(config, weights)
    if found is None:
        return dict(heads)
    reader, plan = found
    return reader.family_heads(plan, heads)


def origin(config: Config, weights: Weights | None) -> dict[str, Any] | None:
    """What the run has to keep so that it can be written as published weights are; None where it cannot be."""
    found = published(config, weights)
    if found is None:
        return None
    reader, plan = found
    return reader.origin_of(plan)


def pictures_before(config: Config, weights: Weights | None) -> Ids:
    """The pictures that what `config.init` names was trained on: `UNKNOWN` of published weights that read pictures."""
    found = published(config, weights)
    if found is None:
        return read_ids(RunFolder.at(config.init).pictures) if config.init else {}
    _, plan = found
    return {} if any(part.startswith("embed/image/") for part in plan.fresh) else UNKNOWN


def initial_tokenizer(config: Config, teachers: Teachers, weights: Weights | None) -> Tokenizer | None:
    """The vocabulary that goes with the word embeddings of `config.init`, and of models of text to learn from.

    None where neither has one.

    Raises:
        FolderError: it is missing, is not that of the weights, or one of them has another.
    """
    _, plan = published(config, weights) or (None, None)
    own = None
    if config.init and not (plan and any(part.startswith("embed/text/") for part in plan.fresh)):
        own = _read_tokenizer(f"config.init={config.init!r}", config.init, plan.spec.vocab_size if plan else 0)
    for where, name, size in text_teachers(config, teachers):
        theirs = _read_tokenizer(name, where, size)
        if own is not None and _meaning(own) != _meaning(theirs):
            raise FolderError(
                f"{name}: its vocabulary, or how it reads text, is not that of the run's start or of another of these; "
                "words must have the same ids in all of them"
            )
        own = theirs
    return own


def _read_tokenizer(name: str, where: str, vocab_size: int) -> Tokenizer:
    """The tokenizer in a folder, or beside a file; of so many words, if not 0."""
    path = RunFolder.at(where).path
    folder = path if path.is_dir() else path.parent
    if not has_tokenizer(folder):
        raise FolderError(
            f"{name}: no vocabulary (vocab.txt or tokenizer.json) in {folder}; it names a run's folder, or published "
            "weights with the files of their tokenizer"
        )
    tokenizer = Tokenizer.from_folder(folder)
    if vocab_size not in (0, tokenizer.vocab_size):
        raise FolderError(
            f"{name}: the vocabulary in {folder} has {tokenizer.vocab_size} words, the weights have {vocab_size}"
        )
    return tokenizer


def _meaning(tokenizer: Tokenizer) -> tuple[Any, ...]:
    """What two tokenizers must share for their ids to mean the same."""
    return tokenizer.vocabulary, dataclasses.replace(tokenizer.reading, max_length=0)


def read_initial(config: Config, weights: Weights | None) -> Initial:
    """The parameters of another run's best checkpoint, or those of published weights.

    Raises:
        FolderError, CheckpointError, WeightsError: they cannot be read.
    """
    folder = RunFolder.at(config.init)
    if weights is not None and weights.holds(folder.path):
        module, plan, _ = weights.read(folder.path)
        return Initial(
            where=f"{folder.path} ({plan.family}, {plan.dialect})",
            params=_taken(weights.by_path(module), plan, config.model),
            answers=weights.answer_names(plan),
            region_classes={},
        )
    other = folder.read_config()
    step = checkpoint.find_step(folder.checkpoints, "best", other.train)
    processor = Processor.from_folder(folder.path, other)
    params = checkpoint.read_any_params(folder.checkpoints, step)
    longer = _further_pictures(params, other.model.inputs, config.model.inputs)
    return Initial(
        where=str(folder.checkpoints / str(step)),
        params={**params, **longer},
        answers=processor.answers,
        region_classes=processor.region_classes,
        longer=tuple(longer),
    )


def _further_pictures(params: Mapping[str, Any], there: ModelConfig, here: ModelConfig) -> dict[str, Any]:
    """The table of modalities for more pictures an example, where they are more: each starts as the last one there.

    So ViLT's authors start NLVR2; published weights, which stay a model of one picture, give each the first one's, too.
    """
    more = here.num_images - there.num_images
    if PICTURES not in params or {there.modality, here.modality} != {"pictures"} or more <= 0:
        return {}
    return {PICTURES: np.pad(params[PICTURES], ((0, more), (0, 0)), mode="edge")}


def _taken(params: Mapping[str, Any], plan: Any, model: ModelSettings) -> dict[str, Any]:
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
