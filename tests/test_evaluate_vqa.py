"""The recipes for VQA v2 and GQA, cut small, from published files to the server's: figures are the official ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import singlestream as ss
from singlestream.data.official_vqa import accuracy
from singlestream.data.pipeline import blind_answer
from singlestream.data.sources import open_split
from singlestream.evaluate import evaluate
from singlestream.explain.scores import calibration
from singlestream.train.loop import train
from tests.data.toy_questions import write_gqa, write_vqav2
from tests.test_configs import read
from tests.train.conftest import evaluation_compiled_once, one_device  # noqa: F401  (fixtures)

pytestmark = pytest.mark.usefixtures("one_device", "evaluation_compiled_once")
SIZES = dict(width=16, num_layers=1, num_heads=2, mlp_dim=32)
STEPS = dict(num_steps=2, batch_size=8, accumulate=1, warmup_steps=1, eval_every=2, eval_batches=0, checkpoint_every=2)


def trained(name: str, base: Path, **data: Any) -> Path:
    """The run of a shipped config with everything small that may be small."""
    config = read(name)
    cache = jax.config.jax_compilation_cache_dir or "none"
    small = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, dir=str(base), shorter_side=64, max_patches=8, **data),
        model=dataclasses.replace(config.model, **SIZES),
        train=dataclasses.replace(config.train, **STEPS, cache_dir=cache, huge_pages=False),
    )
    train(small, base / "run")
    return base / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = write_vqav2(tmp_path_factory.mktemp("vqa"))
    return trained("vqav2", base, options={"held_out": 0}, min_answer_count=1)


def predictions(run: Path, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "eval" / split / "predictions.jsonl").read_text().splitlines()]


def test_accuracies_are_the_official_ones(run):
    metrics = evaluate(run, split="validation", report=True)
    model, lines = ss.load(run), predictions(run, "validation")
    source = open_split(model.config.data, "validation")
    asked = [text for i in range(len(source)) for text in source.texts(i)]
    assert [line["id"] for line in lines] == [text.id for text in asked] and len(asked) == metrics["vqa/questions"] == 3
    scores = [accuracy(line["predicted"], text.answers) for line, text in zip(lines, asked, strict=True)]
    assert [line["score"] for line in lines] == pytest.approx(scores)
    assert metrics["vqa/accuracy"] == pytest.approx(np.mean(scores))
    assert metrics["vqa/accuracy/low"] <= metrics["vqa/accuracy"] <= metrics["vqa/accuracy/high"]
    by_type = {"yes/no": scores[:1], "other": scores[1:]}
    assert {kind: metrics[f"vqa/accuracy/{kind}"] for kind in by_type} == pytest.approx(
        {kind: np.mean(some) for kind, some in by_type.items()}
    )
    priors = json.loads((run / "priors.json").read_text())
    blind = [accuracy(blind_answer(priors, text.text), text.answers) for text in asked]
    assert metrics["vqa/blind_accuracy"] == pytest.approx(np.mean(blind))
    assert metrics["vqa/majority_accuracy"] == pytest.approx(
        np.mean([accuracy(priors["majority"], text.answers) for text in asked])
    )
    # A probability is what the head expects of its answer, each by itself.
    said = np.array([line["probability"] for line in lines])
    assert metrics["vqa/ece"] == pytest.approx(calibration(said, np.array(scores))[0], abs=1e-5)
    image = source[0].images[0]
    assert sum(model.predict(image, asked[0].text).probabilities.values()) != pytest.approx(1, abs=1e-3)


def test_the_loop_counts_as_evaluation_does(run):
    metrics = evaluate(run, split="validation")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    final = next(row for row in rows if row["split"] == "results")
    for name in ("loss", "vqa/loss", "vqa/accuracy", "vqa/blind_accuracy", "vqa/majority_accuracy"):
        assert final[name] == pytest.approx(metrics[name], rel=1e-5), name


def test_a_split_without_answers_gives_the_file_for_the_server(run):
    metrics = evaluate(run, split="test", report=True)
    assert metrics["vqa/questions"] == 3 and not any("accuracy" in name for name in metrics)
    lines = predictions(run, "test")
    assert all(line["answer"] is None and line["correct"] is None for line in lines)
    submitted = json.loads((run / "eval/test/submission.json").read_text())
    assert submitted == [{"question_id": int(line["id"]), "answer": line["predicted"]} for line in lines]
    assert (run / "eval/test/report.html").exists()
    evaluate(run, split="validation")
    assert not (run / "eval/validation/submission.json").exists()


@pytest.mark.slow
def test_gqa_counts_an_answer_as_right_or_wrong(tmp_path):
    run = trained("gqa", write_gqa(tmp_path))
    metrics = evaluate(run, split="test_dev")
    (line,) = predictions(run, "test_dev")
    assert line["correct"] == (line["predicted"] == "no") and "score" not in line
    assert metrics["vqa/accuracy"] == float(line["correct"])


def test_pictures_that_were_trained_on_are_said(run, capsys):
    trained_on = len({record.picture for record in _records(run, "train")})
    evaluate(run, split="train")
    assert f"{trained_on} of the {trained_on} pictures of split 'train' were trained on" in capsys.readouterr().err
    evaluate(run, split="validation")
    assert "trained on" not in capsys.readouterr().err


def _records(run: Path, split: str) -> list[Any]:
    source = open_split(ss.load(run).config.data, split)
    return [source[i] for i in range(len(source))]
