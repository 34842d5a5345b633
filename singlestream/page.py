"""The page of an evaluated run: gathers from data, model and folder what `explain.report` draws."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from singlestream.answers import ACCURACIES, Answered, Evaluation, by_kind
from singlestream.batch import Batch, Patches, Regions
from singlestream.config import ModelConfig, ModelSettings
from singlestream.data.processor import Processor
from singlestream.data.record import Record, Sentence
from singlestream.explain.report import Curve, Example, PointingResult, Report, ResultRow, Share, Word
from singlestream.explain.scores import CalibrationBin, calibration
from singlestream.model.maps import image_to_text, text_to_image
from singlestream.train.metrics import read_rows

NUM_EACH = 12  # examples of right and of wrong answers


def make_report(found: Evaluation) -> Report:
    """Everything on the page; examples are drawn evenly from the kinds of questions."""
    error: float | None = None
    bins: tuple[CalibrationBin, ...] = ()
    if found.judged:
        probability = np.array([each.probability for each in found.judged])
        error, bins = calibration(probability, np.array([each.sentence.score(each.predicted) for each in found.judged]))
    asked = f", {len(found.judged):,} questions" if found.judged else ""
    shown = [each for right in (False, True) for each in choose_examples(found.judged, right=right)]
    config = found.model.config
    return Report(
        title=found.folder.path.name,
        subtitle=f"{config.data.name}, split {found.split}{asked}, checkpoint of step {found.model.step:,}",
        image_token="region" if found.model.config.model.inputs.image_stem == "regions" else "patch",
        facts=_facts(found),
        table=_table(found),
        calibration_error=error,
        bins=bins,
        pointing=_pointing(found),
        curves=make_curves(read_rows(found.folder)),
        other=[(n, v) for n, v in found.metrics.items() if n.endswith("loss") or _is_other_accuracy(n)],
        examples=make_examples(found, shown),
    )


def _is_other_accuracy(name: str) -> bool:
    return name.endswith("accuracy") and not name.startswith("vqa/")


def _facts(found: Evaluation) -> list[tuple[str, str]]:
    config, model = found.model.config, found.model
    sizes, reads = config.model, config.model.inputs
    patches = f"patches of {reads.patch_size} x {reads.patch_size} pixels"
    return [
        ("folder", str(found.folder.path)),
        ("objectives and weights", ", ".join(f"{name} {weight:g}" for name, weight in config.objectives.items())),
        ("parameters", f"{model.num_parameters:,}"),
        ("encoder", _encoder(sizes)),
        (
            "a picture is",
            f"at most {config.data.max_patches} {'regions' if reads.image_stem == 'regions' else patches}",
        ),
        ("the picture reads", "itself and the words" if reads.picture_reads_text else "itself, not the words"),
        ("trained for", f"{config.train.num_steps:,} steps of {config.train.batch_size} rows"),
        ("seed", str(config.seed)),
    ]


def _encoder(sizes: ModelSettings) -> str:
    text = f"{sizes.num_layers} layers, {sizes.num_heads} heads, width {sizes.width}"
    if isinstance(sizes, ModelConfig):
        return text
    image = f"{sizes.image_layers} layers, {sizes.image_heads} heads, width {sizes.image_width}"
    return f"two streams: text {text}; image {image}; {sizes.num_cross} layers that cross"


# ---- figures ---------------------------------------------------------------------------------------------------------


def _share(metrics: Mapping[str, float], key: str) -> Share:
    return Share(value=metrics[key], low=metrics[f"{key}/low"], high=metrics[f"{key}/high"])


def _table(found: Evaluation) -> list[ResultRow]:
    kinds = by_kind(found.judged)
    rows = [("all", "", len(found.judged))] if found.judged else []
    rows += [(kind, f"/{kind}", len(some)) for kind, some in kinds.items()] if len(kinds) > 1 else []
    names = dict(zip(("model", "blind", "majority", "no_image"), ACCURACIES, strict=True))
    return [
        ResultRow(
            kind=kind,
            count=count,
            **{field: _share(found.metrics, f"vqa/{name}{suffix}") for field, name in names.items()},
        )
        for kind, suffix, count in rows
    ]


def _pointing(found: Evaluation) -> PointingResult | None:
    if found.pointing is None or "attention/pointing" not in found.metrics:
        return None
    return PointingResult(
        score=_share(found.metrics, "attention/pointing"),
        chance=found.metrics["attention/pointing_chance"],
        words=int(found.metrics["attention/pointing_words"]),
        layer=found.pointing.layer,
        head=found.pointing.head,
        chosen_on=found.pointing.split,
        by_head=np.asarray(found.pointing.by_head),
    )


def make_curves(rows: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Loss and accuracy, of training and validation, from the rows of `metrics.jsonl`; what was not logged is left out.

    Accuracies of several objectives share one diagram.
    """
    names = sorted({name for row in rows for name in row if name.endswith("accuracy")})
    losses = {split: _line(rows, split, "loss") for split in ("train", "validation")}
    main = "vqa/accuracy" if "vqa/accuracy" in names else next(iter(names), "")
    accuracies = {split: _line(rows, split, main) for split in ("train", "validation")}
    others = {name: _line(rows, "validation", name) for name in names if name != main and "vqa/" not in name}
    curves = [
        Curve(title="Loss, all objectives", lines=losses),
        Curve(title=f"Accuracy ({main})", lines=accuracies, percent=True),
        Curve(title="Other objectives, validation", lines=others, percent=True),
    ]
    drawn = [(c, {name: line for name, line in c.lines.items() if len(line) > 1}) for c in curves]
    return [Curve(title=curve.title, lines=lines, percent=curve.percent) for curve, lines in drawn if lines]


def _line(rows: Iterable[Mapping[str, Any]], split: str, name: str) -> list[tuple[int, float]]:
    return [(int(row["step"]), float(row[name])) for row in rows if row["split"] == split and name in row]


# ---- examples --------------------------------------------------------------------------------------------------------


def choose_examples(answered: Sequence[Answered], *, right: bool, count: int = NUM_EACH) -> list[Answered]:
    """Right or wrong answers, one of each kind in turn; a picture comes again only where a kind has no other."""
    waiting = list(by_kind(each for each in answered if each.correct == right).values())
    chosen: list[Answered] = []
    seen: set[int] = set()
    while waiting and len(chosen) < count:
        questions = waiting.pop(0)
        at = next((i for i, each in enumerate(questions) if each.record not in seen), 0)
        chosen.append(questions.pop(at))
        seen.add(chosen[-1].record)
        if questions:
            waiting.append(questions)
    return chosen


def make_examples(found: Evaluation, shown: Sequence[Answered]) -> list[Example]:
    """The chosen questions with their pictures and attention, each in a row of its own."""
    if not shown:
        return []
    model = found.model
    data = dataclasses.replace(model.processor.data, texts_per_row=1, examples_per_row=1, row_patches=0)
    processor = dataclasses.replace(model.processor, data=data)
    records = [found.source[each.record] for each in shown]
    if not all(record.images for record in records) or not model.config.model.inputs.depth:
        return []  # region features alone: there is no picture to show; late fusion: there is no attention
    batch = processor.batch([processor.row([(r, [each.sentence])]) for r, each in zip(records, shown, strict=True)])

    @jax.jit
    def maps(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        encoded = nnx.merge(model.graphdef, params)(batch, attention=True)
        assert encoded.attention is not None
        weights = encoded.attention
        return text_to_image(weights, batch=batch), image_to_text(weights, batch=batch)

    to_image, to_text = jax.device_get(maps(model.params, batch))
    reads = model.config.model.inputs.picture_reads_text
    return [
        _example(processor, each, record, batch, i, to_image[:, i], to_text[:, i] if reads else None)
        for i, (each, record) in enumerate(zip(shown, records, strict=True))
    ]


def _example(
    processor: Processor,
    each: Answered,
    record: Record,
    batch: Batch,
    row: int,
    to_image: np.ndarray,
    to_text: np.ndarray | None,
) -> Example:
    words, pieces = group_words(processor, each.sentence)
    patches = places(batch.image, row)
    num_patches = len(patches)
    seen = to_image[..., :num_patches]
    return Example(
        id=each.sentence.id,
        kind=each.sentence.kind,
        text=each.sentence.text,
        answer=each.sentence.answer or "",
        predicted=each.predicted,
        probabilities=each.top,
        images=record.images,
        words=words,
        patches=patches,
        # A word looks where its pieces look on average; a patch gives a word what it gives to all of its pieces.
        to_image=np.stack([seen[:, :, piece].mean(axis=2) for piece in pieces], axis=2),
        to_text=None
        if to_text is None
        else np.stack([to_text[:, :, :num_patches][..., piece].sum(axis=-1) for piece in pieces], axis=-1),
    )


def places(image: Patches | Regions, row: int) -> Float[np.ndarray, "N 5"]:
    """(image, x0, y0, x1, y1) of each image token of a row, padding left out."""
    here = np.asarray(image.segments[row]) > 0
    index = np.asarray(image.index[row])[here]
    if isinstance(image, Regions):
        corners = np.asarray(image.boxes[row])[here].T
    else:
        (y, x), (rows, cols) = np.asarray(image.yx[row])[here].T, np.asarray(image.grid[row])[here].T
        corners = np.stack([x / cols, y / rows, (x + 1) / cols, (y + 1) / rows])
    return np.stack([index, *corners], axis=-1).astype(np.float32)


def group_words(processor: Processor, sentence: Sentence) -> tuple[list[Word], list[list[int]]]:
    """The words of a text as it spells them, and the tokens of each: pieces that continue a word belong to it."""
    tokenizer = processor.tokenizer
    tokens = processor.tokens(sentence.text)
    pieces: list[list[int]] = []
    for i, token in enumerate(tokens.ids):
        if pieces and token in tokenizer.continuations:
            pieces[-1].append(i)
        else:
            pieces.append([i])
    words = []
    for piece in pieces:
        start, end = tokens.spans[piece[0]][0], tokens.spans[piece[-1]][1]
        beside = tokenizer.token(tokens.ids[piece[0]]) if tokens.ids[piece[0]] < tokenizer.vocab_size else "[TASK]"
        text = sentence.text[start:end] if end else beside
        named = [m for m in sentence.mentions if end and start < m.end and end > m.start]
        boxes = [(float(m.index), *map(float, box)) for m in named for box in m.boxes]
        words.append(Word(text=text, boxes=boxes))
    return words, pieces
