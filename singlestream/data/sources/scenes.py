"""Scenes: the embedded corpus, made here from a seed, as a TensorFlow Datasets builder (array_record, no TensorFlow).

Pictures of 48 x 48 pixels with two to five coloured shapes, questions and captions, and for every word that names
something its boxes. Eight pairs of colour and shape are shown and named in the split `test_composition` alone.
The first `open_split` makes the data (about half a minute); later ones read it where it lies.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError
from jaxtyping import UInt8
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from singlestream.config import DataConfig
from singlestream.data.record import DataError, Mention, Record, RegionFeatures, Sentence
from singlestream.data.sources.scenes_captions import caption
from singlestream.data.sources.scenes_draw import draw
from singlestream.data.sources.scenes_folder import Progress, default_folder, make_once, quiet
from singlestream.data.sources.scenes_language import Said
from singlestream.data.sources.scenes_questions import Balance, ask
from singlestream.data.sources.scenes_retell import left_to_right, retell
from singlestream.data.sources.scenes_tasks import TASKS, TaskSource
from singlestream.data.sources.scenes_truth import Untrue, hold, read, seen
from singlestream.data.sources.scenes_world import (
    CANVAS,
    COLOURS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    relations,
    sample_scene,
    scene_number,
)

SPLITS = ("train", "validation", "test", "test_composition")
AUGMENT = {"left_to_right": left_to_right, "retell": retell}
REGION_CLASSES = {"colour": COLOURS, "shape": SHAPES, "size": SIZES}
VERSION = "1.1.0"  # of the records: change it whenever other records come out of the same options
REGION_SIDE = 12  # pixels; a region's features are so many squared, times three colours
_BYTES_PER_SCENE = 10_000
_LEVELLED = 500  # scenes whose answers are kept level together
_DRAWN = 50  # scenes that are drawn together: more would leave the processor's cache


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """`config.data.options` of Scenes: the seed of the data, how many pictures each split has, how they are given."""

    seed: int = 0
    train_scenes: int = 20000
    validation_scenes: int = 500
    test_scenes: int = 1000
    composition_scenes: int = 1000
    regions: bool = False  # pictures also as regions, one a thing, as a perfect detector would find them
    task: str = ""  # texts of another task in place of the questions and captions: one of `scenes_tasks.TASKS`

    def __post_init__(self) -> None:
        for name in ("seed", *(f"{split}_scenes" for split in ("train", "validation", "test", "composition"))):
            value, least = getattr(self, name), 0 if name == "seed" else 1
            if value < least:
                raise ValueError(f"config.data.options.{name}={value}: must be at least {least}")
        if self.task and self.task not in TASKS:
            raise ValueError(f"config.data.options.task={self.task!r}: choose one of {', '.join(TASKS)}")

    @property
    def sizes(self) -> dict[str, int]:
        """Pictures of each split."""
        return dict(
            zip(
                SPLITS,
                (self.train_scenes, self.validation_scenes, self.test_scenes, self.composition_scenes),
                strict=True,
            )
        )

    @property
    def name(self) -> str:
        """A short name of these options: the folder's name, so that other options make another folder."""
        made = {name: value for name, value in dataclasses.asdict(self).items() if name not in ("regions", "task")}
        return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:12]


def describe(options: Options, split: str) -> Iterator[tuple[Scene, list[Said]]]:
    """The scenes of a split and what is said about them, the same every time."""
    for start in range(0, options.sizes[split], _LEVELLED):
        rng = random.Random(f"scenes {VERSION} {options.seed} {split} {start}")
        balance = Balance(rng)
        for _ in range(min(_LEVELLED, options.sizes[split] - start)):
            scene = sample_scene(rng, split)
            yield scene, [*ask(scene, balance, rng), *caption(scene, rng)]


def generate(options: Options, split: str) -> Iterator[tuple[Scene, list[Said], UInt8[np.ndarray, "48 48 3"]]]:
    """The same with the pictures."""
    light = np.random.default_rng((options.seed, SPLITS.index(split)))
    described = describe(options, split)
    while some := list(itertools.islice(described, _DRAWN)):
        pictures = draw([scene for scene, _ in some], light)
        for (scene, texts), picture in zip(some, pictures, strict=True):
            yield scene, texts, picture


class ScenesConfig(tfds.core.BuilderConfig):
    """The builder's configuration: `options`, under a name made of them."""

    def __init__(self, options: Options):
        super().__init__(name=f"o{options.name}", version=VERSION, description=repr(options))
        self.options = options


class Scenes(tfds.core.GeneratorBasedBuilder):
    """The builder. `Scenes(config=ScenesConfig(Options()), data_dir=..., file_format="array_record")`."""

    VERSION = tfds.core.Version(VERSION)
    url_infos = None  # nothing is downloaded; TFDS' own look-up needs `importlib_resources`, which it does not install

    def __init__(self, *, progress: bool = False, **kwargs: Any):
        self._show_progress = progress
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(CANVAS, CANVAS, 3), encoding_format="png"),
            "picture": np.int64,  # identifies the scene
            "things": tfds.features.Tensor(  # colour, shape, size, x, y, diameter (pixels) of each
                shape=(None, 6), dtype=np.int64
            ),
            "text": tfds.features.Tensor(shape=(None,), dtype=np.str_),
            "answer": tfds.features.Tensor(shape=(None,), dtype=np.str_),
            "kind": tfds.features.Tensor(shape=(None,), dtype=np.str_),
            "mentions": tfds.features.Tensor(  # number of the text, first and last character + 1, things (bits)
                shape=(None, 4), dtype=np.int64
            ),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), disable_shuffling=True, description=__doc__
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # nothing is downloaded
        config: Any = self.builder_config
        progress = Progress("Scenes", sum(config.options.sizes.values()), show=self._show_progress)
        return {split: self._generate_examples(config.options, split, progress) for split in SPLITS}

    def _generate_examples(
        self, options: Options, split: str, progress: Progress
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, (scene, texts, picture) in enumerate(generate(options, split)):
            mentions = [(i, *mention) for i, said in enumerate(texts) for mention in said.mentions]
            yield (
                key,
                {
                    "image": _png(picture),
                    "picture": scene_number(scene),
                    "things": np.array(scene, np.int64),
                    "text": [said.text for said in texts],
                    "answer": [said.answer for said in texts],
                    "kind": [said.kind for said in texts],
                    "mentions": np.array(mentions, np.int64).reshape(-1, 4),
                },
            )
            progress.advance()


def _png(picture: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """A PNG with stored pixels: noisy pictures hardly shrink, and so it is made and read several times faster."""
    height, width, _ = picture.shape
    lines = np.zeros((height, 1 + width * 3), np.uint8)  # each line begins with its filter, 0: none
    lines[:, 1:] = picture.reshape(height, -1)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines.tobytes(), 0)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


class ScenesSource:
    """One split by random access; reads the records' protocol buffers directly, twice as fast as TFDS decodes them."""

    region_classes = REGION_CLASSES

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, *, regions: bool = False):
        self._split, self._folder, self._regions = split, builder.data_dir, regions
        self._records = builder.as_data_source(split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        self._read(len(self) - 1)  # a file that was cut is found now, not in the middle of a training

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> Record:
        fields, things, boxes = self._read(i)
        with Image.open(io.BytesIO(fields["image"].bytes_list.value[0])) as picture:
            pixels = np.asarray(picture)
        return Record(
            id=f"{self._split}-{i}",
            images=(pixels,),
            texts=self._texts(i, fields, boxes),
            regions=(_find(pixels, things, boxes),) if self._regions else (),
            picture=fields["picture"].int64_list.value[0],
            boxes=boxes,
            classes=things[:, :3].astype(np.int32),
            index=np.zeros(len(things), np.int32),
            relations=np.array(relations(_scene(things)), np.int32).reshape(-1, 2),
        )

    def judge(self, record: Record, text: str) -> dict[str, bool]:
        """Whether a caption is `true` of a record's picture in every word, and `complete`: true, and of every thing."""
        things = seen(record, self.region_classes)
        try:
            hold(not text.endswith("?"), f"{text!r} is a question")
            told = frozenset().union(*read(things, text)[1].values())
        except Untrue:
            return {"true": False, "complete": False}
        return {"true": True, "complete": len(told) == len(things)}

    def texts(self, i: int) -> tuple[Sentence, ...]:
        """The texts of record i, its picture left alone."""
        fields, _, boxes = self._read(i)
        return self._texts(i, fields, boxes)

    def scene(self, i: int) -> Scene:
        """The things of record i, its picture left alone."""
        return _scene(self._read(i)[1])

    def _read(self, i: int) -> tuple[Any, np.ndarray, np.ndarray]:
        """Record i's fields, its things [M, 6] and their boxes [M, 4]."""
        try:
            fields = tf_example_pb2.Example.FromString(self._records[i]).features.feature
        except RuntimeError as error:  # array_record: a file is missing, cut, or its checksum is wrong
            raise _damaged(self._folder, f"record {i} of {self._split}: {error}") from error
        things = np.array(fields["things"].int64_list.value).reshape(-1, 6)
        corner, diameter = things[:, 3:5], things[:, 5:]
        boxes = np.concatenate([corner, corner + diameter], axis=1, dtype=np.float32) / np.float32(CANVAS)
        return fields, things, boxes

    def _texts(self, i: int, fields: Any, boxes: np.ndarray) -> tuple[Sentence, ...]:
        texts, answers, kinds = (
            [value.decode() for value in fields[name].bytes_list.value] for name in ("text", "answer", "kind")
        )
        mentions: list[list[Mention]] = [[] for _ in texts]
        numbers = iter(fields["mentions"].int64_list.value)
        chosen: dict[int, np.ndarray] = {}  # the same few things are named again and again
        for text, start, end, things in zip(numbers, numbers, numbers, numbers, strict=True):
            if things not in chosen:
                chosen[things] = boxes[[k for k in range(len(boxes)) if things >> k & 1]]
            mentions[text].append(Mention(start=start, end=end, boxes=chosen[things]))
        return tuple(
            Sentence(id=f"{self._split}-{i}-{k}", text=text, answer=answer, kind=kind, mentions=tuple(named))
            for k, (text, answer, kind, named) in enumerate(zip(texts, answers, kinds, mentions, strict=True))
        )


def _scene(things: np.ndarray) -> Scene:
    return tuple(Thing(*thing) for thing in things.tolist())


def _find(pixels: UInt8[np.ndarray, "48 48 3"], things: np.ndarray, boxes: np.ndarray) -> RegionFeatures:
    """What a perfect detector would find: of each thing its box, and as features what the picture shows there."""
    # `Image.resize(box=...)` would let the filter read beyond the box.
    crops = (Image.fromarray(pixels[y : y + size, x : x + size]) for x, y, size in things[:, 3:6].tolist())
    shown = [np.asarray(crop.resize((REGION_SIDE, REGION_SIDE), Image.Resampling.BILINEAR)) for crop in crops]
    features = np.stack(shown).reshape(len(shown), -1).astype(np.float32) / np.float32(127.5) - 1
    return RegionFeatures(features=features, boxes=boxes, classes=things[:, :3].astype(np.int32))


def open_split(data: DataConfig, options: Options, split: str, *, progress: bool = True) -> ScenesSource | TaskSource:
    """Opens a split; makes the data of these options first where the folder has none yet.

    Args:
        data: `dir` is the folder of all data; "": in the user's cache folder.
        options: what to make; each choice has a folder of its own in there.
        split: one of SPLITS.
        progress: show how far the making is.

    Raises:
        DataError: the data cannot be written, or is damaged.
    """
    folder = Path(data.dir or default_folder()).expanduser()
    make_once(_builder(folder, options, progress), _BYTES_PER_SCENE * sum(options.sizes.values()))
    builder = _builder(folder, options, progress)  # anew: another process may have made the data since
    if split not in builder.info.splits:
        raise _damaged(builder.data_path, f"it lists no split {split}")
    source = ScenesSource(builder, split, regions=options.regions)
    return TaskSource(source, options.task, split, options.seed) if options.task else source


def _builder(folder: Path, options: Options, progress: bool) -> Scenes:
    config = ScenesConfig(options)
    try:
        with quiet():
            return Scenes(config=config, data_dir=str(folder), file_format="array_record", progress=progress)
    except ParseError as error:
        raise _damaged(folder / "scenes" / config.name / VERSION, str(error)) from error
    except OSError as error:
        raise DataError(f"cannot read the data folder {folder}: {error}; name another by --config.data.dir=") from error


def _damaged(folder: object, reason: str) -> DataError:
    return DataError(f"{folder} is damaged: {reason}; remove that folder and run again, it is made anew")
