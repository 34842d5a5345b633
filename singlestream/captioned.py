"""A split's pictures captioned by a run, and how many of the captions are true where the source can tell."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from flax import nnx

from singlestream.answers import Metrics, put_share
from singlestream.caption_scores import caption_scores, missing
from singlestream.config import DataConfig
from singlestream.data.pipeline import wanted
from singlestream.data.record import Record, Source
from singlestream.model.captions import Caption, Search, Writer, writing
from singlestream.predict import MAX_ROWS, Model

FILE = "captions.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captioned:
    """A record's caption, what people wrote about the picture (of the kinds that the run was trained on), and what
    its source says of the caption (`true`, say), {} where it cannot tell."""

    record: Record
    caption: Caption
    references: tuple[str, ...]
    verdicts: Mapping[str, bool] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """A line of `captions.jsonl`."""
        values = {
            "id": self.record.id,
            "caption": self.caption.text,
            "log_probability": round(self.caption.log_probability, 6),
            "references": self.references,
        }
        if self.record.files:
            values["files"] = self.record.files
        return json.dumps(values | dict(self.verdicts), ensure_ascii=False)


def write_captions(model: Model, source: Source, search: Search | None = None) -> list[Captioned]:
    """A caption for every record of a split, by default the best of a beam of five, as captioning is reported."""
    data = dataclasses.replace(model.processor.data, texts_per_row=1, examples_per_row=1, row_patches=0)
    processor = dataclasses.replace(model.processor, data=data)
    search = search or Search(kind="beam")
    writer = Writer(nnx.graphdef(model.module), writing(model.heads), processor.tokenizer, search)
    judge = getattr(source, "judge", None)
    found = []
    for start in range(0, len(source), MAX_ROWS):
        records = [source[i] for i in range(start, min(start + MAX_ROWS, len(source)))]
        rows = [processor.row([(record, record.texts[:1])]) for record in records]
        rows += [processor.row([])] * (MAX_ROWS - len(rows))  # one size of a batch, one program
        for record, caption in zip(records, writer(model.params, processor.batch(rows)), strict=False):
            verdicts = judge(record, caption.text) if judge else {}
            said = references(record, data)
            found.append(Captioned(record=record, caption=caption, references=said, verdicts=verdicts))
    return found


def references(record: Record, data: DataConfig) -> tuple[str, ...]:
    """The record's captions, of the kinds that are trained on (`config.data.kinds`)."""
    captions = dataclasses.replace(data, texts="captions")
    return tuple(text.text for text in record.texts if wanted(text, captions))


def unscored(captioned: Sequence[Captioned]) -> str:
    """Why the captions get no BLEU, ROUGE-L and CIDEr; "" where they do."""
    without = sum(not each.references for each in captioned)
    return f"{without:,} of the {len(captioned):,} pictures have no reference" if without else missing()


def summarise_captions(captioned: Sequence[Captioned]) -> Metrics:
    """`caption/count`; what the source tells, as `caption/true`, each with its interval; `caption/cider` and the like.

    The latter (see `caption_scores`) where nothing that `unscored` names stands against it.
    """
    metrics: Metrics = {"caption/count": len(captioned)}
    for name in dict.fromkeys(name for each in captioned for name in each.verdicts):
        put_share(metrics, f"caption/{name}", [float(each.verdicts[name]) for each in captioned])
    if not unscored(captioned):
        scores = caption_scores([each.caption.text for each in captioned], [each.references for each in captioned])
        metrics |= {f"caption/{name}": value for name, value in scores.items()}
    return metrics
