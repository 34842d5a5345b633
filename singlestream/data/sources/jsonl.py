"""Your own questions or captions, a line of JSON each, about pictures in files or about their region features.

`config.data.dir` is a folder with `train.jsonl`, `validation.jsonl` and, for evaluation, `test.jsonl`. A line is

    {"image": "cat.jpg", "question": "what is it?", "answer": "a cat"}      or with "caption" in place of the two
    {"image": ["left.png", "right.png"], "question": ..., "answer": ...}    several pictures
    {"image": "cat.jpg", "question": "what is it?", "answer": null}         asked without a known answer
    {"image": "cat.jpg", "question": "what is it?", "answers": [...]}       what at least four annotators answered
    {"image": null, "caption": "a text"}        {"image": "cat.jpg", "caption": null}        a text, or a picture, alone

and may have an "id", a "kind" (by which results are listed) and a "group" (of texts that belong together, see below);
other keys are not read. Pictures lie in `options.images`, seen from that folder. With `options.features` (a table .tsv,
or a folder: see `data/features.py`) nothing is read from pictures: "image" is a name there, with or without the ending
of the picture's file.

A line is a record. Where a row has several texts (`config.data.texts_per_row` above 1), a record is a picture with all
its lines of one group, say the answers to choose from of one question. Evaluation also counts in how many groups every
answer is right.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from singlestream.config import DataConfig
from singlestream.data.features import detected_classes, open_features
from singlestream.data.image import read_image
from singlestream.data.official_vqa import ENOUGH, points
from singlestream.data.record import DataError, Record, RegionFeatures, Sentence

SPLITS = ("train", "validation", "test")
FORMS: tuple[Set[str], ...] = ({"question", "answer"}, {"question", "answers"}, {"caption"})  # of a line's text
FEWEST = ENOUGH + 1  # annotators: of fewer, who leave one out each, none could be wholly right


@dataclasses.dataclass(frozen=True)
class Options:
    """Keys of `config.data.options`."""

    images: str = ""  # folder of the pictures, seen from `config.data.dir`; "": that folder itself
    features: str = ""  # region features to read in place of pictures: a table or a folder, seen from there
    distribution: bool = False  # also read a detector's class probabilities there, for `mrm`


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the file: `where` is what errors call it, `images` are names as they stand there."""

    where: str
    id: str
    images: tuple[str, ...]
    text: Sentence | None


class JsonlSource:
    """One split by random access; `features` is None where pictures are read from `folder`."""

    def __init__(
        self,
        groups: Sequence[Sequence[Line]],
        folder: pathlib.Path,
        features: Mapping[str, RegionFeatures] | None,
        region_classes: Mapping[str, Sequence[str]],
    ):
        self._groups, self._folder, self._features = groups, folder, features
        self.region_classes = region_classes
        shown = dict.fromkeys(group[0].images for group in groups if group[0].images)
        numbers = {(): 0, **{images: i for i, images in enumerate(shown, start=1)}}
        self._pictures = [numbers[group[0].images] for group in groups]

    def __len__(self) -> int:
        return len(self._groups)

    def texts(self, i: int) -> tuple[Sentence, ...]:
        return tuple(line.text for line in self._groups[i] if line.text)

    def __getitem__(self, i: int) -> Record:
        first = self._groups[i][0]
        shown: dict[str, Any] = {"images": (), "files": first.images}
        try:
            if self._features is None or not first.images:
                shown["images"] = tuple(read_image(self._folder / name) for name in first.images)
            else:
                shown["regions"] = tuple(self._features[_key(self._features, name)] for name in first.images)
        except DataError as error:
            raise DataError(f"{first.where}: {error}") from error
        return Record(id=first.id, texts=self.texts(i), picture=self._pictures[i], **shown)


def open_split(data: DataConfig, options: Options, split: str, *, progress: bool = True) -> JsonlSource:
    """Opens a split; `progress` is not needed.

    Raises:
        DataError: no such file, a line that is no example, or one whose pictures are not there; names the line.
    """
    if not data.dir:
        raise DataError(
            "config.data.dir is empty: source 'jsonl' needs the folder that holds train.jsonl and the others"
        )
    folder = pathlib.Path(data.dir).expanduser()
    path = folder / f"{split}.jsonl"
    lines = list(_read(path))
    if not lines:
        raise DataError(f"{path}: holds no line")
    features = None
    if options.features:
        features = open_features(folder / options.features, distribution=options.distribution)
    pictures = folder / options.images
    _check_pictures(lines, pictures, features)
    groups: dict[Any, list[Line]] = {}
    for number, line in enumerate(lines):
        shared = data.texts_per_row > 1 and line.images
        key = (line.images, line.text.group) if shared and line.text else number
        groups.setdefault(key, []).append(line)
    shown = next((line.images[0] for line in lines if line.images), "")
    region_classes = detected_classes(features, _key(features or {}, shown)) if options.distribution and shown else {}
    return JsonlSource(list(groups.values()), pictures, features, region_classes)


def _read(path: pathlib.Path) -> Iterator[Line]:
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; config.data.dir has to hold train.jsonl, validation.jsonl and test.jsonl"
        )
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, content in enumerate(file, start=1):
                if content.strip():
                    yield _parse(content, f"{path}, line {number}", f"{path.stem}-{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}, after line {number}: cannot be read ({error})") from error


def _parse(content: str, where: str, name: str) -> Line:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: no JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f'{where}: expected an object {{"image": ..., "question": ..., "answer": ...}}')
    images = value.get("image", "")
    images = [images] if isinstance(images, str) else images
    alone = images is None and value.get("caption") is not None
    named = isinstance(images, list) and images and all(isinstance(each, str) and each for each in images)
    if not alone and not named:
        raise DataError(
            f'{where}: "image" is {value.get("image")!r}, expected the name of a file or a list of names, or null '
            'beside a "caption" that is a text alone'
        )
    if value.keys() & set().union(*FORMS) not in FORMS:
        raise DataError(
            f'{where}: expected either "question" with "answer" or "answers", or "caption"; found {", ".join(value)}'
        )
    name = str(value.get("id", name))
    if value.get("caption", "") is None:
        return Line(where, name, tuple(images), None)
    text = Sentence(
        id=name,
        text=_string(value, "caption" if "caption" in value else "question", where),
        **_answer(value, where),
        kind=str(value.get("kind", "")),
        group=str(value.get("group", "")),
    )
    return Line(where, name, tuple(images or ()), text)


def _answer(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of `Sentence` about the answer: none of a caption; of several annotators the one with most points."""
    if "answers" in value:
        given = value["answers"]
        if not isinstance(given, list) or len(given) < FEWEST or not all(_is_text(each) for each in given):
            raise DataError(
                f'{where}: "answers" is {given!r}, expected the answers of at least {FEWEST} annotators, each a text '
                'that is not empty; give one answer as "answer"'
            )
        return {"answer": next(filter(None, points(given)), given[0]), "answers": tuple(given)}
    if "caption" in value:
        return {}
    return {"answer": None if value["answer"] is None else _string(value, "answer", where)}


def _string(value: Mapping[str, Any], key: str, where: str) -> str:
    found = value[key]
    if not _is_text(found):
        raise DataError(f'{where}: "{key}" is {found!r}, expected a text in quotes that is not empty')
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _check_pictures(lines: Sequence[Line], folder: pathlib.Path, features: Mapping[str, RegionFeatures] | None) -> None:
    """A picture that is missing is told before the training, not in the middle of it."""
    wheres: dict[str, str] = {}
    for line in lines:
        for name in line.images:
            wheres.setdefault(name, line.where)
    if features is None:
        missing = [name for name in wheres if not (folder / name).is_file()]
    else:
        missing = [name for name in wheres if _key(features, name) not in features]
    if missing:
        name = missing[0]
        more = f"; {len(missing)} of {len(wheres)} are missing" if len(missing) > 1 else ""
        kind = f"no such image file {folder / name}" if features is None else f"no region features of {name!r}"
        raise DataError(f"{wheres[name]}: {kind}{more}")


def _key(features: Mapping[str, RegionFeatures], name: str) -> str:
    """What the features call the picture: its name, or that without the ending of its file."""
    return name if name in features else pathlib.PurePosixPath(name).stem
