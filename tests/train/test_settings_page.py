"""docs/configs.md names every setting of a run."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from singlestream.config import Config, TrainConfig

PAGE = Path(__file__).parents[2] / "docs" / "configs.md"


def test_every_setting_is_on_the_page():
    named = set(re.findall(r"`([a-z_0-9]+)`", PAGE.read_text()))
    rooms = {"data", "model", "train"}
    assert not {field.name for field in dataclasses.fields(TrainConfig)} - named
    assert not {field.name for field in dataclasses.fields(Config)} - rooms - named
