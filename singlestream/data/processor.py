"""Records to rows of fixed sizes, and rows to a `Batch`: tokenise, patchify, lay out, and say what the truth is.

A row has T = K * text_length text tokens and N image tokens. Text k of a row lies in columns k * text_length onwards,
so its place does not depend on the lengths of the others; image tokens follow one another, padding is at the end. What
belongs together is said by `segments` and `part` alone (`singlestream.batch`).
"""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from singlestream.batch import NONE, Audio, Batch, Patches, Regions, Spec, Text
from singlestream.config import Config, DataConfig, ModelConfig, ModelSettings
from singlestream.data.audio import AudioTokens, Sound, read_sound
from singlestream.data.edges import Places, arc_edges, join_all, moved, relation_edges
from singlestream.data.json_file import read_json
from singlestream.data.published import published_data, write_picture_settings
from singlestream.data.record import DETECTED, DataError, Record, Sentence, Source
from singlestream.data.survey import survey
from singlestream.data.targets import (
    MAX_ANSWERS,
    MAX_BOXES,
    answer_points,
    detected_classes,
    detected_distribution,
    label_points,
    labels_of,
    put_mentions,
    region_targets,
)
from singlestream.data.text import Tokenizer, Tokens
from singlestream.data.visual import Visual, image_tokens

Row = dict[str, np.ndarray]
Entry = tuple[Record, Sequence[Sentence]]


@dataclasses.dataclass(kw_only=True)
class Processor:
    """What turns records into rows, and is kept with a run: vocabulary, answers, and the classes of regions."""

    data: DataConfig
    model: ModelConfig
    tokenizer: Tokenizer
    answers: tuple[str, ...] = ()
    region_classes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    mentions: bool = False  # whether the source knows what words speak of
    annotators: bool = False  # whether it knows the answers of several annotators to a question

    def __post_init__(self) -> None:
        self._images = image_tokens(self.data, self.model)
        self._audio = AudioTokens(self.data, self.model) if self.model.audio_dim else None
        self._places = np.arange(self.data.text_length)
        if self.data.task >= 0:
            self._places[2:] -= 1  # words keep their places; the token's own is read by nobody
        self._answer_ids = {answer: i for i, answer in enumerate(self.answers)}

    @classmethod
    def build(cls, config: Config, source: Source, tokenizer: Tokenizer | None = None) -> Processor:
        """Learns answers and, unless a `tokenizer` is given, the vocabulary from every text of the training split.

        The same texts give the same ones.
        """
        found = survey(source)
        sentences = [text for texts in found.texts for text in texts]
        separator = config.data.label_separator
        counts = collections.Counter(label for text in sentences for label in labels_of(text.answer, separator))
        return cls(
            data=config.data,
            model=config.model.inputs,
            tokenizer=tokenizer or Tokenizer.train((text.text for text in sentences), config.data.vocab_size),
            answers=tuple(sorted(a for a, count in counts.items() if count >= config.data.min_answer_count)),
            region_classes={name: tuple(classes) for name, classes in source.region_classes.items()},
            mentions=found.mentions,
            annotators=found.annotators,
        )

    @classmethod
    def from_published(
        cls,
        folder: str | pathlib.Path,
        model: ModelSettings,
        *,
        answers: Sequence[str] = (),
        rows: Mapping[str, Any] | None = None,
    ) -> Processor:
        """The processor of a published checkpoint: its own tokenizer, and its own way with pictures.

        Args:
            folder: holds the files of a BERT tokenizer, and `preprocessor_config.json` (or `processor_config.json`)
                where the model reads pixels and prepares them as ViLT does.
            answers: of its head, by id (`id2label` of its config).
            rows: fields of `DataConfig` in which its rows differ from what the folder's files say (`published_data`).

        Raises:
            DataError: a file is missing or damaged, or asks for what is not done here; names it.
        """
        tokenizer = Tokenizer.from_folder(folder)
        data = published_data(pathlib.Path(folder), model.inputs, tokenizer.reading.max_length)
        data = dataclasses.replace(data, **(rows or {}))
        return cls(data=data, model=model.inputs, tokenizer=tokenizer, answers=tuple(answers))

    def save_pretrained(self, folder: str | pathlib.Path) -> None:
        """Writes the files that `from_published`, and `transformers`, read into an existing folder."""
        self.tokenizer.save(folder)
        if self.data.shorter_side:
            write_picture_settings(pathlib.Path(folder), self.data.shorter_side, self.model.patch_size)

    def save(self, folder: str | pathlib.Path) -> None:
        """Writes the tokenizer's files, `answers.json` and `spec.json` into an existing folder."""
        folder = pathlib.Path(folder)
        self.tokenizer.save(folder)
        (folder / "answers.json").write_text(json.dumps(self.answers, indent=1) + "\n", encoding="utf-8")
        spec = {"region_classes": self.region_classes, "mentions": self.mentions, "annotators": self.annotators}
        (folder / "spec.json").write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def from_folder(cls, folder: str | pathlib.Path, config: Config) -> Processor:
        """The processor that `save` wrote.

        Raises:
            DataError: a file is missing or damaged; names it.
        """
        folder = pathlib.Path(folder)
        spec = read_json(folder / "spec.json", dict)
        answers = read_json(folder / "answers.json", list)
        if not {"region_classes", "mentions"} <= set(spec):
            raise DataError(f"{folder / 'spec.json'}: expected the keys region_classes and mentions")
        return cls(
            data=config.data,
            model=config.model.inputs,
            tokenizer=Tokenizer.from_folder(folder),
            answers=tuple(answers),
            region_classes={name: tuple(classes) for name, classes in spec["region_classes"].items()},
            mentions=spec["mentions"],
            annotators=spec.get("annotators", False),  # runs of before have none
        )

    @property
    def spec(self) -> Spec:
        tokenizer = self.tokenizer
        return Spec(
            vocab_size=tokenizer.vocab_size,
            pad_id=tokenizer.pad_id,
            unk_id=tokenizer.unk_id,
            cls_id=tokenizer.cls_id,
            sep_id=tokenizer.sep_id,
            mask_id=tokenizer.mask_id,
            num_answers=len(self.answers),
            region_classes=tuple(len(classes) for classes in self.region_classes.values()),
            continuations=tokenizer.continuations,
        )

    @property
    def num_examples(self) -> int:
        """K, examples of a row at most."""
        return self.data.texts_per_row * self.data.examples_per_row * self.data.apart

    @property
    def num_segments(self) -> int:
        """Segments of a row at most."""
        return self.num_examples // (1 if self.data.copies else self.data.texts_per_row)

    @property
    def num_patches(self) -> int:
        """N, image tokens of a row: patches or regions."""
        pictures = max(self.model.num_images, self.data.apart) * self.data.examples_per_row
        copies = self.data.texts_per_row if self.data.copies else 1
        return self.data.row_patches or self.data.max_patches * pictures * copies

    def count_patches(self, record: Record) -> int:
        """Image tokens that the record takes."""
        return self._images.count(record)

    def tokens(self, text: str) -> Tokens:
        """A text as the model reads it: with what `data.task` and `data.mask_last` put beside its words.

        Raises:
            DataError: the text holds no word.
        """
        opening = (self.tokenizer.vocab_size + self.data.task,) if self.data.task >= 0 else ()
        ending = (self.tokenizer.mask_id,) if self.data.mask_last else ()
        return self.tokenizer.encode(text, self.data.text_length, opening=opening, ending=ending)

    def truncates(self, text: str) -> bool:
        """Whether the text is longer than `data.text_length` tokens, and its end is not read.

        Raises:
            DataError: the text holds no word.
        """
        return self.tokens(text).truncated

    def unpacked(self) -> Processor:
        """The same processor with one record a row, as evaluation wants it."""
        data = dataclasses.replace(self.data, examples_per_row=1, row_patches=0)
        return dataclasses.replace(self, data=data)

    def without_targets(self) -> Processor:
        """The same processor whose rows say nothing about answers, boxes and classes, as inference wants it."""
        return dataclasses.replace(self, mentions=False, answers=(), region_classes={})

    def row(self, entries: Sequence[Entry]) -> Row:
        """One row of fixed sizes.

        Args:
            entries: the records of the row (at most `data.examples_per_row`; fewer leave padding), each with the texts
                that it is read with (at most `data.texts_per_row`; none: a picture alone).

        Raises:
            DataError: names the record: an empty text, more pictures than `model.num_images`, other region classes,
                region features that the model does not read, more edges than `data.max_edges`.
        """
        row = self._empty_row()
        start = heard = joined = 0
        for e, (record, sentences) in enumerate(entries):
            for number, (shown, texts) in enumerate(self._segments(record, sentences)):
                segment = e * self.data.apart + number + 1
                # A row has several texts in one segment, or several segments of one text.
                for p, sentence in enumerate(texts or (None,)):
                    k, shared = segment - 1 + p, self.data.texts_per_row > 1 and not self.data.copies
                    row["examples"][k] = segment, p + 1 if shared else 0
                    row["example_mask"][k] = True
                    row["picture"][k] = record.picture
                    if sentence is not None:
                        self._put_text(row, k, record, sentence)
                first = min(number, self.model.num_images - 1) if self.data.apart > 1 else 0
                begin, start = start, self._put_images(row, start, segment, shown, first)
                heard = self._put_audio(row, heard, segment, shown)
                if self.model.attention.reads_edges:
                    joined = self._put_edges(row, joined, segment - 1, (shown, texts), slice(begin, start))
        return row

    def _segments(self, record: Record, sentences: Sequence[Sentence]) -> Sequence[Entry]:
        """What shares a segment: a record with its texts, with one of them, or one of its pictures with the text."""
        apart, reads_regions = self.data.apart, self.model.image_stem == "regions"
        if self.data.copies:
            return [(record, [sentence]) for sentence in sentences] or [(record, [])]
        if apart == 1:
            return [(record, sentences)]
        shown = record.regions if reads_regions else record.images
        if len(shown) != apart:
            raise DataError(
                f"record {record.id} has {len(shown)} {'sets of region features' if reads_regions else 'pictures'}, "
                f"config.data.apart is {apart}"
            )
        return [(record.alone(i), [sentence.about(i) for sentence in sentences]) for i in range(apart)]

    def batch(self, rows: Sequence[Row]) -> Batch:
        """Rows of equal sizes as one batch of numpy arrays."""
        stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        groups: dict[str, dict[str, Any]] = {"text": {}, "image": {}, "audio": {}, "targets": {}, "": {}}
        for name, value in stacked.items():
            group, _, field = name.rpartition("/")
            groups[group][field] = value
        text = Text(**groups["text"], slots=self.num_examples)
        image = Regions if "features" in groups["image"] else Patches
        inputs: dict[str, Text | Patches | Regions | Audio] = {"text": text, "image": image(**groups["image"])}
        if groups["audio"]:
            inputs["audio"] = Audio(**groups["audio"])
        return Batch(inputs=inputs, targets=groups["targets"], pictures=self.num_segments, **groups[""])

    def batch_of(
        self,
        images: Sequence[Visual | Sequence[Visual]],
        texts: Sequence[str],
        sounds: Sequence[Sound | None] | None = None,
    ) -> Batch:
        """A batch of one picture (or the several of one example) and one text a row, from whatever holds pictures.

        Args:
            images: a path, PIL image or array for each row, or a sequence of them where an example has several. Where
                the model reads regions: `RegionFeatures`, features [N, F], or a file .npz or .npy (`read_regions`).
            texts: a text for each row.
            sounds: what each row hears (`read_sound`), where the model reads audio; None: nothing.

        Raises:
            DataError: names what cannot be read, and which row; the model reads edges, of which there are none here.
        """
        if len(images) != len(texts) or not texts:
            raise DataError(f"{len(images)} images and {len(texts)} texts: expected one text for each image")
        sounds = [None] * len(texts) if sounds is None else sounds
        if len(sounds) != len(texts):
            raise DataError(f"{len(sounds)} sounds and {len(texts)} texts: expected one sound (or None) for each text")
        data = dataclasses.replace(self.data, examples_per_row=1, row_patches=0, texts_per_row=1)
        plain = dataclasses.replace(self.without_targets(), data=data)
        records = [plain.record_of(*each, number=i) for i, each in enumerate(zip(images, texts, sounds, strict=True))]
        return plain.batch([plain.row([(record, record.texts)]) for record in records])

    def record_of(
        self, image: Visual | Sequence[Visual], text: str, sound: Sound | None = None, *, number: int = 0
    ) -> Record:
        """The record of a row of `batch_of`.

        Raises:
            DataError: the picture or the sound cannot be read (names it, or its number), the model reads no audio, or
                it reads edges.
        """
        if self.model.attention.reads_edges:
            raise DataError(
                "config.model.attention.graph='edges': the model reads which objects and words are joined, and a "
                "picture and a text alone do not tell; evaluate a split by eval.py, or give the module a batch with "
                "targets['edges']"
            )
        sentence = Sentence(id=f"{number}", text=text)
        given = self._images.given(image, f"image {number}")
        if sound is not None and self._audio is None:
            raise DataError(f"sound {number}: the model reads no audio (config.model.audio_dim=0), leave it out")
        heard = None if sound is None else read_sound(sound, rate=self.data.audio_rate, name=f"sound {number}")
        return Record(id=f"{number}", texts=(sentence,), picture=number + 1, sound=heard, **given)

    def _empty_row(self) -> Row:
        t, n, k = self.num_examples * self.data.text_length, self.num_patches, self.num_examples
        ints = {f"text/{name}": np.zeros(t, np.int32) for name in ("positions", "types", "segments", "part")}
        ints |= {f"image/{name}": np.zeros(n, np.int32) for name in ("index", "segments", "part")}
        row: Row = {
            "text/ids": np.full(t, self.tokenizer.pad_id, np.int32),
            **ints,
            **{f"image/{name}": value for name, value in self._images.empty(n).items()},
            "examples": np.zeros((k, 2), np.int32),
            "example_mask": np.zeros(k, bool),
            "picture": np.zeros(k, np.int32),
        }
        if self._audio is not None:
            row |= {f"audio/{name}": value for name, value in self._audio.empty().items()}
        if self.answers:
            row["targets/answer"] = np.full(k, -1, np.int32)
        if self.answers and (self.annotators or self.data.label_separator):
            row["targets/answer_ids"] = np.full((k, MAX_ANSWERS), -1, np.int32)
            row["targets/answer_points"] = np.zeros((k, MAX_ANSWERS), np.float32)
        if self.mentions:
            row["targets/word_boxes"] = np.zeros((t, MAX_BOXES, 4), np.float32)
        if self.region_classes:
            row["targets/region_class"] = np.full((n, len(self.region_classes)), -1, np.int32)
        if DETECTED in self.region_classes:
            size = 1 + len(self.region_classes[DETECTED])
            row["targets/region_distribution"] = np.zeros((n, size), np.float32)
        if self._knows_centres:
            row["targets/region_centre"] = np.full((n, 2), -1, np.float32)
        if self.model.attention.reads_edges:
            row["targets/edges"] = np.full((k * self.data.max_edges, 2), NONE, np.int32)
        return row

    def _put_text(self, row: Row, k: int, record: Record, sentence: Sentence) -> None:
        """Lays the k-th example's text, and what is known about it."""
        try:
            tokens = self.tokens(sentence.text)
        except DataError as error:
            raise DataError(f"record {record.id}, text {sentence.id}: {error}") from error
        first = k * self.data.text_length
        here = slice(first, first + len(tokens.ids))
        row["text/ids"][here] = tokens.ids
        row["text/positions"][here] = self._places[: len(tokens.ids)]
        row["text/segments"][here], row["text/part"][here] = row["examples"][k]
        if self.answers and sentence.answer:
            row["targets/answer"][k] = self._answer_ids.get(sentence.answer, len(self.answers))
        if self.answers and self.data.label_separator:
            found = label_points(self._answer_ids, labels_of(sentence.answer, self.data.label_separator), sentence)
            row["targets/answer_ids"][k], row["targets/answer_points"][k] = found
        elif self.answers and sentence.answers and self.annotators:
            found = answer_points(self._answer_ids, sentence.answers)
            row["targets/answer_ids"][k], row["targets/answer_points"][k] = found
        if self.mentions:
            put_mentions(row["targets/word_boxes"][here], tokens.spans, sentence)

    @property
    def _knows_centres(self) -> bool:
        """Whether rows say where the object under each image token lies: of patches, where the source knows it."""
        return bool(self.region_classes) and self.model.image_stem != "regions"

    def _put_images(self, row: Row, start: int, segment: int, record: Record, first: int) -> int:
        """Lays the record's pictures from image token `start` on; returns where the next begins.

        Args:
            first: number of the first of them in its example.
        """
        for number, fields in enumerate(self._images.read(record)):
            here = slice(start, start + len(next(iter(fields.values()))))
            if here.stop > self.num_patches:
                raise DataError(
                    f"record {record.id}: its pictures do not fit the row's {self.num_patches} image tokens; raise "
                    "config.data.row_patches or lower config.data.max_patches"
                )
            for name, value in fields.items():
                row[f"image/{name}"][here] = value
            row["image/index"][here] = first + number
            row["image/segments"][here] = segment
            if self.region_classes and not self._knows_centres:
                row["targets/region_class"][here] = detected_classes(
                    record, number, self.data, len(self.region_classes)
                )
            if DETECTED in self.region_classes:
                row["targets/region_distribution"][here] = detected_distribution(
                    record, number, self.data, len(self.region_classes[DETECTED])
                )
            if self._knows_centres:
                rows, cols = fields["grid"][0]
                targets = region_targets(record, number, (int(rows), int(cols)), len(self.region_classes))
                if targets is not None:
                    row["targets/region_class"][here], row["targets/region_centre"][here] = targets
            start = here.stop
        return start

    def _put_edges(self, row: Row, start: int, k: int, entry: Entry, here: slice) -> int:
        """Lays what joins the tokens of a segment from edge `start` on; returns where the next begins.

        Args:
            k: number in the row of the segment's first text.
            entry: what is in the segment.
            here: its image tokens.
        """
        record, texts = entry
        places, first = self._places_of(row, here), len(row["text/ids"]) + here.start
        shown, found = places.objects(record), []
        if self.data.mean_region:  # which stands for the whole picture
            _, means = np.unique(places.index, return_index=True)
            shown[means] = NONE
            found.append(moved(join_all(means), first))
        # Regions without boxes have their picture's in the row: which objects they show is not known.
        known = self.model.image_stem != "regions" or all(each.boxes is not None for each in record.regions)
        found.append(moved(relation_edges(shown, record.relations if known else None), first))
        for number, text in enumerate(texts, start=k):
            found.append(moved(arc_edges(self.tokens(text.text).spans, text), number * self.data.text_length))
        edges, most = np.concatenate(found), self.data.max_edges * max(1, len(texts))
        if len(edges) > most:
            raise DataError(
                f"record {record.id}: {len(edges)} edges, and with {max(1, len(texts))} texts there may be {most}: "
                "raise config.data.max_edges"
            )
        row["targets/edges"][start : start + len(edges)] = edges
        return start + len(edges)

    def _places_of(self, row: Row, here: slice) -> Places:
        """Where the image tokens of a segment lie, whose pictures count from 0."""
        index = row["image/index"][here]
        index = index - index[:1]
        if self.model.image_stem == "regions":
            return Places(index=index, boxes=row["image/boxes"][here])
        return Places(index=index, grid=row["image/grid"][here])

    def _put_audio(self, row: Row, start: int, segment: int, record: Record) -> int:
        """Lays the record's sound from audio token `start` on; returns where the next begins."""
        if self._audio is None:
            return start
        features = self._audio.read(record)
        here = slice(start, start + len(features))
        row["audio/features"][here], row["audio/segments"][here] = features, segment
        row["audio/time"][here] = np.arange(len(features))
        return here.stop
