"""Captions end to end: trained a few steps, written by every search, judged, evaluated by the program."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import singlestream as ss
from singlestream import captioned
from singlestream.captioned import write_captions
from singlestream.config import DataConfig
from singlestream.data.record import Record, Sentence
from singlestream.data.sources import open_split
from singlestream.evaluate import evaluate
from singlestream.train import loop
from tests.train.conftest import one_device  # noqa: F401  (a fixture)
from tests.train.toy import toy_config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", params=["prefix_lm", pytest.param("caption", marks=pytest.mark.slow)])
def run(request, one_device, tmp_path_factory):  # noqa: F811
    """Six steps on captions and questions, several texts a picture, by one stream and by an encoder-decoder."""
    base = tmp_path_factory.mktemp("captions")
    model = {"direction": "causal"} if request.param == "prefix_lm" else {"decoder_layers": 1}
    config = toy_config(base / "scenes", model={**model, "max_text_length": 20, "num_layers": 1}, num_steps=6)
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, texts="captions", text_length=20),
        objectives={request.param: 1.0, "mlm": 0.5},
    )
    loop.train(config, base / "run")
    return base / "run"


@pytest.fixture(scope="module")
def model(run):
    return ss.load(run)


def test_eval_writes_and_judges_a_caption_for_every_picture(run, model, monkeypatch, capsys):
    monkeypatch.setattr(captioned, "missing", lambda: "it was not installed")
    metrics = evaluate(run, split="test")
    assert capsys.readouterr().err == "captions get no BLEU, ROUGE-L and CIDEr: it was not installed\n"
    source = open_split(model.config.data, "test")
    lines = [json.loads(line) for line in (run / "eval/test/captions.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [source[i].id for i in range(len(source))]
    assert metrics["caption/count"] == len(source)
    assert metrics["caption/true"] == np.mean([line["true"] for line in lines])
    for i, line in enumerate(lines):
        assert source.judge(source[i], line["caption"]) == {name: line[name] for name in ("true", "complete")}
    assert metrics["caption/complete"] == np.mean([line["complete"] for line in lines])
    assert {reference for line in lines for reference in line["references"]} > set()
    again = [each.caption.text for each in write_captions(model, source)]
    assert again == [line["caption"] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("run", ["caption"], indirect=True)
def test_the_program_searches_as_its_flags_say(run, model):
    chosen = {"top_p": 0.8, "temperature": 2.0, "seed": 3}
    flags = [f"--{name}={value}" for name, value in chosen.items()]
    done = subprocess.run(
        [sys.executable, "eval.py", f"--workdir={run}", "--split=validation", "--search=sample", *flags],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    lines = (run / "eval/validation/captions.jsonl").read_text().splitlines()
    source = open_split(model.config.data, "validation")
    drawn = write_captions(model, source, ss.Search(kind="sample", **chosen))
    assert [json.loads(line)["caption"] for line in lines] == [each.caption.text for each in drawn]


def test_a_picture_is_known_by_its_file_and_one_without_a_reference_is_said(monkeypatch):
    monkeypatch.setattr(captioned, "missing", lambda: "")
    text = Sentence(id="t", text="a dog")
    told = Record(id="r", images=(), texts=(text,), picture=1, files=("a.jpg",))
    untold = dataclasses.replace(told, texts=(dataclasses.replace(text, answer="yes"),))
    caption = ss.Caption(text="a ring", log_probability=-1.0)
    both = [
        captioned.Captioned(record=record, caption=caption, references=captioned.references(record, DataConfig()))
        for record in (told, untold)
    ]
    assert [json.loads(each.to_json())["files"] for each in both] == [["a.jpg"], ["a.jpg"]]
    assert captioned.unscored(both) == "1 of the 2 pictures have no reference"
    assert captioned.summarise_captions(both) == {"caption/count": 2}
    assert captioned.unscored(both[:1]) == ""


def test_references_are_the_captions_of_the_kinds_that_are_trained_on():
    """A question is none, whether it was answered or not."""
    said = (("a cat", "", "short"), ("a cat and a dog", "", "all"), ("what is it?", None, "all"), ("one?", "no", "all"))
    texts = tuple(Sentence(id=text, text=text, answer=answer, kind=kind) for text, answer, kind in said)
    record = Record(id="1", images=(), texts=texts, picture=1)
    assert captioned.references(record, DataConfig()) == ("a cat", "a cat and a dog")
    assert captioned.references(record, DataConfig(kinds=("all",))) == ("a cat and a dog",)


@pytest.mark.parametrize(
    "search",
    [ss.Search(), ss.Search(kind="beam", num_beams=3), ss.Search(kind="sample", top_p=0.5, temperature=0.7)],
    ids=lambda search: search.kind,
)
def test_a_picture_is_captioned_alone_as_among_others(model, search):
    """Sampling draws by the row, so the first row's draw is the same in any batch."""
    source = open_split(model.config.data, "test")
    images = [source[i].images[0] for i in range(3)]
    many = model.caption(images, search)
    one = model.caption(images[0], search)
    assert len(many) == 3 and one.text == many[0].text
    assert one.log_probability == pytest.approx(many[0].log_probability, abs=1e-4)
    assert one.log_probability < 0


def test_a_true_caption_is_told_from_a_false_one(model):
    source = open_split(model.config.data, "test")
    record = source[0]
    for text in record.texts:
        if not text.answer:
            assert source.judge(record, text.text) == {"true": True, "complete": text.kind == "complete"}
            assert not any(source.judge(record, f"{text.text} and five large things").values())
    nonsense = ("", "a", "and", "left of", "the the", "a small", "there is a")
    for text in (*nonsense, "is there a ring ?", "is it?", "red?", "?", "where is the red ring?"):
        assert not any(source.judge(record, text).values())


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="search 'best': choose one of greedy, beam, sample"):
        ss.Search(kind="best")
    with pytest.raises(ValueError, match="a search needs 1 or more"):
        ss.Search(kind="beam", num_beams=0)
