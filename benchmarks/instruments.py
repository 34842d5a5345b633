"""Every instrument on the same model: does it point at what is named, is it faithful, does it notice a wrecked model?

    python benchmarks/instruments.py --run=RUN [--other=RUN] [--examples=300] [--data_dir=data] [--output=FILE]

One question a picture, of those that name something that is there; explained is the answer the model gives. `attention`
is the layer and head that points best on the validation split. Beside the instruments stand an order that knows
nothing (`random`) and one that knows the truth (`boxes`). `--other` is a run with another seed, for agreement.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import singlestream as ss
from singlestream.data.record import Source
from singlestream.data.sources import open_split
from singlestream.data.survey import is_question
from singlestream.explain.agreement import rank_correlation, scrambled
from singlestream.explain.faithfulness import Curves, area, curves
from singlestream.explain.instruments import explain, instrument_names
from singlestream.explain.localisation import Located, locate_answer, locate_words
from singlestream.explain.pointing import add_counts, count_pointing
from singlestream.explain.question import Question, Relevance
from singlestream.explain.scores import bootstrap_interval, wilson_interval
from singlestream.model.answering import is_by_itself
from singlestream.model.mentions import mentions

ROWS = 25  # of a batch
COLUMNS = (
    *("instrument", "word: pointing", "inside", "IoU", "answer: pointing", "inside", "IoU"),
    *("deletion", "less random", "insertion", "less random", "after scrambling", "other seed", "s / 100"),
)
Explain = Callable[[Any, Question], Relevance]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="a run on vqa whose source knows what words speak of")
    parser.add_argument("--other", default="", help="the same with another seed")
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--data_dir", default="", help="config.data.dir, if not where the run's config says")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    models = [ss.load(run) for run in (args.run, args.other) if run]
    for model in models:
        if args.data_dir:
            model.move_data(args.data_dir)
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    print("\n".join(lines), flush=True)
    for line in table(models, args.examples):
        print(line, flush=True)
        lines.append(line)
    if args.output:
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(models: list[ss.Model], count: int) -> Iterator[str]:
    """A line an instrument."""
    model = models[0]
    asked = list(questions(model, "test", count))
    layer, head = best_head(model)
    options = {"attention": {"layer": layer, "head": head}}
    ways: dict[str, Explain] = {"random": _random, "boxes": functools.partial(_boxes, model.spec.continuations)}
    ways |= {name: functools.partial(explain, name, **options.get(name, {})) for name in instrument_names()}
    by_itself = is_by_itself("vqa", model.config)
    follow = jax.jit(
        lambda params, question, image: curves(nnx.merge(model.graphdef, params), question, image, by_itself=by_itself)
    )
    random: Curves | None = None
    for name, way in ways.items():
        said, seconds = run(model, model.params, way, asked)
        found = [follow(model.params, question, each.image) for question, each in zip(asked, said, strict=True)]
        followed = Curves(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
        random = followed if random is None else random
        agree = []
        if name not in ("random", "boxes"):
            wreck = scrambled(model.params, jax.random.key(1))
            agree.append(alike(asked, said, run(model, wreck, way, asked)[0]))
            if len(models) > 1 and name != "attention":  # the best head of another seed is another head
                other = list(questions(models[1], "test", count))
                agree.append(alike(asked, said, run(models[1], models[1].params, way, other)[0]))
        shown = f"{name} (layer {layer + 1}, head {head + 1})" if name == "attention" else name
        cells = [shown, *located(model, asked, said), *faithful(followed, random)]
        cells += [*agree, "", ""][:2] + [f"{100 * seconds / count:.2f}" if agree else ""]
        yield f"| {' | '.join(cells)} |"


def questions(model: ss.Model, split: str, count: int) -> Iterator[Question]:
    """Batches of one question a picture, with the model's own answers as targets."""
    data = dataclasses.replace(model.processor.data, texts_per_row=1)
    processor = dataclasses.replace(model.processor, data=data).unpacked()

    @jax.jit
    def answer(params: Any, batch: ss.Batch) -> jax.Array:
        module = nnx.merge(model.graphdef, params)
        return module.heads["vqa"](module(batch))[:, 0].argmax(-1)

    rows = [processor.row([entry]) for entry in entries(open_split(model.config.data, split), count)]
    for start in range(0, len(rows), ROWS):
        batch = jax.device_put(processor.batch(rows[start : start + ROWS]))
        yield Question(batch=batch, target=answer(model.params, batch), head="vqa", spec=model.spec)


def entries(source: Source, count: int) -> Iterator[tuple[Any, list[Any]]]:
    """The first pictures, each with one of the questions that name something there, in turn."""
    found = 0
    for number in range(len(source)):
        record = source[number]
        texts = [text for text in record.texts if is_question(text) and any(len(m.boxes) for m in text.mentions)]
        if texts and found < count:
            found += 1
            yield record, [texts[number % len(texts)]]


def best_head(model: ss.Model) -> tuple[int, int]:
    """The layer and head whose maps of words point best on the validation split."""

    @jax.jit
    def counts(params: Any, batch: ss.Batch) -> Any:
        encoded = nnx.merge(model.graphdef, params)(batch, attention=True)
        return count_pointing(encoded.attention, batch=batch, continuations=model.spec.continuations)

    each = [counts(model.params, question.batch) for question in questions(model, "validation", 8 * ROWS)]
    hits = np.asarray(functools.reduce(add_counts, each).hits)
    layer, head = np.unravel_index(hits.argmax(), hits.shape)
    return int(layer), int(head)


def run(model: ss.Model, params: Any, way: Explain, asked: list[Question]) -> tuple[list[Relevance], float]:
    """What an instrument says, and its seconds without those of compiling."""
    compiled = jax.jit(lambda params, question: way(nnx.merge(model.graphdef, params), question))
    jax.block_until_ready(compiled(params, asked[0]))
    started = time.perf_counter()
    said = [jax.block_until_ready(compiled(params, question)) for question in asked]
    return said, time.perf_counter() - started


def _random(_: Any, question: Question) -> Relevance:
    batch = question.batch
    drawn = jax.random.uniform(jax.random.key(2), (*batch.text.ids.shape, batch.image.segments.shape[1]))
    return Relevance(drawn[:, :, 0], drawn[:, 0], drawn)


def _boxes(continuations: tuple[int, ...], _: Any, question: Question) -> Relevance:
    truth = mentions(question.batch, continuations)
    words = (truth.true & truth.named[..., None]).astype(jnp.float32)
    return Relevance(truth.named.astype(jnp.float32), words.max(1), words)


def located(model: ss.Model, asked: list[Question], said: list[Relevance]) -> list[str]:
    """Pointing, the share inside and IoU, of words and of answers."""
    cells = []
    for score in (locate_words, locate_answer):
        if score is locate_words and said[0].words is None:
            cells += ["", "", ""]
            continue
        each = [score(a, q.batch, model.spec.continuations) for q, a in zip(asked, said, strict=True)]
        found = Located(*(np.concatenate([np.ravel(x) for x in parts]) for parts in zip(*each, strict=True)))
        hits, count = float(found.pointing[found.counted].sum()), int(found.counted.sum())
        low, high = wilson_interval(hits, count)
        cells += [f"{hits / count:.3f} ({low:.3f}-{high:.3f})", *(f"{x[found.counted].mean():.3f}" for x in found[1:3])]
    return cells


def faithful(found: Curves, random: Curves) -> list[str]:
    """Areas of both curves, and the mean difference from random orders with its interval."""
    cells = []
    for curve, other in zip(found, random, strict=True):
        own = np.asarray(area(curve))
        apart = own - np.asarray(area(other))
        low, high = bootstrap_interval(apart)
        cells += [
            f"{own.mean():.3f}",
            f"{apart.mean():+.3f} ({low:+.3f} to {high:+.3f})" if found is not random else "",
        ]
    return cells


def alike(asked: list[Question], one: list[Relevance], other: list[Relevance]) -> str:
    """The mean rank correlation of what both say of the image tokens."""
    each = [
        rank_correlation(a.image, b.image, question.batch.image.segments > 0)
        for question, a, b in zip(asked, one, other, strict=True)
    ]
    return f"{np.concatenate(each).mean():+.2f}"


if __name__ == "__main__":
    sys.exit(main())
