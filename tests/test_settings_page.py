"""docs/configs.md has a row for every setting of a run, with its default and its choices as they are in the code."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from singlestream.config import Config, CorpusConfig, DataConfig, GroupConfig, MeshConfig, TrainConfig, TwoStreamConfig
from singlestream.data.image import AUGMENT
from singlestream.model import two_stream_config
from singlestream.model.attention import config as attention_config
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.config import CHOICES, ModelConfig
from singlestream.model.pruning import config as pruning_config
from singlestream.model.pruning.config import PruningConfig
from singlestream.objectives import objective_names

PAGE = (Path(__file__).parents[1] / "docs" / "configs.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}


def rows(section: str) -> dict[str, tuple[str, str]]:
    """Key -> (default, meaning) of the tables of a section that have a column for the default."""
    found = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| (.*)\|$", SECTIONS[section], re.MULTILINE)
    assert len({key for key, *_ in found}) == len(found), f"{section}: a key twice"
    return {key: (default, meaning) for key, default, meaning in found}


def settings(cls: type, prefix: str = "") -> dict[str, Any]:
    """Key -> default of a dataclass of settings."""
    return {prefix + name: getattr(cls(), name) for name in (field.name for field in dataclasses.fields(cls))}


def without(found: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in names}


def options() -> dict[str, Any]:
    found = {}
    for name in objective_names():
        found |= settings(importlib.import_module(f"singlestream.objectives.{name}").Options, f"{name}.")
    return found


EXPECTED = {
    "The run: `config.*`": without(settings(Config), "data", "model", "train"),
    "Data: `config.data.*`": settings(DataConfig),
    "More corpora: `config.data.corpora.NAME.*`": settings(CorpusConfig),
    "Model: `config.model.*`": without(settings(ModelConfig), "attention", "pruning"),
    "Attention: `config.model.attention.*`": settings(AttentionConfig),
    "Pruning: `config.model.pruning.*`": settings(PruningConfig),
    "Model of two streams: `config.model.*`": without(settings(TwoStreamConfig), "attention"),
    "Objectives": options(),
    "Training: `config.train.*`": without(settings(TrainConfig), "mesh")
    | settings(MeshConfig, "mesh.")
    | settings(GroupConfig, "groups[]."),
}


@pytest.mark.parametrize("section", EXPECTED)
def test_every_setting_has_its_row_and_its_default(section):
    def value(text: str) -> Any:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text

    assert {key: value(default) for key, (default, _) in rows(section).items()} == EXPECTED[section]


PLACES = [("Model: `config.model.*`", *item) for item in CHOICES.items()]
PLACES += [("Attention: `config.model.attention.*`", *item) for item in attention_config.CHOICES.items()]
PLACES += [("Pruning: `config.model.pruning.*`", *item) for item in pruning_config.CHOICES.items()]
PLACES += [("Model of two streams: `config.model.*`", *item) for item in two_stream_config.CHOICES.items()]


@pytest.mark.parametrize(("section", "key", "choices"), PLACES)
def test_every_choice_of_the_model_is_named(section, key, choices):
    _, meaning = rows(section)[key]
    assert set(choices) <= set(re.findall(r"`(\w+)`", meaning))


def test_every_augmentation_is_named():
    _, meaning = rows("Data: `config.data.*`")["augment"]
    assert set(AUGMENT) <= set(re.findall(r"`(\w+)`", meaning))


def test_every_objective_is_named_and_locate_says_what_it_is():
    text = SECTIONS["Objectives"]
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(objective_names())
    assert "whoever reports a figure that used it says so" in " ".join(text.split())
