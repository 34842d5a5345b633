"""The page of an evaluated run: gathers from data, model and folder what `explain.report` draws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from singlestream.answers import ACCURACIES, Evaluation, by_kind
from singlestream.config import ModelConfig, ModelSettings
from singlestream.explain.report import Curve, PointingResult, Report, ResultRow, Share
from singlestream.explain.scores import CalibrationBin, calibration
from singlestream.page_examples import choose_examples, make_examples
from singlestream.train.metrics import read_rows


def make_report(found: Evaluation) -> Report:
    """Everything on the page; examples are drawn evenly from the kinds of questions."""
    error: float | None = None
    bins: tuple[CalibrationBin, ...] = ()
    if found.judged:
        probability = np.array([each.probability for each in found.judged])
        error, bins = calibration(probability, np.array([each.sentence.score(each.predicted) for each in found.judged]))
    asked = f", {len(found.judged):,} questions" if found.judged else ""
    shown = [each for right in (False, True) for each in choose_examples(found.judged, right=right)]
    examples, config = make_examples(found, shown), found.model.config
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
        examples=examples,
        notes=make_notes(config.model, bool(found.judged), bool(examples)),
        hint=f'singlestream explain IMAGE "TEXT" --workdir={found.folder.path} --output=page.html' if examples else "",
    )


def make_notes(config: ModelSettings, answers: bool, examples: bool) -> list[str]:
    """What the page leaves out of such a model."""
    notes = []
    if config.inputs.audio_dim:
        notes.append(
            "This model hears, too. Without the picture it still hears, and without the sound it still sees; what "
            "counted of a sound is on the page that `singlestream explain --audio=SOUND.wav` writes."
        )
    if config.inputs.pruning.active:
        notes.append(
            "Image tokens that were merged share evenly what they receive as one, and are not marked below."
            if config.inputs.pruning.method == "merge"
            else "Pruned image tokens receive no attention in the layers after the drop, and are not marked below."
        )
    if answers and not examples:
        why = (
            "region features come without pictures to show them on"
            if config.meets
            else "text and picture meet in no layer, so there is no attention"
        )
        notes.append(f"No examples: {why}. `singlestream explain` makes a page of one answer.")
    return notes


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
        ("the picture reads", "itself and the words" if sizes.picture_reads_text else "itself, not the words"),
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
    names = dict(zip(("model", "blind", "majority", "no_image", "no_audio"), ACCURACIES, strict=True))
    return [
        ResultRow(
            kind=kind,
            count=count,
            **{
                field: _share(found.metrics, f"vqa/{name}{suffix}")
                for field, name in names.items()
                if f"vqa/{name}{suffix}" in found.metrics
            },
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
