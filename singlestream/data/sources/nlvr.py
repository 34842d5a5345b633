"""NLVR: is this sentence true of these three boxes? (Suhr et al. 2017, https://github.com/lil-lab/nlvr, CC BY 4.0)

`config.data.dir` is the dataset's folder in its official layout, or the archive `nlvr.tar.gz` of it, which is read
where it lies (once, into memory; nothing is unpacked to disk). An example is three pictures, one for each box of its
400x100 drawing, and one sentence with the answer "true" or "false".

Splits go by the field `directory`, as its authors ask: examples that share a sentence lie in one directory, and of an
identifier n-m the m predicts the answer at 93%, so neither takes part in anything. `train` is `train/train.json` (or,
where that is absent, the thousand labelled pairs that `train/examples.html` shows) and the directories 0 to 3 of dev;
`validation` is the other directories of dev; `test` is the official public test set.

What the pictures show is known for dev and test (`structured_rep`): it is given as `boxes` and `classes`, and reaches
the model only through an objective that asks for it (`locate`). A text's `kind` says whether its sentence is "seen" in
training or "new".
"""

from __future__ import annotations

import dataclasses
import functools
import html
import io
import json
import pathlib
import re
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from singlestream.config import DataConfig
from singlestream.data.image import read_image
from singlestream.data.record import DataError, Record, Sentence

SPLITS = ("train", "validation", "test")
VALIDATION_DIRECTORIES = ("4", "5")  # of dev
NUM_BOXES = 3
COLOURS = {"black": "black", "yellow": "yellow", "#0099ff": "blue"}  # as structured_rep names them
SHAPES = ("circle", "square", "triangle")
SIZES = (10, 20, 30)  # pixels; a box has 100
REGION_CLASSES = {"colour": tuple(COLOURS.values()), "shape": SHAPES, "size": ("small", "medium", "large")}

EXPECTED = "dev/dev.json, test/test.json, train/train.json or train/examples.html, and the images beside them"
PAIR = re.compile(r'<img src="[^"]*/images/(\w+)/(train-[\w-]+)\.png"\s*/?>\s*<br />(.*?)<br />(true|false)<br />')


@dataclasses.dataclass(frozen=True)
class Options:
    """NLVR has no settings of its own."""


@dataclasses.dataclass(frozen=True)
class Example:
    """One line of the dataset; `structure` is its `structured_rep`, None where it is not published."""

    id: str
    image: str  # path within the dataset
    sentence: str
    label: str
    directory: str
    structure: Any = None


@dataclasses.dataclass(frozen=True)
class Files:
    """The dataset's files: their names relative to its folder, and how to read one."""

    place: str
    names: frozenset[str]
    read: Callable[[str], bytes]


class NLVRSource:
    """One split of NLVR by random access."""

    region_classes: Mapping[str, Sequence[str]] = REGION_CLASSES

    def __init__(self, files: Files, examples: Sequence[Example], seen: frozenset[str]):
        self._files, self._examples, self._seen = files, examples, seen

    def __len__(self) -> int:
        return len(self._examples)

    def texts(self, i: int) -> tuple[Sentence, ...]:
        example = self._examples[i]
        kind = "seen" if _normal(example.sentence) in self._seen else "new"
        group = example.id.rpartition("-")[0]  # of an identifier n-m, n is the sentence's
        return (Sentence(id=example.id, text=example.sentence, answer=example.label, kind=kind, group=group),)

    def __getitem__(self, i: int) -> Record:
        example = self._examples[i]
        name = f"{self._files.place}: {example.image} (record {example.id})"
        if example.image not in self._files.names:
            raise DataError(f"{name}: no such image file")
        with _opened(self._files.read(example.image), name) as image:
            boxes = pictures(read_image(image, name), name)
        return Record(id=example.id, images=boxes, texts=self.texts(i), picture=i + 1, **_regions(example))


def open_split(data: DataConfig, options: Options, split: str, *, progress: bool = True) -> NLVRSource:
    """Opens a split; `progress` is not needed, reading the archive takes a second.

    Raises:
        DataError: no such place, another layout (what was expected and what is there), or a damaged file.
    """
    files = _open_files(data.dir)
    train = _read_train(files)
    dev = _read_json(files, "dev/dev.json")
    held_out = [example for example in dev if example.directory in VALIDATION_DIRECTORIES]
    train += [example for example in dev if example.directory not in VALIDATION_DIRECTORIES]
    seen = frozenset(_normal(example.sentence) for example in train)
    if split == "test":
        return NLVRSource(files, _read_json(files, "test/test.json"), seen)
    return NLVRSource(files, train if split == "train" else held_out, seen)


def pictures(image: UInt8[np.ndarray, "H W 3"], name: str = "the image") -> tuple[UInt8[np.ndarray, "h w 3"], ...]:
    """The three boxes of a drawing, left to right; of any scale, as long as it is four times as wide as high.

    Raises:
        DataError: another aspect.
    """
    height, width = image.shape[:2]
    if abs(width - 4 * height) > width / 20:
        raise DataError(
            f"{name}: a picture of {width} x {height}; NLVR's three boxes make one of 400 x 100, or that scaled"
        )
    side = width / 4
    return tuple(
        np.ascontiguousarray(image[:, round(1.5 * side * i) : round(1.5 * side * i + side)]) for i in range(NUM_BOXES)
    )


def box_order(record: Record, rng: np.random.Generator) -> Record:
    """One of the six orders of the boxes; no answer depends on it (Suhr et al. 2017, section 3)."""
    order = rng.permutation(len(record.images))
    return dataclasses.replace(
        record,
        images=tuple(record.images[i] for i in order),
        index=np.argsort(order)[record.index].astype(np.int32),
    )


AUGMENT = {"box_order": box_order}


def _regions(example: Example) -> dict[str, Any]:
    """`boxes`, `classes` and `index` of the objects, where the dataset says what is there."""
    if example.structure is None:
        return {}
    boxes, classes, index = [], [], []
    try:
        for number, objects in enumerate(example.structure):
            for thing in objects:
                x, y, size = thing["x_loc"], thing["y_loc"], thing["size"]
                boxes.append((x, y, x + size, y + size))
                colour = list(COLOURS).index(thing["color"].lower())
                classes.append((colour, SHAPES.index(thing["type"]), SIZES.index(size)))
                index.append(number)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"record {example.id}: its structured_rep is not as in NLVR ({error!r})") from error
    return {
        "boxes": (np.array(boxes, np.float32).reshape(-1, 4) / 100).clip(0, 1),
        "classes": np.array(classes, np.int32).reshape(-1, len(REGION_CLASSES)),
        "index": np.array(index, np.int32),
    }


def _normal(sentence: str) -> str:
    return " ".join(re.findall(r"\w+", sentence.lower()))


def _read_train(files: Files) -> list[Example]:
    if "train/train.json" in files.names:
        return _read_json(files, "train/train.json")
    text = _read_text(files, "train/examples.html")
    found = PAIR.findall(text)
    if not found or len(found) != text.count("<img"):
        raise DataError(
            f"{files.place}: train/examples.html shows {text.count('<img')} images, {len(found)} of them with a "
            "sentence and true or false: it is damaged or another page"
        )
    return [
        Example(name, f"train/images/{directory}/{name}.png", html.unescape(sentence).strip(), label, directory)
        for directory, name, sentence, label in found
    ]


def _read_json(files: Files, path: str) -> list[Example]:
    """The examples of one of the official files: a JSON object a line."""
    split = path.split("/")[0]
    examples = []
    for number, line in enumerate(_read_text(files, path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            name, label = f"{split}-{value['identifier']}", value["label"]
            directory, sentence = str(value["directory"]), str(value["sentence"])
            if label not in ("true", "false"):
                raise ValueError(f"label {label!r}")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{files.place}: {path}, line {number} is no example of NLVR ({error!r})") from error
        # The boxes have six orders; order 0 is the one that structured_rep describes.
        image = f"{split}/images/{directory}/{name}-0.png"
        examples.append(Example(name, image, sentence, label, directory, value.get("structured_rep")))
    if not examples:
        raise DataError(f"{files.place}: {path} holds no example")
    return examples


def _read_text(files: Files, path: str) -> str:
    try:
        return files.read(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{files.place}: {path} is no text file ({error})") from error


def _opened(content: bytes, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{name}: not a readable image ({error})") from error


def _open_files(place: str) -> Files:
    if not place:
        raise DataError(
            "config.data.dir is empty: NLVR is not downloaded, give its folder or nlvr.tar.gz "
            "(https://github.com/lil-lab/nlvr, directory nlvr)"
        )
    path = pathlib.Path(place).expanduser()
    if path.is_dir():
        return _checked(_folder(path))
    if path.is_file():
        stat = path.stat()
        return _checked(_archive(path, stat.st_size, stat.st_mtime_ns))
    raise DataError(f"{path}: no such folder or archive (config.data.dir)")


def _folder(path: pathlib.Path) -> Files:
    archive = path / "nlvr.tar.gz"
    if archive.is_file() and not (path / "dev").is_dir() and not (path / "nlvr").is_dir():
        return _archive(archive, archive.stat().st_size, archive.stat().st_mtime_ns)
    root = path / "nlvr" if not (path / "dev").is_dir() and (path / "nlvr").is_dir() else path
    names = frozenset(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())

    def read(name: str) -> bytes:
        try:
            return (root / name).read_bytes()
        except OSError as error:
            raise DataError(f"{root / name}: cannot be read ({error})") from error

    return Files(str(root), names, read)


@functools.lru_cache(maxsize=1)
def _archive(path: pathlib.Path, size: int, modified: int) -> Files:
    """What the splits need of an archive, 10 MB; size and time of change tell the cache when it is another one."""
    contents: dict[str, bytes] = {}
    try:
        # Not as a stream ("r|*"): that takes a file which was cut within a member's header for a whole one.
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = member.name.removeprefix("./").removeprefix("nlvr/")
                other_order = re.search(r"^(dev|test)/.*-[1-5]\.png$", name)
                if member.isfile() and not other_order:
                    contents[name] = archive.extractfile(member).read()  # type: ignore[union-attr]
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a readable archive ({error})") from error
    return Files(str(path), frozenset(contents), contents.__getitem__)


def _checked(files: Files) -> Files:
    """Raises DataError where the layout is another one."""
    train = {"train/train.json", "train/examples.html"} & files.names
    if {"dev/dev.json", "test/test.json"} <= files.names and train:
        return files
    found = sorted({"/".join(name.split("/")[:2]) for name in files.names})
    listed = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "") if found else "nothing"
    raise DataError(f"{files.place} is not NLVR: expected {EXPECTED}; found {listed}")
