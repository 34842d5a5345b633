"""A small source in memory: pictures of coloured rectangles, questions with mentions, captions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from singlestream.config import Config, DataConfig
from singlestream.data.processor import Processor
from singlestream.data.record import Mention, Record, Sentence
from singlestream.model.config import ModelConfig

COLOURS = {"red": (250, 20, 20), "green": (20, 250, 20), "blue": (20, 20, 250)}


@dataclasses.dataclass
class ToySource:
    """`size` records; each shows one rectangle of one colour on a noisy ground."""

    size: int = 12
    region_classes: dict = dataclasses.field(default_factory=lambda: {"colour": tuple(COLOURS)})
    height: int = 32
    width: int = 48

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> Record:
        rng = np.random.default_rng(i)
        image = rng.integers(90, 110, (self.height, self.width, 3)).astype(np.uint8)
        image[8:24, 8:24] = list(COLOURS.values())[i % 3]
        box = np.array([[8 / self.width, 8 / self.height, 24 / self.width, 24 / self.height]], np.float32)
        return Record(
            id=f"toy-{i}",
            images=(image,),
            texts=self.texts(i),
            picture=i + 1,
            boxes=box,
            classes=np.array([[i % 3]], np.int32),
            index=np.zeros(1, np.int32),
        )

    def texts(self, i: int) -> tuple[Sentence, ...]:
        box = np.array([[8 / self.width, 8 / self.height, 24 / self.width, 24 / self.height]], np.float32)
        colour = list(COLOURS)[i % 3]
        named = (Mention(start=17, end=20, boxes=box),)
        return (
            Sentence(id=f"{i}-0", text="What colour is a box?", answer=colour, kind="colour", mentions=named),
            Sentence(id=f"{i}-1", text=f"Is the box number {i} red?", answer=str(i % 3 == 0).lower(), kind="is"),
            Sentence(id=f"{i}-2", text="How many boxes are there?", answer="one", kind="count"),
            Sentence(id=f"{i}-3", text=f"A {colour} box.", kind="short"),
        )


def toy_config(**changes: object) -> Config:
    """A config that fits the toys; `changes` are keys of `config.data`, or `model=`."""
    model = changes.pop("model", ModelConfig(patch_size=8, patch_margin=2, direction="prefix"))
    data = {"text_length": 12, "max_patches": 24, "num_threads": 2, "prefetch": 2, **changes}
    return Config(data=DataConfig(**data), model=model)  # type: ignore[arg-type]


@pytest.fixture
def source() -> ToySource:
    return ToySource()


@pytest.fixture
def make_processor(source):
    """`make_processor(texts_per_row=3)`: a processor of the toys for these settings."""

    def make(**changes: object) -> Processor:
        return Processor.build(toy_config(**changes), source)

    return make
