"""Events: short clips, made here from a seed, whose questions need the words, the video and the sound together.

A clip has eight frames of 24 x 24 pixels and two seconds of sound. Three phases follow one another in the video, of
one, three and four frames in any order, each with another coloured shape. During two of them a tone sounds, each of
another pitch, as a short event of half a frame or as long as its phase. Five questions a clip, told apart by `kind`:

    video       what colour is the square?                          words and video
    audio       which tone sounds first?                            words and sound
    duration    is the high tone short or long?                     words and sound
    colour      what colour is shown while the high tone sounds?    all three
    tone        which tone sounds while the square is shown?        all three

Answers are balanced by how clips are drawn: without the video a colour is one of four (of three where the shape is
told: four pairs of colour and shape are shown and asked in the split `test_composition` alone), without the sound a
colour is that of one of three phases, and a tone one of four; without the words any question could be meant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from singlestream.config import DataConfig
from singlestream.data.record import Record, Sentence
from singlestream.data.sources.events_draw import draw, play
from singlestream.data.sources.events_world import COLOURS, PITCHES, SHAPES, Clip, sample_clip

SPLITS = ("train", "validation", "test", "test_composition")
_APART = 1 << 28  # between the numbers of two splits' clips


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """`config.data.options` of Events: the seed of the data, how many clips each split has."""

    seed: int = 0
    train_clips: int = 20000
    validation_clips: int = 500
    test_clips: int = 1000
    composition_clips: int = 1000

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "seed" else 1
            if value < least:
                raise ValueError(f"config.data.options.{field.name}={value}: must be at least {least}")


class EventsSource:
    """One split, by random access: a clip is made anew from its number whenever it is read."""

    region_classes: Mapping[str, Sequence[str]] = {}

    def __init__(self, options: Options, split: str, rate: int):
        self._split, self._seed, self._rate = split, options.seed, rate
        sizes = (options.train_clips, options.validation_clips, options.test_clips, options.composition_clips)
        self._size = dict(zip(SPLITS, sizes, strict=True))[split]

    def __len__(self) -> int:
        return self._size

    def clip(self, i: int) -> Clip:
        """What happens in a clip."""
        return sample_clip(self._generator(i, 0), held_out=self._split == "test_composition")

    def texts(self, i: int) -> tuple[Sentence, ...]:
        return ask(self.clip(i), f"{self._split}-{i}", self._generator(i, 1))

    def __getitem__(self, i: int) -> Record:
        clip, rng = self.clip(i), self._generator(i, 2)
        return Record(
            id=f"{self._split}-{i}",
            images=draw(clip, rng),
            sound=play(clip, self._rate, rng),
            texts=self.texts(i),
            picture=SPLITS.index(self._split) * _APART + i + 1,
        )

    def _generator(self, i: int, use: int) -> np.random.Generator:
        if not 0 <= i < self._size:
            raise IndexError(i)
        return np.random.default_rng((self._seed, SPLITS.index(self._split), i, use))


def open_split(data: DataConfig, options: Options, split: str, *, progress: bool = True) -> EventsSource:
    """Opens a split; nothing is written, so `config.data.dir` is not read and `progress` not needed."""
    return EventsSource(options, split, data.audio_rate)


def ask(clip: Clip, name: str, rng: np.random.Generator) -> tuple[Sentence, ...]:
    """A question of each kind, about the phase and the tone that the clip was drawn for."""
    target = clip.phases[clip.target]
    tone = next(tone for tone in clip.tones if tone.phase == clip.target)
    last = int(rng.integers(2))
    colour, shape, pitch = COLOURS[target.colour], SHAPES[target.shape], PITCHES[tone.pitch]
    asked = (
        ("video", f"what colour is the {shape}?", colour),
        ("audio", f"which tone sounds {('first', 'last')[last]}?", PITCHES[clip.tones[-last].pitch]),
        ("duration", f"is the {pitch} tone short or long?", "long" if tone.long else "short"),
        ("colour", f"what colour is shown while the {pitch} tone sounds?", colour),
        ("tone", f"which tone sounds while the {shape} is shown?", pitch),
    )
    return tuple(Sentence(id=f"{name}-{kind}", text=text, answer=answer, kind=kind) for kind, text, answer in asked)
