"""Every setting of a run: frozen dataclasses that validate themselves, and their `ConfigDict` for the command line.

A file in `configs/` builds a `Config` and returns `Config(...).to_config_dict()`; the programs turn what the command
line made of it back with `Config.from_config_dict`, so a setting is checked in one place, whoever set it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import types
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections

from singlestream.model.attention.config import AttentionConfig as AttentionConfig
from singlestream.model.config import ModelConfig as ModelConfig
from singlestream.model.two_stream_config import ModelSettings as ModelSettings
from singlestream.model.two_stream_config import TwoStreamConfig as TwoStreamConfig


class ConfigError(ValueError):
    """A setting that cannot be; its message names the config key and what would do."""


def _choose(key: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise ConfigError(f"config.{key}={value!r}: choose one of {', '.join(valid)}")


def _at_least(least: int, config: Any, room: str, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= least:  # so turned, it refuses NaN too
            raise ConfigError(f"config.{room}.{name}={getattr(config, name)}: must be at least {least}")


def _share(config: Any, room: str, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ConfigError(f"config.{room}.{name}={getattr(config, name)}: must be in [0, 1)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """One more corpus to train on, beside `data.name`: keys `config.data.corpora.NAME.*`, any NAME.

    The rest of `config.data` counts for it, too. Evaluation is on `data.name` alone.
    """

    name: str = "scenes"
    dir: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    texts: str = "all"  # as `data.texts`, or none: its pictures alone
    kinds: tuple[str, ...] = ()
    share: float = 1.0
    augment: tuple[str, ...] = ()
    pictures: bool = True  # False: its texts alone
    rate: float = 1.0  # its records come as often as those of another with this rate

    def __post_init__(self) -> None:
        if not self.pictures and (self.augment or self.texts == "none"):
            raise ConfigError(
                f"config.data.corpora: {self.name!r} has pictures=False: its texts alone are read, so texts='none' and "
                "augment do not go with it"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where examples come from and how they become rows. Every field is a key `config.data.*`."""

    name: str = "scenes"  # a file in singlestream/data/sources/
    dir: str = ""  # folder of the dataset; "": the user's cache folder
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of the source, see its `Options`
    texts: str = "questions"  # questions, captions or all
    kinds: tuple[str, ...] = ()  # kinds of text to train on; (): all
    share: float = 1.0  # share of the training records to use, the first of a fixed shuffle
    corpora: Mapping[str, CorpusConfig] = dataclasses.field(default_factory=dict)  # more to train on, by any name
    rate: float = 1.0  # with `corpora`: how often records come from this source, beside their rates
    vocab_size: int = 512  # of the WordPiece vocabulary, at most
    label_separator: str = ""  # what stands between several labels in one answer (classify); "": it is one label
    min_answer_count: int = 1  # training questions that an answer needs to be one of the run's answers
    text_length: int = 24  # tokens of one text at most, [CLS] and [SEP] included; longer ones are cut and counted
    mask_last: bool = False  # a [MASK] before each text's [SEP], where VisualBERT reads its answer
    task: int = -1  # number of the task whose token follows [CLS], as multi-task ViLBERT reads it; -1: none
    max_patches: int = 36  # budget of patches, or of regions, a picture
    shorter_side: int = 0  # pixels, as ViLT scales every picture; 0: only what exceeds the budget is scaled down
    mean_region: bool = False  # before a picture's regions their mean, with a box around everything (ViLBERT)
    texts_per_row: int = 1  # texts that share their picture in one row (`part`)
    copies: bool = False  # each text of a row has a copy of the picture, in a segment of its own
    examples_per_row: int = 1  # examples packed side by side in one row (`segments`), at most
    apart: int = 1  # pictures of each record, above 1 each in a segment of its own beside a copy of the text
    row_patches: int = 0  # image tokens of a packed row; 0: room for examples_per_row full examples, always that many
    max_audio: int = 0  # budget of audio tokens of an example; 0: none
    max_edges: int = 0  # budget of edges of a text with its pictures, where the model reads edges; 0: none
    audio_rate: int = 4096  # samples of sound a second
    audio_hop: int = 128  # samples to a column of the log-mel spectrogram
    audio_columns: int = 4  # columns of an audio token; `model.audio_dim` / this are the mel bands
    augment: tuple[str, ...] = ()  # names of functions in data/image.py and of the source
    num_threads: int = 2
    prefetch: int = 8

    def __post_init__(self) -> None:
        _choose("data.texts", self.texts, ("questions", "captions", "all", "none"))
        _at_least(1, self, "data", "min_answer_count", "max_patches", "texts_per_row", "examples_per_row", "apart")
        _at_least(0, self, "data", "shorter_side", "max_audio", "max_edges", "num_threads", "prefetch")
        _at_least(1, self, "data", "audio_rate", "audio_hop", "audio_columns")
        _at_least(-1, self, "data", "task")
        if self.vocab_size < 6:
            raise ConfigError(f"config.data.vocab_size={self.vocab_size}: five special tokens and one letter need 6")
        if not 0 < self.share <= 1:
            raise ConfigError(f"config.data.share={self.share}: must be in (0, 1]")
        if not 0 < self.rate < math.inf:
            raise ConfigError(f"config.data.rate={self.rate}: must be above 0")
        marks = ["[CLS]", *["a task's token"] * (self.task >= 0), "a word", *["[MASK]"] * self.mask_last, "[SEP]"]
        if self.text_length < len(marks):
            raise ConfigError(f"config.data.text_length={self.text_length}: {', '.join(marks)} need {len(marks)}")
        if self.row_patches < 0 or (self.row_patches and self.examples_per_row == 1):
            raise ConfigError(
                f"config.data.row_patches={self.row_patches}: a budget of packed rows, it needs "
                "config.data.examples_per_row above 1 (0: no budget of its own)"
            )
        if self.texts_per_row > 1 and self.examples_per_row > 1:
            raise ConfigError(
                f"config.data.texts_per_row={self.texts_per_row} and config.data.examples_per_row="
                f"{self.examples_per_row}: a row either shares one picture or packs several, set one of them to 1"
            )
        if self.apart > 1 and self.texts_per_row > 1:
            raise ConfigError(
                f"config.data.apart={self.apart} and config.data.texts_per_row={self.texts_per_row}: each of several "
                "pictures has a copy of one text, set one of them to 1"
            )
        for key in self.corpora:
            try:
                self.of_corpus(key)
            except ConfigError as error:
                raise ConfigError(f"config.data.corpora.{key}: {error}") from error

    def of_corpus(self, key: str) -> DataConfig:
        """The settings that count for one of `corpora`: its own, and for the rest these."""
        corpus = self.corpora[key]
        own = {
            field.name: getattr(corpus, field.name) for field in dataclasses.fields(corpus) if field.name != "pictures"
        }
        return dataclasses.replace(self, **own, corpora={})


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """Parameters whose path matches `pattern` (a regular expression, searched): rate multiplier, decay, frozen."""

    pattern: str = ""
    rate: float = 1.0
    decay: float = 1.0  # multiplier of the weight decay
    frozen: bool = False

    def __post_init__(self) -> None:
        _at_least(0, self, "train.groups", "rate", "decay")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis; one of them may be -1: all that are left. `config.train.mesh.*`."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop. Every field is a key `config.train.*`."""

    num_steps: int = 1000
    batch_size: int = 32  # rows a step, over all devices
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    muon_learning_rate: float = 0.02  # for the matrices that Muon takes; everything else goes by learning_rate
    schedule: str = "cosine"
    warmup_steps: int = 100
    final_rate: float = 0.0  # of the schedule, as a share of learning_rate
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    clip_norm: float = 1.0  # 0: no clipping
    one_objective: bool = False  # a step is one objective's, drawn by the weights (UNITER); False: all of them, summed
    accumulate: int = 1  # parts that a batch is computed in, one after the other
    ema_decay: float = 0.0  # 0: no moving average; evaluation uses the average where there is one
    groups: tuple[GroupConfig, ...] = ()
    mesh: MeshConfig = MeshConfig()

    log_every: int = 50
    eval_every: int = 500
    eval_batches: int = 16  # of the validation split at most; 0: all of it
    checkpoint_every: int = 500
    keep_latest: int = 1
    keep_best: int = 1
    best_metric: str = ""  # as in metrics.jsonl without the split, e.g. "vqa/accuracy"; "": the loss, lowest is best
    profile: tuple[int, int] = (0, 0)  # first and last step to profile into the run's folder; (0, 0): none
    huge_pages: bool = True  # on CPU: memory kept in huge pages (train.py starts itself again)
    cache_dir: str = ""  # of compiled programs; "": the user's cache folder; "none": no cache

    def __post_init__(self) -> None:
        _choose("train.optimizer", self.optimizer, ("adamw", "lion", "muon"))
        _choose("train.schedule", self.schedule, ("cosine", "linear", "constant"))
        _at_least(1, self, "train", "num_steps", "batch_size", "accumulate", "keep_latest")
        _at_least(1, self, "train", "log_every", "eval_every", "checkpoint_every")
        _at_least(0, self, "train", "warmup_steps", "final_rate", "weight_decay", "clip_norm")
        _at_least(0, self, "train", "eval_batches", "keep_best")
        _share(self, "train", "beta1", "beta2", "ema_decay")
        for name in ("learning_rate", "muon_learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"config.train.{name}={getattr(self, name)}: must be above 0")
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"config.train.batch_size={self.batch_size} is not divisible by "
                f"config.train.accumulate={self.accumulate}"
            )
        if self.profile != (0, 0) and not 0 <= self.profile[0] < self.profile[1]:
            raise ConfigError(
                f"config.train.profile={self.profile}: the first step must be 0 or more and below the last (or both 0)"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """One run. `objectives` maps names of files in singlestream/objectives/ to weights."""

    seed: int = 0
    init: str = ""  # a run's folder to start from; parameters of the same path, shape and meaning are taken
    data: DataConfig = DataConfig()
    model: ModelSettings = ModelConfig()
    objectives: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"vqa": 1.0})
    objective_options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        for name, weight in self.objectives.items():
            if not weight >= 0:
                raise ConfigError(f"config.objectives.{name}={weight}: a weight is at least 0")
        if not any(weight > 0 for weight in self.objectives.values()):
            raise ConfigError("config.objectives: at least one objective needs a weight above 0")
        for name in self.objective_options:
            if name not in self.objectives:
                raise ConfigError(f"config.objective_options.{name}: config.objectives has no {name!r}")
        if self.data.texts == "none":
            raise ConfigError(
                "config.data.texts='none': a run is evaluated on texts, choose questions, captions or all "
                "(pictures alone come from one of config.data.corpora)"
            )
        reads = self.model.inputs
        if self.data.texts_per_row > 1 and reads.picture_reads_text and not self.data.copies:
            raise ConfigError(
                f"config.data.texts_per_row={self.data.texts_per_row} needs a single stream with "
                "config.model.direction='prefix': else the picture reads its text, so texts cannot share one; with "
                "config.data.copies=True each has its own"
            )
        if self.data.text_length > reads.max_text_length and reads.text_positions == "learned":
            raise ConfigError(
                f"config.data.text_length={self.data.text_length} is more than config.model.max_text_length="
                f"{reads.max_text_length} positions"
            )
        if reads.attention.selection == "sampled" and not self.objectives.get("reinforce"):
            raise ConfigError(
                "config.model.attention.selection='sampled' draws what it reads, and its scores learn by the objective "
                "'reinforce' alone: give config.objectives.reinforce a weight above 0"
            )
        self._check_audio()
        self._check_edges()
        num_tasks = getattr(self.model, "num_tasks", 0)
        if self.data.task >= num_tasks:
            raise ConfigError(
                f"config.data.task={self.data.task}: the model knows {num_tasks} tasks (config.model.num_tasks of a "
                "two-stream model); -1: no token for a task"
            )

    def _check_audio(self) -> None:
        data, size = self.data, self.model.inputs.audio_dim
        if (size > 0) != (data.max_audio > 0):
            raise ConfigError(
                f"config.model.audio_dim={size} with config.data.max_audio={data.max_audio}: a model that reads audio "
                "needs both above 0, any other both 0"
            )
        plain = DataConfig()
        for name in ("audio_rate", "audio_hop", "audio_columns"):
            if not size and getattr(data, name) != getattr(plain, name):
                raise ConfigError(
                    f"config.data.{name}={getattr(data, name)} is not read without sound: config.data.max_audio=0"
                )
        if size % data.audio_columns:
            raise ConfigError(
                f"config.model.audio_dim={size} is not divisible by config.data.audio_columns={data.audio_columns}"
            )
        if size and (data.apart > 1 or data.copies):
            raise ConfigError(
                f"config.model.audio_dim={size} does not go with config.data.apart above 1 or config.data.copies=True: "
                "the sound would have to be copied beside each picture"
            )

    def _check_edges(self) -> None:
        reads, budget, size = self.model.attention.reads_edges, self.data.max_edges, self.model.inputs.audio_dim
        if reads != (budget > 0):
            raise ConfigError(
                f"config.model.attention.graph={self.model.attention.graph!r} with config.data.max_edges={budget}: a "
                "model that reads edges (selection='graph', graph='edges') needs max_edges above 0, any other 0"
            )
        if reads and size:
            raise ConfigError(
                f"config.model.attention.graph='edges' does not go with config.model.audio_dim={size}: no source knows "
                "edges between sounds"
            )

    def with_absolute_paths(self) -> Config:
        """The same run for readers in any working directory."""
        corpora = {
            name: dataclasses.replace(corpus, dir=_absolute(corpus.dir)) for name, corpus in self.data.corpora.items()
        }
        data = dataclasses.replace(self.data, dir=_absolute(self.data.dir), corpora=corpora)
        train = dataclasses.replace(self.train, cache_dir=_absolute(self.train.cache_dir, but="none"))
        return dataclasses.replace(self, data=data, train=train, init=_absolute(self.init))

    def to_config_dict(self) -> ml_collections.ConfigDict:
        """The form that `--config.a.b=value` can change: nested, typed, locked against unknown keys."""
        return ml_collections.ConfigDict(_plain(self), convert_dict=True).lock()

    def to_json(self) -> str:
        return json.dumps(_plain(self), indent=2, sort_keys=True)

    @classmethod
    def from_config_dict(cls, config: ml_collections.ConfigDict) -> Config:
        """Raises ConfigError for an unknown key, a wrong type or a value that cannot be."""
        return _build(cls, config.to_dict(), "config")

    @classmethod
    def from_json(cls, text: str) -> Config:
        return _build(cls, json.loads(text), "config")


def _absolute(path: str, but: str = "") -> str:
    return path if path in ("", but) else os.path.abspath(os.path.expanduser(path))


def build_options(cls: type, values: Mapping[str, Any], key: str) -> Any:
    """An `Options` dataclass of a source or objective from its part of the config; errors name `key`."""
    return _build(cls, dict(values), key)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_plain(v) for v in value)
    return value


def _build(cls: type, values: Mapping[str, Any], key: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(f"{key}.{unknown[0]}: no such key; {key} has {', '.join(sorted(fields)) or 'none'}")
    built = {name: _convert(hints[name], value, f"{key}.{name}") for name, value in values.items()}
    try:
        return cls(**built)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _convert(hint: Any, value: Any, key: str) -> Any:
    """Checks one value against its annotation: a scalar, a tuple, a mapping, or a dataclass."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return value if isinstance(value, args) else _convert(_told_by_keys(args, value), value, key)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}={value!r}: expected keys and values of {hint.__name__}")
        return _build(hint, value, key)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise ConfigError(f"{key}={value!r}: expected a sequence")
        kinds = args[:1] * len(value) if args[-1] is Ellipsis else args
        if len(kinds) != len(value):
            raise ConfigError(f"{key}={value!r}: expected {len(kinds)} values")
        return tuple(_convert(kind, v, key) for kind, v in zip(kinds, value, strict=True))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}={value!r}: expected keys and values")
        return {k: _convert(args[1], v, f"{key}.{k}") for k, v in value.items()}
    if hint is Any:
        return _plain(value)  # a list, as JSON has it, is a tuple again
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{key}={value!r}: expected {hint.__name__}, got {type(value).__name__}")
    return value


def _told_by_keys(kinds: tuple[Any, ...], value: Any) -> Any:
    """Which of several dataclasses of settings keys and values are: the one that knows the most of the keys."""
    keys = set(value) if isinstance(value, Mapping) else set()
    return max(kinds, key=lambda kind: len(keys & {field.name for field in dataclasses.fields(kind)}))
